"""What the paper says of its numbers, as claims that ours confirm or contradict."""

from __future__ import annotations

from collections.abc import Sequence

from dkd_bench.reproduction._record import Trend

Comparison = tuple[str, float, float]
"""A name, the value that is claimed to be the greater, and the other."""

NEARLY_ALL = 0.8
"""The share of comparisons that 'almost every' asks for."""


def trend(claim: str, comparisons: Sequence[Comparison], *, share: float = 1.0, digits: int = 4) -> Trend:
    """Return ``claim`` as confirmed if the first value is the greater in at least ``share`` of the comparisons.

    The evidence names each comparison that goes against it, or all if they are few.
    """
    holding = [each for each in comparisons if each[1] > each[2]]
    against = [each for each in comparisons if each[1] <= each[2]]
    shown = comparisons if len(comparisons) <= 3 else against
    numbers = ", ".join(f"{name} {greater:.{digits}f} against {other:.{digits}f}" for name, greater, other in shown)
    evidence = f"in {len(holding)} of {len(comparisons)} comparisons"
    if numbers:
        evidence += f"; {numbers}" if shown is comparisons else f"; not in {numbers}"
    confirmed = bool(comparisons) and len(holding) >= share * len(comparisons)
    return Trend(claim=claim, verdict="confirmed" if confirmed else "contradicted", evidence=evidence)
