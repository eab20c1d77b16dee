"""Rendering of an audit's findings as text."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Literal, TypeAlias

from dkd_bench.leaderboard import percent, table
from dkd_bench.verify._claim import ClaimReport
from dkd_bench.verify._report import AuditReport, RoundedCell

Report: TypeAlias = "AuditReport | ClaimReport"

NOTABLE_CHANGE = 0.01
"""Change of a robust accuracy by 8-bit rounding, in [0, 1], over which it is shown."""


def render_report(report: Report, output_format: Literal["markdown", "json"]) -> str:
    """Return a report for people, its findings left out since they go to stderr; or the whole of it as JSON."""
    if output_format == "json":
        return json.dumps({"summary": report.summary, **asdict(report)}, indent=1, allow_nan=False)
    return report.summary if isinstance(report, ClaimReport) else f"{report.summary}\n{_rounding(report.rounded)}"


def _rounding(cells: tuple[RoundedCell, ...]) -> str:
    """Return the changes by 8-bit rounding of every candidate image: the largest first, and each that is notable."""
    if not cells:
        return "after 8-bit rounding: no cell whose evidence is there whole"
    largest = max(cells, key=lambda each: abs(each.change))
    if abs(largest.change) <= NOTABLE_CHANGE + 1e-9:
        maximum = f" (the largest is {_points(largest)}: {largest.cell})" if largest.change else ""
        return f"after 8-bit rounding: no robust accuracy changes by more than {100 * NOTABLE_CHANGE:g} point{maximum}"
    notable = sorted(
        (each for each in cells if abs(each.change) > NOTABLE_CHANGE + 1e-9), key=lambda each: -abs(each.change)
    )
    rows = [
        [
            each.cell,
            percent(each.robust_accuracy),
            percent(each.rounded_robust_accuracy),
            _points(each),
            str(each.changed),
        ]
        for each in notable
    ]
    heading = ["cell", "robust accuracy", "rounded", "change", "images that changed"]
    listed = table(heading, rows, left=1)
    return f"after 8-bit rounding: the largest change of a robust accuracy is {_points(largest)}\n\n{listed}"


def _points(cell: RoundedCell) -> str:
    return f"{100 * cell.change:+.1f}"
