"""The score step: clean answers, one cell for each rule and budget, and a reason where there is no number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dkd_bench.budget import Budget
from dkd_bench.defense import Defense
from dkd_bench.errors import AttackError
from dkd_bench.progress import SilentProgress
from dkd_bench.records import Outcome
from dkd_bench.records.flags import NOT_ADAPTIVE, UNVERIFIED
from dkd_bench.records.statistics import interval
from dkd_bench.steps.craft import craft
from dkd_bench.steps.crafter import Crafter
from dkd_bench.steps.prepare import Prepared
from dkd_bench.steps.score import Scored, ask_clean, score, score_clean
from dkd_bench.threats.joint import Joint
from dkd_bench.threats.standalone import Standalone
from toy_run import (
    LINF,
    Brittle,
    BrokenDetector,
    Cheating,
    Crashing,
    Hidden,
    Noisy,
    Pair,
    Push,
    Rejecting,
    Steady,
    Untrainable,
    toy_dataset,
    toy_prepared,
)

R, F, A, C = Outcome.ROBUST, Outcome.FOOLED, Outcome.ABSTAINED, Outcome.CLEAN_ERROR


def scored(prepared: Prepared, crafter: Crafter) -> list[Scored]:
    """Craft and score every trial of the plan."""
    answers = ask_clean(prepared)
    clean = score_clean(prepared, answers)
    return [score(each, prepared, crafter, answers, clean) for each in craft(prepared, crafter, SilentProgress())]


class TestClean:
    def test_accuracy_is_over_all_images(self) -> None:
        prepared = toy_prepared(Steady, dataset=toy_dataset(254, mislabelled=4))
        answers = ask_clean(prepared)
        assert [chunk["deployed"].shape for chunk in answers["steady"]] == [(1, 250), (1, 4)]
        clean = score_clean(prepared, answers)["steady"]
        assert (clean.dataset, clean.n, clean.accuracy) == ("toy", 254, {"deployed": interval(250, 254)})
        assert clean.rejected == {}

    def test_rejects_are_told_of_a_defence_that_abstains(self) -> None:
        prepared = toy_prepared(Rejecting)
        clean = score_clean(prepared, ask_clean(prepared))["rejecting"]
        assert (clean.accuracy, clean.rejected) == ({"deployed": interval(8, 8)}, {"deployed": interval(0, 8)})

    def test_a_random_defence_is_asked_ten_times(self) -> None:
        (chunk,) = ask_clean(toy_prepared(Noisy))["noisy"]
        assert chunk["deployed"].shape == (10, 8)

    def test_a_defence_that_never_answered_has_no_accuracy(self) -> None:
        prepared = toy_prepared(Steady, Untrainable)
        answers = ask_clean(prepared)
        assert list(answers) == ["steady"]
        clean = score_clean(prepared, answers)
        assert list(clean) == ["steady", "untrainable"]
        assert (clean["untrainable"].n, clean["untrainable"].accuracy) == (8, {})


class TestNumbers:
    def test_near_images_fall_and_far_ones_stand(self, crafter: Crafter) -> None:
        ((cell,),) = [each.cells for each in scored(toy_prepared(Steady), crafter)]
        assert (cell.status, cell.reason, cell.flags) == ("ok", None, ())
        assert (cell.outcomes, cell.survival) == ((F,) * 4 + (R,) * 4, None)
        assert (cell.robust_accuracy, cell.ci95, cell.clean_accuracy) == (0.5, interval(4, 8).ci95, 1.0)
        assert [(each.name, each.robust_accuracy) for each in cell.candidates] == [("whole", 0.5)]

    def test_what_is_wrong_when_clean_is_lost(self, crafter: Crafter) -> None:
        prepared = toy_prepared(Steady, dataset=toy_dataset(mislabelled=1))
        (cell,) = scored(prepared, crafter)[0].cells
        assert (cell.outcomes[-1], cell.clean_accuracy, cell.robust_accuracy) == (C, 7 / 8, 3 / 8)

    def test_rejects_stand(self, crafter: Crafter) -> None:
        (cell,) = scored(toy_prepared(Rejecting), crafter)[0].cells
        assert (cell.outcomes, cell.abstained, cell.robust_accuracy) == ((A,) * 8, 8, 1.0)
        (detector,) = cell.detectors
        assert (detector.false_positive_rate, detector.true_positive_rate, detector.auc) == (0, 1, 1)

    def test_a_random_defence_keeps_the_share_of_draws(self, crafter: Crafter) -> None:
        (cell,) = scored(toy_prepared(Noisy), crafter)[0].cells
        assert cell.survival is not None
        assert cell.robust_accuracy == pytest.approx(sum(cell.survival) / 8)

    def test_each_budget_has_its_cells(self, crafter: Crafter) -> None:
        budgets = (Budget(norm="linf", eps=0.04), LINF, Budget(norm="linf", eps=0.2))
        found = scored(toy_prepared(Steady, budgets=budgets), crafter)
        assert [(cell.eps, cell.robust_accuracy) for each in found for cell in each.cells] == [
            (0.04, 1.0),
            (0.1, 0.5),
            (0.2, 0.0),
        ]

    def test_each_target_is_a_candidate_and_its_cost_is_added(self, crafter: Crafter) -> None:
        prepared = toy_prepared(Pair, threat_models=(Standalone(),), dataset=toy_dataset(254))
        (found,) = scored(prepared, crafter)
        (cell,) = found.cells
        assert [each.name for each in cell.candidates] == ["member-1", "member-2"]
        first, second = (craft.keys for craft in prepared.plan.trials[0].crafts.values())
        assert cell.evidence == (*first, *second)
        assert cell.forward_passes == 2 * 254
        made = [crafter.find(key) for key in cell.evidence]
        assert cell.wall_time_s == pytest.approx(sum(each.wall_time_s for each in made if each is not None))

    def test_the_evidence_is_told_by_key(self, crafter: Crafter) -> None:
        (found,) = scored(toy_prepared(Steady, dataset=toy_dataset(254)), crafter)
        assert tuple(found.evidence) == found.cells[0].evidence
        told = [(each.target, each.attack, each.chunk, each.n, each.broken) for each in found.evidence.values()]
        assert told == [("steady member-1", "push", 0, 250, 126), ("steady member-1", "push", 1, 4, 2)]


class TestWithoutNumber:
    @pytest.mark.parametrize(
        ("defense", "words", "reason", "flags"),
        [
            pytest.param(Steady, {"attacks": (Crashing(),)}, "out of luck", [], id="attack fails"),
            pytest.param(Steady, {"attacks": (Cheating(),)}, "must be within linf 0.1", [UNVERIFIED], id="cheats"),
            pytest.param(Brittle, {}, "defence 'brittle' fails on images: RuntimeError", [], id="defence fails"),
            pytest.param(BrokenDetector, {}, "'broken-detector' fail on images: RuntimeError", [], id="detector fails"),
        ],
    )
    def test_what_fails_is_an_error_with_its_reason(
        self, crafter: Crafter, defense: type[Defense], words: dict[str, Any], reason: str, flags: list[str]
    ) -> None:
        (found,) = scored(toy_prepared(defense, **words), crafter)
        (cell,) = found.cells
        assert (cell.status, cell.robust_accuracy, cell.outcomes, cell.evidence) == ("error", None, (), ())
        assert reason in str(cell.reason)
        assert [flag.name for flag in cell.flags] == flags
        assert all(flag.detail == cell.reason for flag in cell.flags)
        assert (cell.clean_accuracy, found.evidence) == (1.0, {})

    def test_without_crafts_it_was_not_run_and_not_adaptive(self, crafter: Crafter) -> None:
        ((cell,),) = [each.cells for each in scored(toy_prepared(Hidden), crafter)]
        assert (cell.status, cell.reason) == ("not_run", "the defence offers no differentiable surrogate")
        assert [(flag.name, flag.detail) for flag in cell.flags] == [(NOT_ADAPTIVE, cell.reason)]
        assert (cell.clean_accuracy, cell.robust_accuracy) == (1.0, None)

    def test_a_failure_takes_no_other_trial_with_it(self, crafter: Crafter) -> None:
        found = scored(toy_prepared(Steady, Brittle, attacks=(Crashing(), Push())), crafter)
        told = {(cell.defense, cell.attack): cell.status for each in found for cell in each.cells}
        assert told == {
            ("steady", "crashing"): "error",
            ("steady", "push"): "ok",
            ("brittle", "crashing"): "error",
            ("brittle", "push"): "error",
        }

    def test_a_failed_craft_is_not_made_again(self, crafter: Crafter) -> None:
        prepared = toy_prepared(Steady, threat_models=(Joint(), Standalone()))
        answers = ask_clean(prepared)
        (first, *_) = craft(prepared, crafter, SilentProgress())
        prepared.attacks["push"].targets.clear()
        failed = replace(first, failure=AttackError("out of memory"))
        (cell,) = score(failed, prepared, crafter, answers, score_clean(prepared, answers)).cells
        assert (cell.status, cell.reason) == ("error", "out of memory")
        assert prepared.attacks["push"].targets == []
