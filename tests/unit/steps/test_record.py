"""Record: what was not reached, what failed, and every doubt at the number that it concerns."""

from __future__ import annotations

import pytest

from dkd_bench.doubts import Doubt, Doubts
from dkd_bench.progress import SilentProgress
from dkd_bench.records import FlagRecord, RunRecord, SeparationRecord
from dkd_bench.records.flags import NOISE, NOT_ADMITTED, RANDOM
from dkd_bench.steps.craft import craft
from dkd_bench.steps.crafter import Crafter
from dkd_bench.steps.prepare import Prepared
from dkd_bench.steps.record import NOT_REACHED, Findings, all_cells, record
from dkd_bench.steps.score import ask_clean, score, score_clean
from dkd_bench.threats.joint import Joint
from dkd_bench.threats.standalone import Standalone
from toy_run import Crashing, Hidden, Other, Pair, Push, Steady, Untrainable, toy_dataset, toy_prepared


def found_in(prepared: Prepared, crafter: Crafter, *, positions: set[int] | None = None) -> Findings:
    """Return what was found in the trials at ``positions`` of the plan, or in all."""
    answers = ask_clean(prepared)
    findings = Findings(clean=score_clean(prepared, answers))
    for each in craft(prepared, crafter, SilentProgress()):
        if positions is None or each.position in positions:
            findings.trials[each.position] = score(each, prepared, crafter, answers, findings.clean)
    return findings


def statuses(found: RunRecord) -> dict[tuple[str, str], str]:
    return {(cell.defense, cell.attack): cell.status for cell in found.cells}


def test_a_whole_run_is_complete(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, Pair, attacks=(Push(), Other()))
    findings = found_in(prepared, crafter)
    found = record(prepared, findings, Doubts())
    assert found.complete
    assert set(statuses(found).values()) == {"ok"}
    assert found.cells == findings.cells
    assert list(found.evidence) == [key for craft in prepared.plan.crafts for key in craft.keys]
    assert RunRecord.model_validate_json(found.model_dump_json()) == found


def test_what_was_found_is_in_the_order_of_the_plan_whatever_came_first(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, attacks=(Push(), Other()))
    findings = found_in(prepared, crafter)
    turned = Findings(clean=findings.clean, trials=dict(reversed(findings.trials.items())))
    assert turned.cells == findings.cells
    assert list(turned.evidence) == list(findings.evidence)


def test_what_was_not_reached_was_not_run(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, attacks=(Push(), Other()))
    found = record(prepared, found_in(prepared, crafter, positions={1}), Doubts())
    assert statuses(found) == {("steady", "push"): "not_run", ("steady", "other"): "ok"}
    assert found.cells[0].reason == NOT_REACHED
    assert not found.complete


@pytest.mark.parametrize(
    ("interrupted", "failed", "complete"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_interruptions_and_failed_challenges_leave_it_incomplete(
    crafter: Crafter, interrupted: bool, failed: bool, complete: bool
) -> None:
    prepared = toy_prepared(Steady)
    found = record(prepared, found_in(prepared, crafter), Doubts(failed=failed), interrupted=interrupted)
    assert found.complete is complete


def test_a_failed_attack_leaves_it_incomplete_and_a_missing_surrogate_does_not(crafter: Crafter) -> None:
    failing = toy_prepared(Steady, attacks=(Push(), Crashing()))
    hidden = toy_prepared(Hidden)
    assert not record(failing, found_in(failing, crafter), Doubts()).complete
    assert record(hidden, found_in(hidden, crafter), Doubts()).complete


def test_failed_defences_have_error_cells_with_their_flag(crafter: Crafter) -> None:
    prepared = toy_prepared(
        Steady, Untrainable, failures={"gone": "no such file"}, threat_models=(Standalone(), Joint())
    )
    findings = found_in(prepared, crafter)
    found = record(prepared, findings, Doubts())
    assert not found.complete
    assert list(found.manifest.defenses) == ["steady"]
    for name, reason in (("gone", "no such file"), ("untrainable", prepared.subjects.failures["untrainable"])):
        cells = [cell for cell in found.cells if cell.defense == name]
        assert [cell.threat_model for cell in cells] == ["standalone", "joint"]
        for cell in cells:
            assert (cell.status, cell.reason, cell.clean_accuracy) == ("error", reason, None)
            assert cell.flags == (FlagRecord(name=NOT_ADMITTED, detail=reason),)
    assert all_cells(prepared, findings) == found.cells


def test_where_every_defence_failed_there_are_error_cells_alone() -> None:
    prepared = toy_prepared(Untrainable)
    found = record(prepared, Findings(clean=score_clean(prepared, {})), Doubts())
    assert [(cell.defense, cell.status) for cell in found.cells] == [("untrainable", "error")]
    assert not found.complete


def test_doubts_land_on_their_cell_and_their_defence_only(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, Pair, attacks=(Push(), Other()))
    findings = found_in(prepared, crafter)
    concerned = next(cell for cell in findings.cells if (cell.defense, cell.attack) == ("pair", "other"))
    on_cell, on_defense = (FlagRecord(name=name, detail="seen") for name in (NOISE, RANDOM))
    doubts = Doubts(
        raised=(
            Doubt(flag=on_cell, source="challenges", defense="pair", cell=concerned.key),
            Doubt(flag=on_defense, source="run", defense="steady"),
        )
    )
    found = record(prepared, findings, doubts)
    assert {cell.key: cell.flags for cell in found.cells if cell.flags} == {concerned.key: (on_cell,)}
    assert {name: each.flags for name, each in found.manifest.defenses.items()} == {
        "steady": (on_defense,),
        "pair": (),
    }


def test_the_manifest_says_what_it_takes_to_make_the_run_again(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, dataset=toy_dataset(mislabelled=2), seed=4, training_seed=5)
    manifest = record(prepared, found_in(prepared, crafter), Doubts()).manifest
    assert (manifest.seed, manifest.training_seed, manifest.device) == (4, 5, "cpu")
    assert (manifest.dataset.name, manifest.dataset.n, manifest.dataset.n_test) == ("toy", 8, 8)
    assert manifest.dataset.indices == tuple(range(8))
    assert (manifest.plan_digest, manifest.request) == (prepared.plan_digest, prepared.request.as_json())
    steady, trained = manifest.defenses["steady"], prepared.subjects.defenses["steady"]
    assert (steady.weights_key, steady.weights_sha256) == (trained.key, trained.sha256)
    assert (steady.clean_accuracy["deployed"].value, steady.test_set_accuracy) == (0.75, {"deployed": 0.75})
    assert (steady.deployed, steady.access, steady.separation) == ("deployed", ("gradients",), None)


def test_the_separation_is_that_of_its_defence(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, Pair)
    findings = found_in(prepared, crafter)
    apart = SeparationRecord(layer="latent", n=8, dimension=2, margin=1.0, scaled_margin=0.5, reason=None)
    findings.separations = {"pair": apart}
    defenses = record(prepared, findings, Doubts()).manifest.defenses
    assert {name: each.separation for name, each in defenses.items()} == {"steady": None, "pair": apart}
