from __future__ import annotations

from pathlib import Path

import pytest

from dkd_bench.leaderboard import rank_runs, render
from dkd_bench.rundir import load_run

PUBLISHED = Path(__file__).parents[2] / "leaderboard"
FOLDERS = sorted(path.parent for path in PUBLISHED.glob("*/results.json"))


def test_something_is_published():
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_published_board_is_rendered_from_its_record(folder):
    record = load_run(folder)
    assert record.complete
    # The label of a single run is not shown, so the folder may be called otherwise than when it was made.
    board = rank_runs([(folder.name, record)])
    assert render(board, "markdown") == (folder / "leaderboard.md").read_text()
    assert folder.name in (PUBLISHED / "README.md").read_text()
