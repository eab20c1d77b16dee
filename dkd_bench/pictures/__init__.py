"""Pictures of runs: gathered from their folders, drawn by ``plots``, written where the leaderboard links them."""

from dkd_bench.pictures._draw import draw, run_curves

__all__ = ["draw", "run_curves"]
