"""What stands in ``leaderboard/`` is rendered from its records, and the command that does it."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from dkd_bench.errors import ConfigError, StoreError
from dkd_bench.records.rundir import load_run
from dkd_paper.pages import PAGE, pages, publish, stale_pages
from dkd_paper.record import Reproduction
from dkd_paper.report import save_reproduction
from dkd_paper.targets import Reproduced

PUBLISHED = Path(__file__).parents[2] / "leaderboard"
RUNS = sorted(path.parent for path in PUBLISHED.glob("*/results.json"))
TABLES = sorted(path for path in PUBLISHED.glob("*/*.json") if path.stem.startswith(("table", "figure")))


def test_no_published_page_is_stale():
    assert stale_pages(PUBLISHED) == []


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_published_run_is_complete_and_listed(folder):
    assert load_run(folder).complete
    assert folder.name in (PUBLISHED / "README.md").read_text()


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_published_table_says_where_its_numbers_come_from(path):
    told = json.loads(path.read_text())
    assert told["command"].startswith(f"dkd-bench reproduce {path.stem}")
    assert told["sources"]
    assert all(source["weights_sha256"] and source["run"]["command"] for source in told["sources"])
    assert path.parent.name in (PUBLISHED / "README.md").read_text()


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(RUNS[0], folder / RUNS[0].name)
    return folder


def test_publishing_writes_what_is_missing_and_then_nothing(copy):
    assert copy / PAGE in publish(copy)
    assert f"## {RUNS[0].name}" in (copy / PAGE).read_text()
    assert publish(copy) == []


def test_an_edited_page_is_found_and_written_again(copy):
    publish(copy)
    page = copy / RUNS[0].name / "leaderboard.md"
    page.write_text(page.read_text().replace("1 | ", "2 | ", 1))

    assert stale_pages(copy) == [page]
    assert publish(copy) == [page]
    assert stale_pages(copy) == []


def test_a_picture_that_is_not_the_records_own_is_refused(tmp_path):
    folder = tmp_path / "mine"
    picture = b"<svg/>"
    made = Reproduction(
        target="figure5",
        title="Figure 5",
        dataset="digits",
        paper_dataset="MNIST",
        seeds=(0,),
        command="dkd-bench reproduce figure5",
        blocks=(),
        trends=(),
        notes=(),
        picture="figure5.svg",
        picture_sha256=sha256(picture).hexdigest(),
        sources=(),
    )
    save_reproduction(Reproduced(reproduction=made, picture=picture), folder)
    assert "![Figure 5](mine/figure5.svg)" in pages(tmp_path)[tmp_path / PAGE]

    (folder / "figure5.svg").write_bytes(b"<svg><!-- edited --></svg>")
    with pytest.raises(StoreError, match=r"figure5\.svg should have digest .*; take it anew from 'dkd-bench reproduce"):
        pages(tmp_path)


def test_nothing_published(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing is published in .*; expected folders with results.json"):
        pages(tmp_path)
    with pytest.raises(ConfigError, match="nothing is published"):
        pages(tmp_path / "not there")


def test_a_damaged_reproduction(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table2.json").write_text("{}")

    with pytest.raises(
        StoreError, match=r"table2\.json is not a reproduction of this version: Field required; make it"
    ):
        pages(tmp_path)
