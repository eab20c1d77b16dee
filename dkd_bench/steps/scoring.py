"""Score: a defence's answers to candidate images become one outcome per image and one cell per rule and budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import final

import torch
from torch import Tensor

from dkd_bench.budget import Budget, check_images, perturbation_norms
from dkd_bench.data import Chunk
from dkd_bench.defense import ABSTAIN, NO_MAJORITY, Defense
from dkd_bench.defense.detection import DetectorTallies
from dkd_bench.errors import DkdBenchError, PluginError
from dkd_bench.records import (
    BROKEN,
    CandidateRecord,
    DetectorRecord,
    ImageOutcomes,
    NormQuantiles,
    Outcome,
    worst_of,
)
from dkd_bench.threats import ThreatModel

SCORING_DRAWS = 10
"""Number of fresh draws over which a randomised defence is scored."""


@torch.no_grad()
def decided(defense: Defense, images: Tensor, *, seed: int, draws: int = SCORING_DRAWS) -> dict[str, Tensor]:
    """Return a defence's labels for ``images`` by decision rule, shape ``(draws, N)`` each, on the CPU.

    One draw for a deterministic defence, ``draws`` with fresh seeds for a randomised one.

    Raises:
        PluginError: if the defence fails.
    """
    draws = draws if defense.meta.randomized else 1
    answers: dict[str, list[Tensor]] = {}
    for draw in range(draws):
        generator = torch.Generator(device=images.device).manual_seed(seed + draw)
        try:
            decisions = defense.decide(images, generator=generator)
        except DkdBenchError:
            raise
        except Exception as error:
            raise PluginError(
                f"defence {defense.meta.name!r} fails on images: {type(error).__name__}: {error}"
            ) from error
        for rule, labels in decisions.items():
            answers.setdefault(rule, []).append(labels.cpu())
    return {rule: torch.stack(labels) for rule, labels in answers.items()}


def judge(labels: Tensor, clean: Tensor, truth: Tensor, *, abstains: bool) -> list[list[Outcome]]:
    """Return an outcome for each draw and image.

    Args:
        labels: the answers to candidate images, shape ``(draws, N)``.
        clean: the answers to the clean images, of the same draws.
        truth: the labels, shape ``(N,)``.
        abstains: whether the defence declares that it abstains; else a reject is an error like any other.
    """
    return [
        [
            _outcome(answer, clean_answer, label, abstains=abstains)
            for answer, clean_answer, label in zip(*rows, truth.tolist(), strict=True)
        ]
        for rows in zip(labels.tolist(), clean.tolist(), strict=True)
    ]


def _outcome(answer: int, clean_answer: int, label: int, *, abstains: bool) -> Outcome:
    if clean_answer != label:
        return Outcome.CLEAN_ERROR
    if answer == label:
        return Outcome.ROBUST
    if answer == NO_MAJORITY:
        return Outcome.FAILED_MAJORITY
    if answer == ABSTAIN and abstains:
        return Outcome.ABSTAINED
    return Outcome.FOOLED


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """Judgement of one candidate under one decision rule, each field with one entry for each image."""

    images: ImageOutcomes
    failed: tuple[bool, ...]
    """Whether the vote failed in any draw."""
    rejected: tuple[bool, ...]
    """Whether the image was rejected in any draw."""
    norms: tuple[float, ...]
    """Distances of the candidate from the clean images, in the norm of the budget."""

    @classmethod
    def joined(cls, chunks: Sequence[_Judged]) -> _Judged:
        """Return the judgement of all images of ``chunks``, in their order."""
        return cls(
            images=ImageOutcomes.joined([each.images for each in chunks]),
            failed=tuple(chain.from_iterable(each.failed for each in chunks)),
            rejected=tuple(chain.from_iterable(each.rejected for each in chunks)),
            norms=tuple(chain.from_iterable(each.norms for each in chunks)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CellScore:
    """Scored part of a cell."""

    robust_accuracy: float
    mean_robust_accuracy: float
    ci95: tuple[float, float]
    failed_majorities: int
    abstained: int
    fooling_norms: NormQuantiles | None
    fooling_distances: tuple[float | None, ...]
    images: ImageOutcomes
    """The worst candidate of each image."""
    candidates: tuple[CandidateRecord, ...]
    detectors: tuple[DetectorRecord, ...]


class TrialScorer:
    """Scorer of a defence's answers to all candidates of a threat model, chunk by chunk."""

    def __init__(self, defense: Defense, threat_model: ThreatModel, budget: Budget, *, seed: int) -> None:
        """Score ``defense`` under ``threat_model`` within ``budget``; draws are seeded by ``seed``."""
        self._defense = defense
        self._threat_model = threat_model
        self._budget = budget
        self._seed = seed
        self._judged: dict[str, dict[str, list[_Judged]]] = {}
        """By decision rule and candidate, chunk by chunk."""
        self._detectors = DetectorTallies(defense, seed=seed)

    def add(self, chunk: Chunk, clean: Mapping[str, Tensor], crafted: Mapping[str, Tensor]) -> None:
        """Score one chunk.

        Args:
            chunk: the clean images and their labels.
            clean: the defence's answers to them, as ``decided`` gives them.
            crafted: the evidence for each target of the threat model.

        Raises:
            EvidenceError: if a candidate leaves box or budget.
            PluginError: if the threat model fails.
        """
        truth = chunk.labels.cpu()
        self._detectors.add_clean(chunk.images)
        for name, images in self._candidates(chunk.images, crafted):
            source = f"{self._threat_model.meta.name} candidate {name!r}, chunk {chunk.number}"
            check_images(chunk.images, images, self._budget, source=source)
            distances = perturbation_norms(chunk.images, images, self._budget.norm)
            self._detectors.add(name, images[distances > 0])
            for rule, labels in decided(self._defense, images, seed=self._seed).items():
                outcomes = judge(labels, clean[rule], truth, abstains=self._defense.meta.abstains)
                judged = _Judged(
                    images=ImageOutcomes.of_draws(outcomes, randomized=self._defense.meta.randomized),
                    failed=tuple((labels == NO_MAJORITY).any(dim=0).tolist()),
                    rejected=tuple((labels == ABSTAIN).any(dim=0).tolist()),
                    norms=tuple(distances.tolist()),
                )
                self._judged.setdefault(rule, {}).setdefault(name, []).append(judged)

    def _candidates(self, clean: Tensor, crafted: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        try:
            yield from self._threat_model.candidates(clean, crafted, self._budget)
        except DkdBenchError:
            raise
        except Exception as error:
            name = self._threat_model.meta.name
            raise PluginError(f"threat model {name!r} fails on images: {type(error).__name__}: {error}") from error

    def scores(self) -> dict[str, CellScore]:
        """Return the score under each decision rule, over all chunks added so far."""
        return {
            rule: self._score({name: _Judged.joined(chunks) for name, chunks in by_candidate.items()})
            for rule, by_candidate in self._judged.items()
        }

    def _score(self, judged: Mapping[str, _Judged]) -> CellScore:
        worst = worst_of([each.images for each in judged.values()])
        candidates = tuple(_candidate(name, each) for name, each in judged.items())
        distances = _fooling_distances(list(judged.values()))
        headline = worst.robust
        return CellScore(
            robust_accuracy=headline.value,
            mean_robust_accuracy=sum(candidate.robust_accuracy for candidate in candidates) / len(candidates),
            ci95=headline.ci95,
            failed_majorities=_count_any(each.failed for each in judged.values()),
            abstained=_count_any(each.rejected for each in judged.values()),
            fooling_norms=_quantiles([distance for distance in distances if distance is not None and distance > 0]),
            fooling_distances=distances if self._budget.eps is None else (),
            images=worst,
            candidates=candidates,
            detectors=self._detectors.records(),
        )


def clean_accuracy(labels: Tensor, truth: Tensor) -> float:
    """Return the share of right answers over images and draws; ``labels`` has shape ``(draws, N)``."""
    return float((labels == truth).double().mean())


def _candidate(name: str, judged: _Judged) -> CandidateRecord:
    accuracy = judged.images.robust
    return CandidateRecord(
        name=name,
        robust_accuracy=accuracy.value,
        ci95=accuracy.ci95,
        failed_majorities=sum(judged.failed),
        abstained=sum(judged.rejected),
    )


def _count_any(columns: Iterable[Sequence[bool]]) -> int:
    return sum(any(flags) for flags in zip(*columns, strict=True))


def _fooling_distances(judged: Sequence[_Judged]) -> tuple[float | None, ...]:
    """Return the smallest norm at which each image was got wrong; 0 if it was when clean, ``None`` if never."""
    distances: list[float | None] = []
    for outcomes, norms in zip(
        zip(*(each.images.outcomes for each in judged), strict=True),
        zip(*(each.norms for each in judged), strict=True),
        strict=True,
    ):
        if Outcome.CLEAN_ERROR in outcomes:
            distances.append(0.0)
        else:
            broken = [norm for outcome, norm in zip(outcomes, norms, strict=True) if outcome in BROKEN]
            distances.append(min(broken, default=None))
    return tuple(distances)


def _quantiles(norms: Sequence[float]) -> NormQuantiles | None:
    if not norms:
        return None
    q25, median, q75 = (
        torch.tensor(norms, dtype=torch.float64).quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    )
    return NormQuantiles(n=len(norms), q25=q25, median=median, q75=q75)
