"""What becomes of an image, of a defence that answers what is painted on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dkd_bench.data import Chunk, ImageSpec
from dkd_bench.defense import ABSTAIN, NO_MAJORITY, Defense, DefenseMeta
from dkd_bench.records import WORST_FIRST, Outcome
from dkd_bench.verify._answers import (
    FRESH_DRAWS,
    OUTCOMES,
    Rescored,
    answers_of,
    candidate_answers,
    joined,
    outcome_codes,
)
from dkd_bench.verify._intervals import wilson


class Threshold(Defense):
    """Answers 1 above 128/255, else 0."""

    meta: ClassVar[DefenseMeta] = DefenseMeta(name="threshold", title="Threshold")

    def __init__(self) -> None:
        super().__init__(ImageSpec(channels=1, height=1, width=1, n_classes=2))

    @property
    def members(self) -> Sequence[nn.Module]:
        return []

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return (x.flatten() > 128.2 / 255).long()

    def decide(self, x: Tensor, *, generator: torch.Generator) -> Mapping[str, Tensor]:
        labels = self.predict(x, generator=generator)
        return {"plain": labels, "inverted": 1 - labels}


class Coin(Threshold):
    meta: ClassVar[DefenseMeta] = DefenseMeta(name="coin", title="Coin", randomized=True)

    def decide(self, x: Tensor, *, generator: torch.Generator) -> Mapping[str, Tensor]:
        return {"seed": torch.full((len(x),), generator.initial_seed())}


def painted(*levels: float) -> Tensor:
    return (torch.tensor(levels) / 255).view(-1, 1, 1, 1)


def test_the_words_are_those_of_the_record_the_worst_first():
    assert OUTCOMES == WORST_FIRST


@pytest.mark.parametrize(
    ("answer", "clean", "abstains", "word"),
    [
        (3, 3, False, Outcome.ROBUST),
        (4, 3, False, Outcome.FOOLED),
        (NO_MAJORITY, 3, False, Outcome.FAILED_MAJORITY),
        (NO_MAJORITY, 3, True, Outcome.FAILED_MAJORITY),
        (ABSTAIN, 3, True, Outcome.ABSTAINED),
        (ABSTAIN, 3, False, Outcome.FOOLED),
        (3, 4, False, Outcome.CLEAN_ERROR),
        (ABSTAIN, ABSTAIN, True, Outcome.CLEAN_ERROR),
    ],
)
def test_what_becomes_of_an_image(answer, clean, abstains, word):
    outcomes = outcome_codes(np.array([[answer]]), np.array([[clean]]), np.array([3]), abstains=abstains)
    assert OUTCOMES[outcomes[0, 0]] is word


def test_a_deterministic_defence_is_asked_once_a_randomised_one_by_fresh_seeds():
    assert {rule: each.shape for rule, each in answers_of(Threshold(), painted(1, 2), seed=3).items()} == {
        "plain": (1, 2),
        "inverted": (1, 2),
    }
    drawn = answers_of(Coin(), painted(1), seed=3)["seed"][:, 0]
    assert drawn.tolist() == [3 + FRESH_DRAWS + draw for draw in range(10)]


def rescored(*candidates: Tensor, truth: Sequence[int], clean: Tensor) -> Rescored:
    defense, chunk = Threshold(), Chunk(number=0, images=clean, labels=torch.tensor(truth))
    told = answers_of(defense, clean, seed=0)
    return Rescored(
        candidates={
            f"candidate {number}": candidate_answers(defense, chunk, told, images, norm="linf", seed=0)["plain"]
            for number, images in enumerate(candidates)
        },
        covered=np.ones(len(clean), dtype=bool),
    )


def test_of_several_candidates_the_worst_counts_and_rounding_is_scored_apart():
    clean, truth = painted(100, 100, 200, 200), (0, 0, 1, 0)
    # The first candidate is a hair over the threshold, and 8 bits take the hair away.
    now = rescored(painted(128.4, 100, 200, 200), painted(100, 100, 120, 100), truth=truth, clean=clean)
    assert [OUTCOMES[word].value for word in now.worst] == ["fooled", "robust", "fooled", "clean_error"]
    assert now.survival.tolist() == [0, 1, 0, 0]
    assert now.rounded_survival.tolist() == [1, 1, 0, 0]
    assert now.norms_of_lost * 255 == pytest.approx([28.4, np.inf, 80, 0], abs=1e-4)


def test_chunks_are_joined_in_order():
    first = rescored(painted(200, 100), truth=(0, 0), clean=painted(100, 100))
    second = rescored(painted(200), truth=(0,), clean=painted(100))
    assert joined([first, second]).worst.tolist() == [1, 4, 1]
    assert joined([first, second]).n == 3


def test_intervals_are_wilsons():
    # Newcombe 1998, table I: 81 of 263 and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1.5, 20) == (wilson(1, 20)[0], wilson(2, 20)[1])
