"""The worst that happened to each image, over several cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from dkd_bench.records import SURVIVED, CellRecord, Fraction, Interval, Outcome, shares_survived, worst_outcome
from dkd_bench.records.statistics import interval, mean_interval


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of every image, in one order for all fates that are merged."""

    outcomes: tuple[Outcome, ...]
    survival: tuple[Fraction, ...] | None
    """Share of draws survived, for a randomised defence."""

    @property
    def robust(self) -> Interval:
        """The fraction of images, or the mean share of draws, that survived."""
        if self.survival is not None:
            return mean_interval(self.survival)
        return interval(sum(outcome in SURVIVED for outcome in self.outcomes), len(self.outcomes))

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """The share of draws that each image survived: 0 or 1 for a deterministic defence."""
        return shares_survived(self.outcomes, self.survival)

    def count(self, outcome: Outcome) -> int:
        """Return how many images had this outcome."""
        return self.outcomes.count(outcome)


def fate_of(cell: CellRecord) -> Fate:
    """Return what a cell, which must have status ok, says of each image."""
    return Fate(outcomes=cell.outcomes, survival=cell.survival)


def worst_of(fates: Sequence[Fate]) -> Fate:
    """Return the worst outcome, and the least share of draws survived, of each image over ``fates``."""
    outcomes = tuple(worst_outcome(image) for image in zip(*(fate.outcomes for fate in fates), strict=True))
    if all(fate.survival is None for fate in fates):
        return Fate(outcomes=outcomes, survival=None)
    shares = zip(*(fate.shares for fate in fates), strict=True)
    return Fate(outcomes=outcomes, survival=tuple(min(image) for image in shares))
