"""Outcomes of images, with the share of draws that each survived, and the worst of several attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import final

from dkd_bench.records._base import Fraction, Interval
from dkd_bench.records.statistics import interval, mean_interval


class Outcome(str, Enum):
    """Outcome of an attack for one test image."""

    ROBUST = "robust"
    """Right when clean, and right under attack."""
    FOOLED = "fooled"
    """Right when clean, another label under attack."""
    FAILED_MAJORITY = "failed_majority"
    """Right when clean, no majority under attack: an error."""
    ABSTAINED = "abstained"
    """Right when clean, rejected under attack: not fooled, and counted apart."""
    CLEAN_ERROR = "clean_error"
    """Wrong, rejected or without majority when clean: lost before any attack."""


WORST_FIRST = (
    Outcome.CLEAN_ERROR,
    Outcome.FOOLED,
    Outcome.FAILED_MAJORITY,
    Outcome.ABSTAINED,
    Outcome.ROBUST,
)
"""Outcomes from worst to best: of several for one image, an adversary picks the worst."""

SURVIVED = frozenset({Outcome.ABSTAINED, Outcome.ROBUST})
"""Outcomes of images that were not fooled; scoring says ``abstained`` only of defences that declare abstention."""

BROKEN = frozenset({Outcome.FOOLED, Outcome.FAILED_MAJORITY})
"""Outcomes of images that were right when clean, and lost to the attack."""


def worst_outcome(outcomes: Iterable[Outcome]) -> Outcome:
    """Return an image's outcome under an adversary who picks the best of several examples."""
    return min(outcomes, key=WORST_FIRST.index)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutcomes:
    """Outcomes of N images; several of these are compared in one order of images."""

    outcomes: tuple[Outcome, ...]
    """Outcome of each image; of several draws the most frequent."""
    survival: tuple[Fraction, ...] | None = None
    """Share of draws that each image survived; ``None`` for a deterministic defence, which has one draw."""

    @classmethod
    def of_draws(cls, draws: Sequence[Sequence[Outcome]], *, randomized: bool) -> ImageOutcomes:
        """Return the outcomes that several draws of one defence amount to: of equally frequent ones the worst.

        Args:
            draws: one sequence of N outcomes for each draw; a deterministic defence has one draw.
            randomized: whether the shares of draws are kept.
        """
        images = list(zip(*draws, strict=True))
        frequent = (Counter(sorted(image, key=WORST_FIRST.index)).most_common(1)[0][0] for image in images)
        shares = (sum(outcome in SURVIVED for outcome in image) / len(image) for image in images)
        return cls(outcomes=tuple(frequent), survival=tuple(shares) if randomized else None)

    @classmethod
    def joined(cls, chunks: Sequence[ImageOutcomes]) -> ImageOutcomes:
        """Return the outcomes of all images of ``chunks``, in their order; all of one defence, at least one."""
        outcomes = tuple(chain.from_iterable(each.outcomes for each in chunks))
        if all(each.survival is None for each in chunks):
            return cls(outcomes=outcomes)
        return cls(outcomes=outcomes, survival=tuple(chain.from_iterable(each.shares for each in chunks)))

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """The share of draws that each image survived: 0 or 1 for a deterministic defence."""
        if self.survival is not None:
            return self.survival
        return tuple(float(outcome in SURVIVED) for outcome in self.outcomes)

    @property
    def robust(self) -> Interval:
        """The fraction of images, or the mean share of draws, that survived; raises ConfigError without images."""
        if self.survival is not None:
            return mean_interval(self.survival)
        return interval(sum(outcome in SURVIVED for outcome in self.outcomes), len(self.outcomes))

    def count(self, outcome: Outcome) -> int:
        """Return the number of images with this outcome."""
        return self.outcomes.count(outcome)


def worst_of(several: Sequence[ImageOutcomes]) -> ImageOutcomes:
    """Return the worst outcome, and the least share of draws survived, of each image over ``several``, at least one.

    Raises:
        ValueError: if they are not of as many images each.
    """
    outcomes = tuple(worst_outcome(image) for image in zip(*(each.outcomes for each in several), strict=True))
    if all(each.survival is None for each in several):
        return ImageOutcomes(outcomes=outcomes)
    shares = zip(*(each.shares for each in several), strict=True)
    return ImageOutcomes(outcomes=outcomes, survival=tuple(min(image) for image in shares))
