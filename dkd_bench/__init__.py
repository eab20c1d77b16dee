"""A benchmark harness for adversarial-robustness leaderboards."""

__version__ = "0.1.0"
