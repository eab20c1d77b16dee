"""Score: a defence's answers to candidate images become one outcome per image and one cell per rule and budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dkd_bench.attacks.images import check_images
from dkd_bench.budget import Budget, perturbation_norms
from dkd_bench.data import Chunk
from dkd_bench.defense import ABSTAIN, NO_MAJORITY, Defense
from dkd_bench.defense.detection import DetectorTallies
from dkd_bench.errors import DkdBenchError, PluginError
from dkd_bench.records import (
    BROKEN,
    SURVIVED,
    WORST_FIRST,
    CandidateRecord,
    DetectorRecord,
    NormQuantiles,
    Outcome,
    worst_outcome,
)
from dkd_bench.records.statistics import mean_interval
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


@dataclass(slots=True)
class _Tally:
    """Outcomes of one candidate, image by image, as the chunks come in."""

    outcomes: list[Outcome] = field(default_factory=list)
    """Outcome of each image, the most frequent over the draws."""
    survival: list[float] = field(default_factory=list)
    failed: list[bool] = field(default_factory=list)
    abstained: list[bool] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)


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
    outcomes: tuple[Outcome, ...]
    survival: tuple[float, ...] | None
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
        self._tallies: dict[str, dict[str, _Tally]] = {}
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
            norms = distances.tolist()
            self._detectors.add(name, images[distances > 0])
            for rule, labels in decided(self._defense, images, seed=self._seed).items():
                outcomes = judge(labels, clean[rule], truth, abstains=self._defense.meta.abstains)
                tally = self._tallies.setdefault(rule, {}).setdefault(name, _Tally())
                for draws in zip(*outcomes, strict=True):
                    tally.outcomes.append(Counter(sorted(draws, key=WORST_FIRST.index)).most_common(1)[0][0])
                    tally.survival.append(sum(outcome in SURVIVED for outcome in draws) / len(draws))
                tally.failed.extend((labels == NO_MAJORITY).any(dim=0).tolist())
                tally.abstained.extend((labels == ABSTAIN).any(dim=0).tolist())
                tally.norms.extend(norms)

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
        return {rule: self._score(tallies) for rule, tallies in self._tallies.items()}

    def _score(self, tallies: Mapping[str, _Tally]) -> CellScore:
        survival = [min(column) for column in zip(*(tally.survival for tally in tallies.values()), strict=True)]
        candidates = tuple(_candidate(name, tally) for name, tally in tallies.items())
        headline = mean_interval(survival)
        distances = _fooling_distances(list(tallies.values()))
        return CellScore(
            robust_accuracy=headline.value,
            mean_robust_accuracy=sum(candidate.robust_accuracy for candidate in candidates) / len(candidates),
            ci95=headline.ci95,
            failed_majorities=_count_any(tally.failed for tally in tallies.values()),
            abstained=_count_any(tally.abstained for tally in tallies.values()),
            fooling_norms=_quantiles([distance for distance in distances if distance is not None and distance > 0]),
            fooling_distances=distances if self._budget.eps is None else (),
            outcomes=tuple(
                worst_outcome(column) for column in zip(*(tally.outcomes for tally in tallies.values()), strict=True)
            ),
            survival=tuple(survival) if self._defense.meta.randomized else None,
            candidates=candidates,
            detectors=self._detectors.records(),
        )


def clean_accuracy(labels: Tensor, truth: Tensor) -> float:
    """Return the share of right answers over images and draws; ``labels`` has shape ``(draws, N)``."""
    return float((labels == truth).double().mean())


def _candidate(name: str, tally: _Tally) -> CandidateRecord:
    accuracy = mean_interval(tally.survival)
    return CandidateRecord(
        name=name,
        robust_accuracy=accuracy.value,
        ci95=accuracy.ci95,
        failed_majorities=sum(tally.failed),
        abstained=sum(tally.abstained),
    )


def _count_any(columns: Iterable[Sequence[bool]]) -> int:
    return sum(any(flags) for flags in zip(*columns, strict=True))


def _fooling_distances(tallies: Sequence[_Tally]) -> tuple[float | None, ...]:
    """Return the smallest norm at which each image was got wrong; 0 if it was when clean, ``None`` if never."""
    distances: list[float | None] = []
    for image in range(len(tallies[0].outcomes)):
        if any(tally.outcomes[image] is Outcome.CLEAN_ERROR for tally in tallies):
            distances.append(0.0)
            continue
        norms = [tally.norms[image] for tally in tallies if tally.outcomes[image] in BROKEN]
        distances.append(min(norms, default=None))
    return tuple(distances)


def _quantiles(norms: Sequence[float]) -> NormQuantiles | None:
    if not norms:
        return None
    q25, median, q75 = (
        torch.tensor(norms, dtype=torch.float64).quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    )
    return NormQuantiles(n=len(norms), q25=q25, median=median, q75=q75)
