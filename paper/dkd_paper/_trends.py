"""Claims of the paper on its numbers, confirmed or contradicted by ours; held against its own too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dkd_paper.record import Trend, Verdict

NEARLY_ALL = 0.8
"""Share of comparisons that 'almost every' asks for."""


class Comparison(NamedTuple):
    """Numbers of which the first is claimed to be the greater; ``None`` where there is none."""

    name: str
    greater: float | None
    other: float | None


def trend(
    claim: str,
    comparisons: Sequence[Comparison],
    *,
    authors: Sequence[Comparison] = (),
    share: float = 1.0,
    digits: int = 4,
) -> Trend:
    """Return ``claim`` as confirmed if the first number is the greater in at least ``share`` of the comparisons.

    Equal numbers and missing ones decide nothing, and are named. So is each comparison that goes against the
    claim, or all if they are few; and in how many of the ``authors``' own comparisons it holds.
    """
    known = [each for each in comparisons if None not in each]
    decided = [each for each in known if each.greater != each.other]
    against = [each for each in decided if not _holds(each)]
    shown = decided if len(decided) <= 3 else against
    numbers = ", ".join(f"{name} {greater:.{digits}f} against {other:.{digits}f}" for name, greater, other in shown)
    evidence = f"in {len(decided) - len(against)} of {len(decided)} comparisons"
    if numbers:
        evidence += f"; {numbers}" if shown is decided else f"; not in {numbers}"
    if len(known) > len(decided):
        evidence += f"; equal in {len(known) - len(decided)} more"
    if len(comparisons) > len(known):
        evidence += f"; no number for {', '.join(each.name for each in comparisons if None in each)}"
    if authors:
        evidence += f"; in the authors' own numbers, in {sum(map(_holds, authors))} of {len(authors)}"
    return Trend(claim=claim, verdict=_verdict(len(decided) - len(against), len(decided), share), evidence=evidence)


def _holds(each: Comparison) -> bool:
    return each.greater is not None and each.other is not None and each.greater > each.other


def _verdict(holding: int, of: int, share: float) -> Verdict:
    if not of:
        return "not decided"
    return "confirmed" if holding >= share * of else "contradicted"
