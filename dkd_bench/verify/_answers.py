"""Answers of a defence, and the outcome of each image that follows: counted here on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkd_bench.budget import Norm
from dkd_bench.data import Chunk
from dkd_bench.defense import ABSTAIN, NO_MAJORITY, Defense
from dkd_bench.records import Outcome
from dkd_bench.verify._images import distances, rounded_to_8_bits

Answers: TypeAlias = "NDArray[np.int64]"
"""Labels, shape ``(draws, N)``."""
OutcomeCodes: TypeAlias = "NDArray[np.int8]"
"""Positions in ``OUTCOMES``, shape ``(draws, N)``."""

_Number = TypeVar("_Number", bound="np.number[Any]")

DRAWS = 10
FRESH_DRAWS = 100_003
"""Offset to the run's seed: an audit draws anew, so that a record must hold for other draws than its own."""

OUTCOMES = (
    Outcome.CLEAN_ERROR,
    Outcome.FOOLED,
    Outcome.FAILED_MAJORITY,
    Outcome.ABSTAINED,
    Outcome.ROBUST,
)
"""Outcomes of an image, the worst first."""
_CLEAN_ERROR, _FOOLED, _FAILED_MAJORITY, _ABSTAINED, _ROBUST = range(len(OUTCOMES))
SURVIVES = _ABSTAINED
"""Position in ``OUTCOMES`` from which on an image is not lost."""


@torch.no_grad()
def answers_of(defense: Defense, images: Tensor, *, seed: int) -> dict[str, Answers]:
    """Return the labels by decision rule: one draw of a deterministic defence, fresh ones of a randomised one."""
    seeds = range(seed + FRESH_DRAWS, seed + FRESH_DRAWS + DRAWS) if defense.meta.randomized else (seed,)
    answers: dict[str, list[Answers]] = {}
    for draw in seeds:
        generator = torch.Generator(device=images.device).manual_seed(draw)
        for rule, labels in defense.decide(images, generator=generator).items():
            answers.setdefault(rule, []).append(labels.cpu().numpy())
    return {rule: np.stack(labels) for rule, labels in answers.items()}


def outcome_codes(answers: Answers, clean: Answers, truth: NDArray[np.int64], *, abstains: bool) -> OutcomeCodes:
    """Return the outcome of each image in each draw, as positions in ``OUTCOMES``."""
    outcomes = np.full(answers.shape, _FOOLED, dtype=np.int8)
    outcomes[answers == NO_MAJORITY] = _FAILED_MAJORITY
    if abstains:
        outcomes[answers == ABSTAIN] = _ABSTAINED
    outcomes[answers == truth] = _ROBUST
    outcomes[clean != truth] = _CLEAN_ERROR
    return outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateAnswers:
    """Answers of a defence to one candidate of a threat model, image by image."""

    outcomes: OutcomeCodes
    rounded: OutcomeCodes
    """Outcomes of the candidate's images rounded to 8 bits."""
    failed: NDArray[np.bool_]
    """Images without majority in some draw: bool, shape ``(N,)``."""
    rejected: NDArray[np.bool_]
    distances: NDArray[np.float64]
    """Distances from the clean images, in the cell's norm."""

    @property
    def survival(self) -> NDArray[np.float64]:
        """Share of draws that each image survived, shape ``(N,)``."""
        return survival(self.outcomes)

    @property
    def clean_error(self) -> NDArray[np.bool_]:
        """Images that are wrong when clean in most draws."""
        return np.asarray((self.outcomes == _CLEAN_ERROR).mean(axis=0) > 0.5)

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Images that are right when clean, and lost to the attack; of one draw."""
        return np.isin(self.outcomes[0], (_FOOLED, _FAILED_MAJORITY))


def candidate_answers(
    defense: Defense, chunk: Chunk, clean: Mapping[str, Answers], images: Tensor, *, norm: Norm, seed: int
) -> dict[str, CandidateAnswers]:
    """Return the answers of ``defense`` to ``images`` by rule, given its answers to the clean ones of ``chunk``."""
    truth, abstains = chunk.labels.cpu().numpy(), defense.meta.abstains
    rounded = answers_of(defense, rounded_to_8_bits(images), seed=seed)
    return {
        rule: CandidateAnswers(
            outcomes=outcome_codes(labels, clean[rule], truth, abstains=abstains),
            rounded=outcome_codes(rounded[rule], clean[rule], truth, abstains=abstains),
            failed=(labels == NO_MAJORITY).any(axis=0),
            rejected=(labels == ABSTAIN).any(axis=0),
            distances=distances(chunk.images, images, norm),
        )
        for rule, labels in answers_of(defense, images, seed=seed).items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """Answers of a defence to all candidates of one cell."""

    candidates: Mapping[str, CandidateAnswers]
    covered: NDArray[np.bool_]
    """Images whose evidence is there."""

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.covered)

    @property
    def worst(self) -> OutcomeCodes:
        """Worst outcome of each image over the candidates, shape ``(N,)``; of one draw."""
        return _least([each.outcomes[0] for each in self.candidates.values()])

    @property
    def survival(self) -> NDArray[np.float64]:
        """Share of draws that each image survived under the candidate that harms it most, shape ``(N,)``."""
        return _least([each.survival for each in self.candidates.values()])

    @property
    def clean_errors(self) -> NDArray[np.float64]:
        """Share of draws in which each image is wrong when clean, whether its evidence is there or not."""
        shares: NDArray[np.float64] = (next(iter(self.candidates.values())).outcomes == _CLEAN_ERROR).mean(axis=0)
        return shares

    @property
    def rounded_survival(self) -> NDArray[np.float64]:
        """Share of draws that each image survived, of candidates rounded to 8 bits."""
        return _least([survival(each.rounded) for each in self.candidates.values()])

    @property
    def norms_of_lost(self) -> NDArray[np.float64]:
        """Smallest norm at which each image was lost: 0 if it was when clean, infinite if it never was."""
        norms = _least([np.where(each.lost, each.distances, np.inf) for each in self.candidates.values()])
        return np.where(self.worst == _CLEAN_ERROR, 0.0, norms)


def _least(rows: Sequence[NDArray[_Number]]) -> NDArray[_Number]:
    """Return the smallest of several values of each image."""
    least: NDArray[_Number] = np.stack(rows).min(axis=0)
    return least


def survival(outcomes: OutcomeCodes) -> NDArray[np.float64]:
    """Return the share of draws that each image survived, shape ``(N,)``."""
    shares: NDArray[np.float64] = (outcomes >= SURVIVES).mean(axis=0)
    return shares


def joined(parts: Sequence[Rescored]) -> Rescored:
    """Return the chunks of one cell as one; all of them have the same candidates."""
    return Rescored(
        candidates={
            name: CandidateAnswers(
                outcomes=np.concatenate([part.candidates[name].outcomes for part in parts], axis=1),
                rounded=np.concatenate([part.candidates[name].rounded for part in parts], axis=1),
                failed=np.concatenate([part.candidates[name].failed for part in parts]),
                rejected=np.concatenate([part.candidates[name].rejected for part in parts]),
                distances=np.concatenate([part.candidates[name].distances for part in parts]),
            )
            for name in parts[0].candidates
        },
        covered=np.concatenate([part.covered for part in parts]),
    )
