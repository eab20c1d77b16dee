from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dkd_bench.verify import AuditReport, Checked, RoundedCell, render_report
from dkd_bench.verify._report import summarised

CHECKED = Checked(
    cells=2, cells_recorded=2, images=80, evidence=3, evidence_made_again=0, evidence_in_part=0, outcomes_unchecked=0
)


def report(*accuracies: tuple[float, float]) -> AuditReport:
    return AuditReport(
        findings=(),
        summary="all holds",
        rounded=tuple(
            RoundedCell(cell=f"cell {number}", robust_accuracy=before, rounded_robust_accuracy=after, changed=number)
            for number, (before, after) in enumerate(accuracies)
        ),
        checked=CHECKED,
        results_sha256="0" * 64,
    )


def test_cells_that_rounding_changes_by_more_than_a_point_are_listed_the_largest_first():
    text = render_report(report((0.5, 0.52), (0.5, 0.505), (0.5, 0.45)), "markdown")
    assert text.startswith("all holds\nafter 8-bit rounding: the largest change of a robust accuracy is -5.0\n")
    rows = [line for line in text.splitlines() if line.startswith("| cell ")][1:]
    assert [row.split("|")[1].strip() for row in rows] == ["cell 2", "cell 0"]
    assert [word.strip() for word in rows[0].split("|")[1:-1]] == ["cell 2", "50.0", "45.0", "-5.0", "2"]


def test_changes_of_a_point_are_told_in_a_line():
    text = render_report(report((0.5, 0.51), (0.5, 0.495)), "markdown")
    assert text.splitlines()[1:] == [
        "after 8-bit rounding: no robust accuracy changes by more than 1 point (the largest is +1.0: cell 0)"
    ]
    assert render_report(report((0.5, 0.5)), "markdown").endswith("by more than 1 point")
    assert render_report(report(), "markdown").endswith("no cell whose evidence is there whole")


def test_json_is_the_whole_report():
    told = json.loads(render_report(report((0.5, 0.52)), "json"))
    assert told.keys() == {"summary", "findings", "rounded", "checked", "results_sha256", "tolerance"}
    assert told["checked"]["images"] == 80


@pytest.mark.parametrize(
    ("changes", "findings", "other_code", "told"),
    [
        ({}, 0, False, "all of it as recorded"),
        ({}, 1, False, "1 finding"),
        ({}, 2, False, "2 findings"),
        (
            {"evidence_made_again": 1},
            0,
            False,
            "all of it as recorded; 1 piece of evidence was not in the run and was made again from its key",
        ),
        (
            {"evidence_made_again": 16, "outcomes_unchecked": 20},
            0,
            True,
            "all of it as recorded; 16 pieces of evidence were not in the run and were made again from their keys; "
            "20 of 100 outcomes could not be checked, since only broken images were kept; "
            "made by other code of dkd-bench than this",
        ),
    ],
)
def test_the_summary_says_what_is_left_open(changes, findings, other_code, told):
    text = summarised(replace(CHECKED, **changes), findings=findings, other_code=other_code)
    assert text == f"re-scored 2 of 2 cells, 80 images against their outcomes: {told}"
