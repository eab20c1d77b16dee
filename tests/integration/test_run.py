from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dkd_bench.attacks import Attack
from dkd_bench.errors import ConfigError
from dkd_bench.records import Outcome
from dkd_bench.training import _fit
from tiny_task import recalled


def cells_of(record, **wanted):
    return [cell for cell in record.cells if all(getattr(cell, name) == value for name, value in wanted.items())]


def outcomes_of(record):
    return {
        (cell.defense, cell.decision, cell.threat_model, cell.attack, cell.norm, cell.eps): cell.outcomes
        for cell in record.cells
    }


@pytest.fixture
def no_work(monkeypatch):
    """A context in which nobody may craft or train."""

    @contextmanager
    def guard():
        def refuse(*_args, **_kwargs):
            raise AssertionError("computed again what was computed before")

        with monkeypatch.context() as patch:
            patch.setattr(Attack, "run", refuse)
            patch.setattr(_fit, "_optimise", refuse)
            yield

    return guard


def test_record_has_every_cell_with_its_number_interval_and_evidence(bench, tmp_path):
    record = bench(attacks=("fgsm", "deepfool"), eps=(0.05, 0.1))
    assert record.complete
    # Four threat models, two rules; FGSM at two budgets, DeepFool without one.
    assert len(record.cells) == 4 * 2 * 3
    for cell in record.cells:
        assert cell.status == "ok"
        assert cell.n == len(cell.outcomes) == 40
        assert cell.ci95[0] <= cell.robust_accuracy <= cell.ci95[1]
        assert cell.robust_accuracy <= cell.clean_accuracy
        assert cell.robust_accuracy == sum(outcome is Outcome.ROBUST for outcome in cell.outcomes) / 40
        assert all(key in record.evidence for key in cell.evidence)
        assert all((tmp_path / "run" / "evidence" / f"{key}.safetensors").is_file() for key in cell.evidence)
    assert len(cells_of(record, threat_model="standalone")[0].candidates) == 3
    assert {candidate.name for candidate in cells_of(record, threat_model="joint")[0].candidates} == {
        "log-mean-probability",
        "mean-logit",
        "sum-of-margins",
    }
    written = json.loads((tmp_path / "run" / "results.json").read_text(), parse_constant=pytest.fail)
    assert written["schema_version"] == 1
    assert written["manifest"]["dataset"]["n"] == 40
    assert "Linf, eps = 0.1" in (tmp_path / "run" / "leaderboard.md").read_text()
    assert json.loads((tmp_path / "run" / "leaderboard.json").read_text())


def test_one_craft_serves_every_cell_that_can_use_it(bench):
    record = bench(defenses=("dkd", "none"), attacks=("fgsm",))
    by_rule = {cell.decision: cell.evidence for cell in cells_of(record, defense="dkd", threat_model="joint")}
    assert by_rule["majority"] == by_rule["boosted"]
    standalone, aggregated = (
        cells_of(record, defense="dkd", decision="majority", threat_model=name)[0].evidence
        for name in ("standalone", "aggregated")
    )
    assert standalone == aggregated
    (black_box,) = {cell.evidence for cell in cells_of(record, threat_model="black-box")}
    assert len(black_box) == 1
    # none: one network is its own member and its own whole. dkd: three members, three surrogates. One reference.
    assert len(record.evidence) == 1 + 1 + 6


def test_fixed_attack_within_reach_is_stronger_with_sight_of_the_whole(bench):
    record = bench(attacks=("pgd",), eps=(0.2,))
    accuracy = {cell.threat_model: cell.robust_accuracy for cell in cells_of(record, decision="majority")}
    assert accuracy["joint"] < accuracy["black-box"]


def test_second_identical_run_computes_nothing(bench, no_work):
    first = bench()
    with no_work():
        second = bench()
    assert second == first


def test_other_decision_rule_is_scored_without_crafting_or_training(bench, no_work):
    two = bench("two")
    with no_work():
        three = bench("three", settings=("top_n=3",))
    assert set(three.evidence) == set(two.evidence)
    assert [c.outcomes for c in cells_of(three, decision="majority")] == [
        c.outcomes for c in cells_of(two, decision="majority")
    ]


def test_results_do_not_depend_on_batch_size(bench, cache):
    whole = bench("whole", attacks=("fgsm", "pgd", "deepfool", "cw"), settings=("cw.steps=20",))
    shutil.rmtree(cache / "crafts")
    pieces = bench("pieces", attacks=("fgsm", "pgd", "deepfool", "cw"), settings=("cw.steps=20",), batch_size=7)
    assert set(pieces.evidence) == set(whole.evidence)
    assert outcomes_of(pieces) == outcomes_of(whole)


def test_results_do_not_depend_on_other_cells_or_their_order(bench, cache):
    together = outcomes_of(bench("together", defenses=("none", "dkd"), attacks=("fgsm", "pgd")))
    shutil.rmtree(cache / "crafts")
    alone = outcomes_of(bench("alone", defenses=("dkd",), attacks=("pgd",), threat_models=("joint", "standalone")))
    assert alone == {key: together[key] for key in alone}


def test_results_do_not_depend_on_random_numbers_drawn_elsewhere(bench, cache):
    first = outcomes_of(bench("first", attacks=("pgd",)))
    shutil.rmtree(cache / "crafts")
    torch.rand(17)
    assert outcomes_of(bench("second", attacks=("pgd",))) == first


def test_several_chunks_make_the_same_selection_and_one_file_each(bench, monkeypatch):
    monkeypatch.setattr("dkd_bench.data._images.CHUNK_SIZE", 16)
    record = bench(attacks=("fgsm",), threat_models=("black-box",))
    (cell, _) = record.cells
    assert [record.evidence[key].n for key in cell.evidence] == [16, 16, 8]
    assert len(cell.outcomes) == 40


def test_smaller_selection_is_found_again_in_a_larger_one(bench, monkeypatch):
    monkeypatch.setattr("dkd_bench.data._images.CHUNK_SIZE", 20)
    small = bench("small", attacks=("fgsm",), n_examples=20)
    large = bench("large", attacks=("fgsm",), n_examples=40)
    assert set(small.evidence) < set(large.evidence)


def test_another_run_is_not_overwritten(bench):
    bench(attacks=("fgsm",))
    with pytest.raises(ConfigError, match=r"holds another run .* choose another out"):
        bench(attacks=("pgd",))


def test_the_same_request_under_other_code_is_made_again_in_its_place(bench, monkeypatch):
    first = bench(attacks=("fgsm",))
    monkeypatch.setattr("dkd_bench.steps.prepare.package_digest", lambda: "of other code")
    again = bench(attacks=("fgsm",))
    assert again.manifest.plan_digest != first.manifest.plan_digest
    assert again.cells == first.cells


@pytest.mark.parametrize("keep", ["broken", "none"])
def test_evidence_is_kept_as_asked(bench, tmp_path, cache, keep):
    record = bench(attacks=("fgsm",), evidence=keep)
    kept = list((tmp_path / "run").glob("evidence/*"))
    assert bool(kept) == (keep == "broken")
    assert len(kept) <= len(record.evidence)
    assert not list((cache / "crafts").glob("*.safetensors"))


def test_the_readmes_example_for_python_runs(cache, tmp_path, monkeypatch, capsys):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (example,) = (
        block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "import RunRequest" in block
    )
    monkeypatch.chdir(tmp_path)
    with recalled("none"):
        exec(compile(example, "README.md", "exec"), {})
    fgsm, pgd = capsys.readouterr().out.splitlines()
    assert fgsm.startswith("none deployed, joint, fgsm linf 0.1 ")
    assert pgd.startswith("none deployed, joint, pgd linf 0.1 ")
