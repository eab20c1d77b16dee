"""A benchmark harness for adversarial-robustness leaderboards; its door is ``run``, ``RunRequest`` and ``load_run``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dkd_bench.pipeline import run
    from dkd_bench.records.rundir import load_run
    from dkd_bench.steps.request import RunRequest

__version__ = "0.1.0"
__all__ = ["RunRequest", "load_run", "run"]

_FOUND_IN = {
    "RunRequest": "dkd_bench.steps.request",
    "load_run": "dkd_bench.records.rundir",
    "run": "dkd_bench.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for: ``import dkd_bench`` alone loads no torch."""
    if name not in _FOUND_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_FOUND_IN[name]), name)


def __dir__() -> list[str]:
    """Return the names of the door beside those that are there."""
    return sorted({*globals(), *__all__})
