"""The whole line on a task of four pixels: what is written, what is found again, and what an interruption leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dkd_bench.errors import AttackError, ConfigError
from dkd_bench.pipeline import run, run_whole
from dkd_bench.progress import SilentProgress
from dkd_bench.records import RunRecord
from dkd_bench.records.flags import INTERRUPTED, NOT_ADMITTED
from dkd_bench.records.rundir import evidence_store, load_run
from dkd_bench.steps.crafter import crafts_store
from dkd_bench.steps.request import RunRequest
from dkd_bench.store.files import write_file, write_json
from toy_run import Heard, toy

pytestmark = pytest.mark.usefixtures("empty_cache")


def request(folder: Path | None, **words: Any) -> RunRequest:
    values = {
        "defenses": ("Steady",),
        "attacks": ("Push", "Other"),
        "threat_models": ("joint",),
        "dataset": toy("load_toy"),
        "device": "cpu",
        "out": folder,
    } | words
    return RunRequest(**(values | {name: tuple(map(toy, values[name])) for name in ("defenses", "attacks")}))


def crafted(heard: Heard) -> list[str]:
    """Return what was crafted or challenged, rather than that a finished run was found."""
    return list(heard.tasks)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


class TestWholeLine:
    def test_a_run_is_measured_and_written(self, folder: Path) -> None:
        record, where = run(request(folder))
        assert where == folder
        assert record.complete
        assert {(cell.attack, cell.robust_accuracy) for cell in record.cells} == {("push", 0.5), ("other", 0.5)}
        assert load_run(folder) == record
        assert "steady" in (folder / "leaderboard.md").read_text()
        assert {path.stem for path in (folder / "evidence").iterdir()} == record.evidence.keys()

    def test_the_order_of_the_steps(self, folder: Path) -> None:
        heard = Heard()
        run(request(folder), progress=heard)
        assert list(heard.tasks) == [
            "crafts",
            "push linf 0.1 on steady member-1",
            "other linf 0.1 on steady member-1",
            "challenging the attacks",
        ]

    def test_what_failed_is_in_the_record(self, folder: Path) -> None:
        record, _ = run(request(folder, defenses=("Steady", "Untrainable", "Brittle"), attacks=("Push", "Crashing")))
        assert not record.complete
        assert {(cell.defense, cell.attack): cell.status for cell in record.cells} == {
            ("steady", "push"): "ok",
            ("steady", "crashing"): "error",
            ("brittle", "push"): "error",
            ("brittle", "crashing"): "error",
            ("untrainable", "push"): "error",
            ("untrainable", "crashing"): "error",
        }
        assert load_run(folder) == record

    def test_a_defence_that_fails_after_the_attacks_costs_no_other_its_number(self, folder: Path) -> None:
        record, _ = run(request(folder, defenses=("Steady", "Sulking"), attacks=("Push",)))
        flags = {name: [flag.name for flag in each.flags] for name, each in record.manifest.defenses.items()}
        assert flags["steady"] == []
        assert NOT_ADMITTED in flags["sulking"]

    @pytest.mark.parametrize(
        ("keep", "kept", "cached"), [("all", [8, 8], 2), ("broken", [4, 4], 0), ("none", [], 0)], ids=str
    )
    def test_evidence_is_kept_as_asked(self, folder: Path, keep: str, kept: list[int], cached: int) -> None:
        record, _ = run(request(folder, evidence=keep))
        store = evidence_store(folder)
        found = [store.get(key) for key in record.evidence]
        assert [len(each["adversarial"]) for each in found if each is not None] == kept
        assert sum(crafts_store().path(key).is_file() for key in record.evidence) == cached

    def test_without_a_folder_it_is_named_after_the_defences(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        record, where = run(request(None, defenses=("Steady", "Untrainable")))
        assert where == Path("runs") / f"steady+untrainable-toy-{record.manifest.plan_digest[:8]}"
        assert load_run(where) == record


class TestFoundAgain:
    def test_a_finished_run_is_found_whole(self, folder: Path) -> None:
        first, _ = run(request(folder))
        heard = Heard()
        assert run(request(folder), progress=heard) == (first, folder)
        assert crafted(heard) == []

    def test_crafts_are_found_by_a_run_of_another_request(self, tmp_path: Path) -> None:
        first, _ = run(request(tmp_path / "first"))
        second, _ = run(request(tmp_path / "second", defenses=("Steady", "Pair")))
        times = {cell.key: cell.wall_time_s for cell in second.cells}
        assert all(times[cell.key] == cell.wall_time_s for cell in first.cells)

    def test_a_run_of_another_request_is_not_written_over(self, folder: Path) -> None:
        first, _ = run(request(folder))
        with pytest.raises(ConfigError, match=r"holds another run .*; choose another out, or move that one away"):
            run(request(folder, attacks=("Push",)))
        assert load_run(folder) == first

    def changed(self, folder: Path, **changes: Any) -> None:
        record = load_run(folder)
        manifest = record.manifest.model_copy(update=changes.pop("manifest", {}))
        write_json(
            folder / "results.json",
            record.model_copy(update={"manifest": manifest, **changes}).model_dump(mode="json"),
        )

    @pytest.mark.parametrize("changes", [{"manifest": {"plan_digest": "of other code"}}, {"complete": False}])
    def test_a_run_of_other_code_or_an_incomplete_one_is_made_again(
        self, folder: Path, changes: dict[str, Any]
    ) -> None:
        first, _ = run(request(folder))
        self.changed(folder, **changes)
        heard = Heard()
        again, _ = run(request(folder), progress=heard)
        assert crafted(heard)
        assert (again.cells, again.complete) == (first.cells, True)
        assert load_run(folder) == again

    def test_a_run_that_was_found_wrong_is_made_again(self, folder: Path) -> None:
        run(request(folder))
        write_file(folder / "verification.json", "{")
        heard = Heard()
        run(request(folder), progress=heard)
        assert crafted(heard)
        assert not (folder / "verification.json").exists()

    @pytest.mark.parametrize(("keep", "made_again"), [("all", True), ("broken", False)])
    def test_a_run_whose_evidence_is_gone_is_made_again_where_all_is_kept(
        self, folder: Path, keep: str, made_again: bool
    ) -> None:
        record, _ = run(request(folder, evidence=keep))
        evidence_store(folder).path(next(iter(record.evidence))).unlink()
        heard = Heard()
        run(request(folder, evidence=keep), progress=heard)
        assert bool(crafted(heard)) is made_again

    def test_pictures_of_other_numbers_are_forgotten(self, folder: Path) -> None:
        write_file(folder / "plots" / "curves.png", b"")
        write_file(folder / "plots" / "notes.txt", "mine")
        run(request(folder))
        assert [path.name for path in (folder / "plots").iterdir()] == ["notes.txt"]
        assert "Pictures" not in (folder / "leaderboard.md").read_text()


class TestInterrupted:
    @pytest.fixture
    def interrupted(self, folder: Path) -> RunRecord:
        with pytest.raises(KeyboardInterrupt):
            run(request(folder, attacks=("Push", "Interrupted", "Other")))
        return load_run(folder)

    def test_what_was_scored_is_recorded_and_the_rest_was_not_run(self, interrupted: RunRecord) -> None:
        assert not interrupted.complete
        assert {cell.attack: cell.status for cell in interrupted.cells} == {
            "push": "ok",
            "interrupted": "not_run",
            "other": "not_run",
        }
        assert [flag.name for flag in interrupted.manifest.defenses["steady"].flags] == [INTERRUPTED]
        assert len(interrupted.evidence) == 1

    def test_its_crafts_are_found_again(self, interrupted: RunRecord, tmp_path: Path) -> None:
        again, _ = run(request(tmp_path / "again"))
        (scored,) = [cell for cell in interrupted.cells if cell.status == "ok"]
        assert next(cell for cell in again.cells if cell.attack == "push") == scored


class TestRunWhole:
    def test_a_complete_run_is_returned(self, folder: Path) -> None:
        assert run_whole(request(folder), progress=SilentProgress()) == load_run(folder)

    def test_what_failed_is_raised_and_what_was_computed_is_kept(self, folder: Path) -> None:
        with pytest.raises(AttackError, match=r"the run in .* failed: attack 'crashing' on steady member-1 failed"):
            run_whole(request(folder, attacks=("Push", "Crashing")), progress=SilentProgress())
        assert len(load_run(folder).evidence) == 1
