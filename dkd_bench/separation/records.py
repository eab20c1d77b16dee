"""Records of the latent space separation of an ensemble's members: frozen, no NaN, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles

from pydantic import Field

from dkd_bench.records import Fraction, Record


class Certificate(Record):
    """Proof that a margin is the widest there is, checked on every point and not on the support vectors alone."""

    functional_margin: float
    """Least ``y f(x)`` over all points, ``f`` scaled to the widest margin that is not ruled out; 1 if exact."""
    duality_gap: float
    """Share, in [0, 1], by which ``||w||^2`` could be smaller; 0 if exact."""
    largest_alpha: float
    """Largest multiplier: a soft-margin SVM on the latents over their RMS radius finds the same plane for every C above
    it."""


class Separation(Record):
    """Separation of one member's latents from those of the others: Eq. 5 of the paper, or why there is no number."""

    separable: bool | None
    """Whether a plane separates them; ``None`` where there are too few points, or no certified answer."""
    margin: float | None
    """Margin ``2 / ||w||`` of the hard-margin SVM, in units of the latents; ``None`` unless separable."""
    reason: str | None
    """Reason why there is no margin; ``None`` where there is one."""
    training_error: Fraction | None
    """Share of points on the wrong side of the best plane found; only where none separates."""
    rms_radius: float
    """Root mean square distance of the pooled latents from their mean."""
    n_points: int
    dimension: int
    support_vectors: int | None
    rounds: int
    """Number of subsets that were solved; 0 where the points are too few."""
    certificate: Certificate | None

    @property
    def scaled_margin(self) -> float | None:
        """The margin over the RMS radius: comparable between latents of unlike scale."""
        return None if self.margin is None else self.margin / self.rms_radius


class EnsembleSeparation(Record):
    """Separation of each member from all the others: Eq. 6 of the paper."""

    members: tuple[Separation, ...] = Field(min_length=2)

    @property
    def lss(self) -> float | None:
        """The mean margin, in units of the latents; ``None`` if a member has none."""
        return _mean([member.margin for member in self.members])

    @property
    def scaled_lss(self) -> float | None:
        """The mean of the margins over the RMS radius; ``None`` if a member has none."""
        return _mean([member.scaled_margin for member in self.members])

    @property
    def reason(self) -> str | None:
        """Reason why there is no mean: which members have no margin, and why; ``None`` where all have one."""
        concerned: dict[str, list[str]] = {}
        for number, member in enumerate(self.members, start=1):
            if member.reason is not None:
                concerned.setdefault(member.reason, []).append(str(number))
        reasons = [
            f"member{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}: {reason}"
            for reason, numbers in concerned.items()
        ]
        return "; ".join(reasons) or None


class PermutationNull(Record):
    """Margins of the same points under labels dealt at random: what a margin is worth by itself."""

    margins: tuple[float | None, ...] = Field(min_length=1)
    """Margin of each draw, in units of the latents; ``None`` where no plane separates the labels, or undecided."""
    undecided: int
    """Number of draws without a margin for which it is not proven that there is none; counted as separable."""
    rms_radius: float

    @property
    def found(self) -> tuple[float, ...]:
        """The margins that there are, in rising order."""
        return tuple(sorted(margin for margin in self.margins if margin is not None))

    @property
    def share_separable(self) -> Fraction:
        """The share of draws in which a plane separates the random labels."""
        return (len(self.found) + self.undecided) / len(self.margins)

    @property
    def quartiles(self) -> tuple[float, float, float] | None:
        """The quartiles of the margins that there are; ``None`` if there is none."""
        found = self.found
        if not found:
            return None
        low, median, high = quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
        return low, median, high


class SeparationReport(Record):
    """The latent space separation of one trained defence on one set of images."""

    defense: str
    weights_sha256: str
    dataset: str
    dataset_digest: str
    layer: str
    n_examples: int
    seed: int
    """Seed of the choice of images, where not all are taken, and of the null."""
    separation: EnsembleSeparation
    null: PermutationNull | None


def _mean(margins: Sequence[float | None]) -> float | None:
    known = [margin for margin in margins if margin is not None]
    return sum(known) / len(known) if len(known) == len(margins) else None
