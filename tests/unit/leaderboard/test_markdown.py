"""Boards as text: golden files, and what they must not leave out.

After a wanted change, ``DKD_BENCH_UPDATE_GOLDEN=1 pytest tests/unit/leaderboard`` writes the files anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dkd_bench.errors import UnknownNameError
from dkd_bench.leaderboard import FORMATS, Board, rank_runs, render, render_markdown
from dkd_bench.leaderboard._table import one_line, percent, percent_interval, table
from dkd_bench.records import CellRecord, FlagRecord, Interval, RunRecord, SeparationRecord

MakeCell = Callable[..., CellRecord]
MakeRun = Callable[..., RunRecord]

GOLDEN = Path(__file__).parents[2] / "golden"
TERMINAL = 120
"""Columns; a ranking of four threat models must fit, notes and all, unless there are rejects to count."""


@pytest.fixture
def board(small_run: RunRecord) -> Board:
    return rank_runs([("demo", small_run)])


@pytest.mark.parametrize(
    ("format", "name"), [("markdown", "board.md"), ("json", "board.json")], ids=["markdown", "json"]
)
def test_golden(board: Board, format: str, name: str) -> None:
    path = GOLDEN / name
    rendered = render(board, format)  # type: ignore[arg-type]
    if os.environ.get("DKD_BENCH_UPDATE_GOLDEN") == "1":
        path.write_text(rendered, encoding="utf-8")
    assert rendered == path.read_text(encoding="utf-8")


def test_unknown_format(board: Board) -> None:
    with pytest.raises(UnknownNameError, match=r"no format named 'jsn'. Did you mean 'json'\? Known: json, mark"):
        render(board, "jsn")  # type: ignore[arg-type]


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_renders(board: Board, format: str) -> None:
    assert render(board, format).endswith("\n")  # type: ignore[arg-type]


def test_json_reads_back(board: Board) -> None:
    text = render(board, "json")
    assert Board.model_validate_json(text) == board
    assert json.loads(text)["schema_version"] == 1


def test_tables_fit_a_terminal(small_run: RunRecord) -> None:
    cells = [
        cell.model_copy(update={"flags": (FlagRecord(name="unsure", detail="7 of 10 images"),)})
        for cell in small_run.cells
        if cell.defense == "dkd"
    ]
    text = render_markdown(rank_runs([("demo", small_run.model_copy(update={"cells": tuple(cells)}))]))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, lines)) <= TERMINAL


def test_every_row_of_a_table_has_as_many_cells_as_its_header(board: Board) -> None:
    for block in render_markdown(board).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_one_run_has_no_label_and_two_have(make_cell: MakeCell, make_run: MakeRun) -> None:
    first, second = make_run([make_cell("rfff")]), make_run([make_cell("rrff")], seed=1)
    assert "before" not in render_markdown(rank_runs([("before", first)]))
    both = render_markdown(rank_runs([("before", first), ("second", second)]))
    assert "- **before**: digits, 4 images" in both
    assert "| 1 | second | dkd " in both


def test_several_training_seeds_have_mean_and_spread(make_cell: MakeCell, make_run: MakeRun) -> None:
    runs = [(f"seed-{n}", make_run([make_cell("r" * (4 + n) + "f" * (6 - n))], training_seed=n)) for n in range(3)]
    text = render_markdown(rank_runs(runs))
    assert "### Linf, eps = 0.1, over training seeds" in text
    assert "| dkd     | majority |     3 | 50.0 | 10.0 |   40.0 |    60.0 |" in text
    assert "over training seeds" not in render_markdown(rank_runs(runs[:1]))


def test_unlike_grounds_are_told_apart(make_cell: MakeCell, make_run: MakeRun) -> None:
    first, second = make_run([make_cell()]), make_run([make_cell()], suite_fingerprint="e4" * 32)
    text = render_markdown(rank_runs([("a", first), ("b", second)]))
    assert "digits, n = 4, data d1d1d1d1d1d1" in text
    assert text.count("suite e4e4e4e4e4e4") == text.count("suite f3f3f3f3f3f3") == 2


def test_an_incomplete_run_says_so(make_cell: MakeCell, make_run: MakeRun) -> None:
    assert "on cpu: complete" in render_markdown(rank_runs([("a", make_run([make_cell()]))]))
    broken = make_run([make_cell(status="error", reason="no | memory\nleft")])
    text = render_markdown(rank_runs([("a", broken)]))
    assert "on cpu: **INCOMPLETE**" in text
    assert r"1. dkd (majority): incomplete, joint (pgd): no \| memory left" in text


def test_columns_that_say_nothing_are_left_out(make_cell: MakeCell, make_run: MakeRun) -> None:
    plain = render_markdown(rank_runs([("a", make_run([make_cell("rrrf")]))]))
    assert "abstained" not in plain
    assert "note |" not in plain
    rejecting = render_markdown(rank_runs([("a", make_run([make_cell("rrra")]))]))
    assert "abstained |" in rejecting


def test_the_legend_says_whom_to_trust(make_cell: MakeCell, make_run: MakeRun) -> None:
    joint = make_run([make_cell()])
    both = make_run([make_cell(), make_cell(threat_model="standalone")])
    trust = "the joint column is the one to trust"
    assert trust not in render_markdown(rank_runs([("a", joint)]))
    assert trust in render_markdown(rank_runs([("a", both)]))


def test_randomised_defences_are_explained(make_cell: MakeCell, make_run: MakeRun) -> None:
    run = make_run([make_cell("rrrr", survival=(0.5, 1.0, 1.0, 1.0))])
    text = render_markdown(rank_runs([("a", run)]))
    assert "87.5 [" in text
    assert "share of draws survived" in text


def test_numbers() -> None:
    assert percent(0.41) == "41.0"
    assert percent(None) == percent_interval(None) == "-"
    assert percent_interval(Interval(value=0.41, ci95=(0.3442, 0.4797))) == "41.0 [34.4, 48.0]"
    assert one_line("a |\n  b") == r"a \| b"


def test_table_aligns_and_drops_empty_columns() -> None:
    assert table(["name", "empty", "n"], [["a", "", "1"], ["long name", "", "200"]], left=2) == (
        "| name      |   n |\n| --------- | --: |\n| a         |   1 |\n| long name | 200 |"
    )


def test_lss_stands_in_the_ranking_of_ensembles(make_cell: MakeCell, make_run: MakeRun) -> None:
    run = make_run([make_cell(defense=name) for name in ("dkd", "overlapping", "single")])
    found = {"layer": "latent", "n": 500, "dimension": 64}
    separations = {
        "dkd": SeparationRecord(**found, margin=41.58, scaled_margin=0.6061, reason=None),
        "overlapping": SeparationRecord(**found, margin=None, scaled_margin=None, reason="no plane separates them"),
        "single": None,
    }
    defenses = {
        name: record.model_copy(update={"separation": separations[name]})
        for name, record in run.manifest.defenses.items()
    }
    manifest = run.manifest.model_copy(update={"defenses": defenses})
    text = render_markdown(rank_runs([("demo", run.model_copy(update={"manifest": manifest}))]))

    lines = {line.split("|")[2].strip(): line for line in text.splitlines() if line.startswith("| 1 ")}
    assert "| 41.6 (0.606) |" in lines["dkd"]
    assert "|         none |" in lines["overlapping"]
    assert "|            - |" in lines["single"]
    assert "- LSS: how far apart" in text
    assert max(map(len, text.splitlines()[:12])) <= TERMINAL
