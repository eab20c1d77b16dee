"""Outcomes and cell numbers of a defence whose every answer is scripted.

The images carry their script: pixel 0 of an image is its answer under attack, so a candidate image says what
the defence will make of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from dkd_bench.budget import Budget
from dkd_bench.data import Chunk, ImageSpec
from dkd_bench.defense import ABSTAIN, NO_MAJORITY, Defense, DefenseMeta
from dkd_bench.errors import EvidenceError
from dkd_bench.records import Outcome, worst_outcome
from dkd_bench.records.statistics import interval, mean_interval, wilson_interval
from dkd_bench.steps.scoring import SCORING_DRAWS, CellScore, TrialScorer, clean_accuracy, decided, judge
from dkd_bench.threats import Roles, ThreatModel, ThreatModelMeta

FREE = Budget(norm="linf")
N_CLASSES = 10
LEVELS = 100
"""An answer a is painted as the gray level (a + 2) / LEVELS, so that rejects have one too."""


def painted(answers: Sequence[int]) -> Tensor:
    """Return one image of four pixels for each answer."""
    images = torch.full((len(answers), 1, 2, 2), 0.5)
    images[:, 0, 0, 0] = (torch.tensor(answers) + 2) / LEVELS
    return images


def read(images: Tensor) -> Tensor:
    return (images[:, 0, 0, 0] * LEVELS).round().long() - 2


class Scripted(Defense):
    """Answers what is painted on the image; under the second rule, rejects and failed votes become class 0."""

    meta: ClassVar[DefenseMeta] = DefenseMeta(name="scripted", title="Scripted")

    def __init__(self) -> None:
        super().__init__(ImageSpec(channels=1, height=2, width=2, n_classes=N_CLASSES))

    @property
    def members(self) -> Sequence[nn.Module]:
        return []

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.decide(x, generator=generator)["strict"]

    def decide(self, x: Tensor, *, generator: torch.Generator) -> Mapping[str, Tensor]:
        return {"strict": read(x), "lenient": read(x).clamp_min(0)}


class Abstaining(Scripted):
    meta = DefenseMeta(name="abstaining", title="Abstaining", abstains=True)


class Wavering(Scripted):
    """Draw s answers rightly on an image painted p if s < p, else class 9; draws have seeds 100, 101, ..."""

    meta = DefenseMeta(name="wavering", title="Wavering", randomized=True)

    def decide(self, x: Tensor, *, generator: torch.Generator) -> Mapping[str, Tensor]:
        draw = generator.initial_seed() - 100
        return {"deployed": torch.where(draw < read(x), 0, 9)}


class Offers(ThreatModel):
    """Whatever was crafted is a candidate."""

    meta = ThreatModelMeta(name="offers", title="offers", sees="part", legend="whatever was crafted.")

    def targets(self, roles: Roles) -> Sequence[str]:
        return roles.members

    def candidates(self, clean: Tensor, crafted: Mapping[str, Tensor], budget: Budget) -> Iterator[tuple[str, Tensor]]:
        yield from crafted.items()


def score(
    truth: Sequence[int],
    clean: Sequence[int],
    candidates: Mapping[str, Sequence[int]],
    *,
    defense: Defense | None = None,
    rule: str = "strict",
    chunk_size: int = 100,
) -> CellScore:
    """Score scripted answers, in as many chunks as it takes."""
    defense = defense or Scripted()
    scorer = TrialScorer(defense, Offers(), FREE, seed=100)
    for number, start in enumerate(range(0, len(truth), chunk_size)):
        rows = slice(start, start + chunk_size)
        chunk = Chunk(number=number, images=painted(clean[rows]), labels=torch.tensor(truth[rows]))
        crafted = {name: painted(answers[rows]) for name, answers in candidates.items()}
        scorer.add(chunk, decided(defense, chunk.images, seed=100), crafted)
    return scorer.scores()[rule]


R, F, M, A, C = Outcome.ROBUST, Outcome.FOOLED, Outcome.FAILED_MAJORITY, Outcome.ABSTAINED, Outcome.CLEAN_ERROR


@pytest.mark.parametrize(
    ("answer", "clean", "declared", "undeclared"),
    [
        pytest.param(3, 3, R, R, id="right both times"),
        pytest.param(4, 3, F, F, id="another label"),
        pytest.param(NO_MAJORITY, 3, M, M, id="failed majority"),
        pytest.param(ABSTAIN, 3, A, F, id="reject"),
        pytest.param(3, 4, C, C, id="repaired by the attack"),
        pytest.param(4, 4, C, C, id="wrong both times"),
        pytest.param(3, NO_MAJORITY, C, C, id="no majority when clean"),
        pytest.param(ABSTAIN, ABSTAIN, C, C, id="rejected when clean"),
        pytest.param(3, ABSTAIN, C, C, id="rejected when clean only"),
    ],
)
def test_judge(answer: int, clean: int, declared: Outcome, undeclared: Outcome) -> None:
    arguments = torch.tensor([[answer]]), torch.tensor([[clean]]), torch.tensor([3])
    assert judge(*arguments, abstains=True) == [[declared]]
    assert judge(*arguments, abstains=False) == [[undeclared]]


def test_judge_pairs_the_draws_of_clean_and_candidate() -> None:
    labels, clean = torch.tensor([[3, 1], [4, 1]]), torch.tensor([[3, 2], [3, 1]])
    assert judge(labels, clean, torch.tensor([3, 1]), abstains=False) == [[R, C], [F, R]]


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [([R, A], A), ([A, M], M), ([M, F], F), ([F, C], C), ([R, R], R), ([R, A, M, F, R], F), ([R], R)],
)
def test_the_worst_of_several_outcomes(outcomes: list[Outcome], expected: Outcome) -> None:
    assert worst_outcome(outcomes) is expected
    assert worst_outcome(outcomes[::-1]) is expected


def test_accuracy_is_over_all_images() -> None:
    """Ten images: one wrong when clean, three fooled, six right; nothing is left out of the ten."""
    found = score([5] * 10, [5] * 9 + [6], {"craft": [5] * 6 + [7] * 3 + [6]})
    assert found.robust_accuracy == 0.6
    assert found.ci95 == wilson_interval(6, 10)
    assert found.images.outcomes == (R,) * 6 + (F,) * 3 + (C,)
    assert found.failed_majorities == found.abstained == 0
    assert found.images.survival is None


def test_an_attack_that_repairs_an_image_wins_nothing() -> None:
    found = score([5, 5], [6, 5], {"craft": [5, 5]})
    assert found.robust_accuracy == 0.5
    assert found.images.outcomes == (C, R)


def test_failed_majorities_are_lost_and_counted() -> None:
    found = score([5] * 4, [5] * 4, {"craft": [5, NO_MAJORITY, NO_MAJORITY, 7]})
    assert found.robust_accuracy == 0.25
    assert found.failed_majorities == 2
    assert found.images.outcomes == (R, M, M, F)


def test_rules_are_scored_apart() -> None:
    arguments = [0] * 4, [0] * 4, {"craft": [0, NO_MAJORITY, ABSTAIN, 7]}
    assert score(*arguments, rule="strict").robust_accuracy == 0.25
    assert score(*arguments, rule="lenient").robust_accuracy == 0.75
    assert score(*arguments, rule="lenient").failed_majorities == 0


def test_declared_rejects_are_not_fooled_but_counted() -> None:
    arguments = [5] * 4, [5] * 3 + [ABSTAIN], {"craft": [ABSTAIN, ABSTAIN, 7, ABSTAIN]}
    declared = score(*arguments, defense=Abstaining())
    assert declared.robust_accuracy == 0.5
    assert declared.images.outcomes == (A, A, F, C)
    assert declared.abstained == 3
    undeclared = score(*arguments)
    assert undeclared.robust_accuracy == 0.0
    assert undeclared.images.outcomes == (F, F, F, C)


def test_candidates_are_merged_per_image_by_the_worst() -> None:
    found = score(
        [5] * 6,
        [5] * 5 + [4],
        {
            "member-1": [5, 7, 5, NO_MAJORITY, NO_MAJORITY, 5],
            "member-2": [5, 5, 8, NO_MAJORITY, 7, 5],
        },
    )
    assert found.images.outcomes == (R, F, F, M, F, C)
    assert found.robust_accuracy == pytest.approx(1 / 6)
    assert found.failed_majorities == 2
    assert [each.name for each in found.candidates] == ["member-1", "member-2"]
    assert [each.robust_accuracy for each in found.candidates] == pytest.approx([2 / 6, 2 / 6])
    assert [each.failed_majorities for each in found.candidates] == [2, 1]
    assert found.candidates[0].ci95 == wilson_interval(2, 6)


def test_the_mean_is_over_candidates() -> None:
    found = score([5] * 4, [5] * 4, {"member-1": [5, 5, 5, 7], "member-2": [7, 5, 7, 7], "member-3": [5, 5, 5, 5]})
    assert found.mean_robust_accuracy == pytest.approx((0.75 + 0.25 + 1.0) / 3)
    assert found.robust_accuracy == 0.25


def test_a_reject_beside_a_robust_answer_counts_once() -> None:
    found = score([5], [5], {"a": [ABSTAIN], "b": [ABSTAIN], "c": [5]}, defense=Abstaining())
    assert found.images.outcomes == (A,)
    assert found.abstained == 1
    assert found.robust_accuracy == 1.0


def test_chunks_change_nothing() -> None:
    arguments = [5] * 7, [5] * 6 + [1], {"a": [5, 7, 5, NO_MAJORITY, 5, 8, 5], "b": [5, 5, 5, 5, 9, 5, 5]}
    assert score(*arguments, chunk_size=3) == score(*arguments)


def test_fooling_norms() -> None:
    """Images fooled from label 10 at distances 0.01 to 0.04; a failed majority is one of them."""
    found = score([10] * 6, [10] * 5 + [3], {"craft": [11, 12, 13, 14, 10, 50]})
    assert found.fooling_norms is not None
    assert found.fooling_norms.n == 4
    assert found.fooling_norms.q25 == pytest.approx(0.0175, abs=1e-6)
    assert found.fooling_norms.median == pytest.approx(0.025, abs=1e-6)
    assert found.fooling_norms.q75 == pytest.approx(0.0325, abs=1e-6)


def test_fooling_norms_take_the_nearest_candidate() -> None:
    found = score([10], [10], {"far": [30], "near": [12], "nearer but right": [10]})
    assert found.fooling_norms is not None
    assert found.fooling_norms.n == 1
    assert found.fooling_norms.median == pytest.approx(0.02, abs=1e-6)


def test_fooling_distances_are_one_for_each_image() -> None:
    """From label 10: fooled at 0.03 and 0.01, never fooled, wrong when clean, no majority at 0.12."""
    found = score([10] * 4, [10, 10, 3, 10], {"far": [13, 10, 12, 10], "near": [11, 10, 10, NO_MAJORITY]})
    assert found.fooling_distances == pytest.approx((0.01, None, 0.0, 0.12), abs=1e-6)
    assert found.fooling_norms is not None
    assert found.fooling_norms.n == 2


def test_fooling_norms_count_failed_majorities_and_no_rejects() -> None:
    found = score([2] * 2, [2] * 2, {"craft": [NO_MAJORITY, ABSTAIN]}, defense=Abstaining())
    assert found.fooling_norms is not None
    assert found.fooling_norms.n == 1
    assert found.fooling_norms.median == pytest.approx(0.04, abs=1e-6)


def test_nobody_fooled_has_no_norms() -> None:
    assert score([5], [5], {"craft": [5]}).fooling_norms is None


def test_survival_of_a_randomised_defence() -> None:
    """Truth is class 0; painted p means right in the first p of the draws. Survival is what both leave."""
    assert SCORING_DRAWS == 10
    found = score(
        [0] * 4,
        [10, 10, 10, 5],
        {"a": [10, 3, 8, 10], "b": [10, 6, 8, 10]},
        defense=Wavering(),
        rule="deployed",
    )
    assert found.images.survival == pytest.approx((1.0, 0.3, 0.8, 0.5))
    assert found.robust_accuracy == pytest.approx(2.6 / 4)
    assert found.ci95 == mean_interval([1.0, 0.3, 0.8, 0.5]).ci95
    assert [each.robust_accuracy for each in found.candidates] == pytest.approx([(1 + 0.3 + 0.8 + 0.5) / 4, 2.9 / 4])
    assert found.images.outcomes == (R, F, R, C), "most frequent draw of each, the worse where they are even"


def test_survival_is_the_worst_candidate_of_each_image() -> None:
    found = score([0] * 2, [10] * 2, {"a": [2, 9], "b": [7, 4]}, defense=Wavering(), rule="deployed")
    assert found.images.survival == pytest.approx((0.2, 0.4))


def test_decided_draws_once_or_often() -> None:
    assert decided(Scripted(), painted([3, 4]), seed=0)["strict"].tolist() == [[3, 4]]
    wavering = decided(Wavering(), painted([1, 9]), seed=100)["deployed"]
    assert wavering.shape == (SCORING_DRAWS, 2)
    assert (wavering == 0).sum(dim=0).tolist() == [1, 9]


def test_clean_accuracy_is_over_images_and_draws() -> None:
    assert clean_accuracy(torch.tensor([[1, 2, 3, 4]]), torch.tensor([1, 2, 3, 0])) == interval(3, 4).value
    assert clean_accuracy(torch.tensor([[1, 2], [1, 0]]), torch.tensor([1, 2])) == 0.75


def test_a_candidate_outside_its_budget_is_refused() -> None:
    scorer = TrialScorer(Scripted(), Offers(), Budget(norm="linf", eps=0.05), seed=0)
    chunk = Chunk(number=4, images=painted([5]), labels=torch.tensor([5]))
    clean = decided(Scripted(), chunk.images, seed=0)
    with pytest.raises(EvidenceError, match=r"^offers candidate 'craft', chunk 4: image 0 must be within linf 0\.05"):
        scorer.add(chunk, clean, {"craft": painted([50])})
