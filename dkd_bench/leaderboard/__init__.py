"""Leaderboard of run records: ranking, and its renderings as text; pure functions."""

from dkd_bench.leaderboard._board import (
    AttackScore,
    Board,
    Group,
    PairedDifference,
    Row,
    RunSummary,
    SeedSpread,
    ThreatModelScore,
)
from dkd_bench.leaderboard._external import PublishedRow, read_published
from dkd_bench.leaderboard._json import render_json
from dkd_bench.leaderboard._markdown import render_markdown
from dkd_bench.leaderboard._ranking import rank_runs
from dkd_bench.leaderboard._render import FORMATS, Format, render
from dkd_bench.leaderboard._robustbench import render_robustbench
from dkd_bench.leaderboard._separation import render_separations
from dkd_bench.leaderboard._table import margins, one_line, percent, percent_interval, table

__all__ = [
    "FORMATS",
    "AttackScore",
    "Board",
    "Format",
    "Group",
    "PairedDifference",
    "PublishedRow",
    "Row",
    "RunSummary",
    "SeedSpread",
    "ThreatModelScore",
    "margins",
    "one_line",
    "percent",
    "percent_interval",
    "rank_runs",
    "read_published",
    "render",
    "render_json",
    "render_markdown",
    "render_robustbench",
    "render_separations",
    "table",
]
