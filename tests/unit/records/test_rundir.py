"""A run read from its folder, with the doubt of its verification beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from dkd_bench.errors import ConfigError, StoreError
from dkd_bench.leaderboard import rank_runs
from dkd_bench.records import CellRecord, FlagRecord, RunRecord
from dkd_bench.records.flags import UNVERIFIED
from dkd_bench.records.rundir import LoadedRun, as_loaded, evidence_store, load_run, load_with_doubt
from dkd_bench.records.verification import Verification
from dkd_bench.steps.save import save_board, save_run
from dkd_bench.store.files import write_json

MakeCell = Callable[..., CellRecord]
MakeRun = Callable[..., RunRecord]


@pytest.fixture
def record(make_cell: MakeCell, make_run: MakeRun) -> RunRecord:
    return make_run([make_cell("rrrf"), make_cell("rrff", defense="other")])


@pytest.fixture
def folder(record: RunRecord, tmp_path: Path) -> Path:
    save_run(record, tmp_path / "run")
    return tmp_path / "run"


def verify(folder: Path, *findings: str, digest: str | None = None) -> None:
    verification = Verification(
        results_sha256=digest or sha256((folder / "results.json").read_bytes()).hexdigest(),
        findings=findings,
        summary="",
        tolerance=1e-5,
        checked={},
        versions={},
    )
    write_json(folder / "verification.json", verification.model_dump(mode="json"))


def test_what_was_saved_is_read(record: RunRecord, folder: Path) -> None:
    assert load_run(folder) == load_run(folder / "results.json") == record


def test_a_run_that_nobody_verified_is_not_doubted(record: RunRecord, folder: Path) -> None:
    assert load_with_doubt(folder) == LoadedRun(record=record, folder=folder, doubt=None)
    assert load_with_doubt(folder).flag is None


def test_a_run_that_holds_is_not_doubted(folder: Path) -> None:
    verify(folder)
    assert load_with_doubt(folder).doubt is None


@pytest.mark.parametrize(
    ("findings", "doubt"),
    [
        (["image 3 is not so"], "verify found: image 3 is not so"),
        (["image 3 is not so", "nor is image 4", "nor 5"], "verify found: image 3 is not so (and 2 more)"),
    ],
)
def test_what_verify_found_is_a_doubt(record: RunRecord, folder: Path, findings: list[str], doubt: str) -> None:
    verify(folder, *findings)
    loaded = load_with_doubt(folder)
    assert loaded == LoadedRun(record=record, folder=folder, doubt=doubt)
    assert loaded.flag == FlagRecord(name=UNVERIFIED, detail=doubt)


def test_a_record_changed_since_is_doubted(folder: Path) -> None:
    verify(folder, digest="0" * 64)
    assert load_with_doubt(folder).doubt == "results.json was changed since it was verified"


def test_a_verification_that_cannot_be_read_is_a_doubt(folder: Path) -> None:
    (folder / "verification.json").write_text("{")
    assert load_with_doubt(folder).doubt == "verification.json cannot be read"


def test_a_record_under_another_name_has_no_verification(folder: Path) -> None:
    verify(folder, "image 3 is not so")
    (folder / "copy.json").write_bytes((folder / "results.json").read_bytes())
    assert load_with_doubt(folder / "copy.json").doubt is None


def test_no_run_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run at"):
        load_with_doubt(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(StoreError, match="is not a run record of schema version 1: complete: Field required"):
        load_with_doubt(tmp_path)


def test_a_record_of_another_schema_version_is_refused(folder: Path) -> None:
    told = json.loads((folder / "results.json").read_text())
    write_json(folder / "results.json", told | {"schema_version": 2})
    with pytest.raises(StoreError, match=r"is not a run record of schema version 1: schema_version: .*; run it again"):
        load_run(folder)


def test_evidence_is_kept_in_the_folder_under_its_key(folder: Path) -> None:
    store = evidence_store(folder)
    store.put("key", {"adversarial": torch.zeros(1)})
    assert [path.relative_to(folder) for path in folder.rglob("*.safetensors")] == [Path("evidence/key.safetensors")]


def test_a_bare_record_is_one_that_nobody_verified(record: RunRecord) -> None:
    loaded = as_loaded(record)
    assert loaded == LoadedRun(record=record)
    assert as_loaded(loaded) is loaded


def test_a_doubt_takes_every_row_of_its_run_from_the_ranking(record: RunRecord) -> None:
    doubted = LoadedRun(record=record, doubt="verify found: image 3 is not so")
    (group,) = rank_runs([("doubted", doubted), ("believed", record)]).groups
    rows = {(row.run, row.defense): row for row in group.rows}
    for defense in ("dkd", "other"):
        assert rows["believed", defense].flags == ()
        assert rows["believed", defense].rank is not None
        row = rows["doubted", defense]
        assert (row.flags, row.trust, row.rank) == ((doubted.flag,), "invalid", None)


def test_a_board_shows_the_doubt_and_a_new_record_forgets_it(record: RunRecord, folder: Path) -> None:
    verify(folder, "image 3 is not so")
    save_board(load_with_doubt(folder), folder)
    assert "evidence not verified (verify found: image 3 is not so)" in (folder / "leaderboard.md").read_text()
    save_run(record, folder)
    assert not (folder / "verification.json").exists()
    assert "evidence not verified" not in (folder / "leaderboard.md").read_text()
