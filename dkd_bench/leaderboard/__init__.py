"""From run records to a leaderboard: ranking, and its renderings as text; pure functions."""

from dkd_bench.leaderboard._board import AttackScore, Board, Group, Row, RunSummary, ThreatModelScore
from dkd_bench.leaderboard._json import render_json
from dkd_bench.leaderboard._markdown import render_markdown
from dkd_bench.leaderboard._ranking import rank_runs
from dkd_bench.leaderboard._render import FORMATS, Format, render
from dkd_bench.leaderboard._separation import render_separations
from dkd_bench.leaderboard._table import margins, one_line, percent, percent_interval, table

__all__ = [
    "FORMATS",
    "AttackScore",
    "Board",
    "Format",
    "Group",
    "Row",
    "RunSummary",
    "ThreatModelScore",
    "margins",
    "one_line",
    "percent",
    "percent_interval",
    "rank_runs",
    "render",
    "render_json",
    "render_markdown",
    "render_separations",
    "table",
]
