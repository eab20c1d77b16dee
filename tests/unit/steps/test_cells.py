"""Cells: one for each budget and decision rule, with numbers or with the reason why there are none."""

from __future__ import annotations

import pytest
import torch

from dkd_bench.budget import Budget
from dkd_bench.records import CellKey, FlagRecord, ImageOutcomes, Outcome
from dkd_bench.records.statistics import interval
from dkd_bench.steps.cells import UNDECIDED, CleanScore, Cost, empty_cells, scored_cell, trials_without_crafts
from dkd_bench.steps.crafter import Evidence
from dkd_bench.steps.plan import Trial
from dkd_bench.steps.scoring import CellScore

NEAR, FAR = Budget(norm="linf", eps=0.1), Budget(norm="linf", eps=0.2)
TRIAL = Trial(defense="dkd", threat_model="joint", attack="pgd", budgets=(NEAR, FAR), crafts={})
CLEAN = CleanScore(dataset="digits", n=4, accuracy={"majority": interval(3, 4), "boosted": interval(4, 4)})
NEVER = CleanScore(dataset="digits", n=4, accuracy={})


def evidence(seconds: float, passes: int) -> Evidence:
    return Evidence(
        images=torch.zeros(1, 1, 2, 2),
        sha256="",
        broken=0,
        forward_passes=passes,
        backward_passes=0,
        wall_time_s=seconds,
        fresh=True,
    )


def test_cost_is_the_sum_and_keys_are_target_by_target() -> None:
    cost = Cost()
    for target, key, seconds in (("a", "a0", 1.0), ("b", "b0", 2.0), ("a", "a1", 4.0), ("b", "b1", 8.0)):
        cost.add(target, key, evidence(seconds, 10))
    assert (cost.wall_time_s, cost.forward_passes) == (15.0, 40)
    assert cost.keys == {"a": ["a0", "a1"], "b": ["b0", "b1"]}


def test_a_scored_cell_says_all_that_was_found() -> None:
    score = CellScore(
        robust_accuracy=0.5,
        mean_robust_accuracy=0.75,
        ci95=(0.25, 0.75),
        failed_majorities=1,
        abstained=2,
        fooling_norms=None,
        fooling_distances=(0.5, None),
        images=ImageOutcomes(outcomes=(Outcome.ROBUST, Outcome.FOOLED), survival=(0.75, 0.25)),
        candidates=(),
        detectors=(),
    )
    cost = Cost(wall_time_s=3.0, forward_passes=7, keys={"a": ["a0", "a1"], "b": ["b0"]})
    cell = scored_cell(TRIAL, FAR, "majority", score=score, clean=CLEAN, cost=cost)
    assert cell.key == CellKey(
        defense="dkd",
        decision="majority",
        dataset="digits",
        threat_model="joint",
        attack="pgd",
        norm="linf",
        eps=0.2,
    )
    assert (cell.status, cell.reason, cell.n, cell.clean_accuracy) == ("ok", None, 4, 0.75)
    assert cell.image_outcomes == score.images
    assert (cell.robust_accuracy, cell.mean_robust_accuracy, cell.ci95) == (0.5, 0.75, (0.25, 0.75))
    assert (cell.failed_majorities, cell.abstained, cell.fooling_distances) == (1, 2, (0.5, None))
    assert (cell.wall_time_s, cell.forward_passes, cell.evidence) == (3.0, 7, ("a0", "a1", "b0"))


@pytest.mark.parametrize("status", ["error", "not_run"])
def test_without_numbers_there_is_a_cell_for_each_budget_and_rule(status: str) -> None:
    flag = FlagRecord(name="attack error", detail="out of luck")
    cells = empty_cells(TRIAL, clean=CLEAN, status=status, reason="out of luck", flags=[flag])
    assert [(cell.eps, cell.decision, cell.clean_accuracy) for cell in cells] == [
        (0.1, "majority", 0.75),
        (0.1, "boosted", 1.0),
        (0.2, "majority", 0.75),
        (0.2, "boosted", 1.0),
    ]
    for cell in cells:
        assert (cell.status, cell.reason, cell.flags) == (status, "out of luck", (flag,))
        assert (cell.robust_accuracy, cell.ci95, cell.outcomes, cell.evidence) == (None, None, (), ())


def test_a_defence_that_never_answered_has_one_rule_and_no_accuracy() -> None:
    cells = empty_cells(TRIAL, clean=NEVER, status="error", reason="gone")
    assert [(cell.decision, cell.clean_accuracy) for cell in cells] == [(UNDECIDED, None)] * 2


def test_trials_of_a_defence_that_is_not_there() -> None:
    found = trials_without_crafts("gone", ["standalone", "joint"], [("pgd", (NEAR, FAR)), ("fgsm", (NEAR,))])
    assert [(trial.threat_model, trial.attack, len(trial.budgets)) for trial in found] == [
        ("standalone", "pgd", 2),
        ("standalone", "fgsm", 1),
        ("joint", "pgd", 2),
        ("joint", "fgsm", 1),
    ]
    assert {(trial.defense, len(trial.crafts)) for trial in found} == {("gone", 0)}
