"""Contradictions between cells that cannot both be right, as with masked gradients; knows records only.

An attack that sees more, takes more steps or may go further must do at least as well on every image. Where it does
not, its number says how weak the attack is, not how strong the defence (Carlini et al. 2019; Pintor et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from math import fsum
from typing import Any, TypeAlias

from dkd_bench.attacks import AttackMeta
from dkd_bench.records import CandidateRecord, CellRecord, EvidenceRecord, FlagRecord, Outcome, worst_of
from dkd_bench.records.flags import ATTACK_ERROR, BLACK_BOX, NOT_FALLING, SINGLE_STEP, TRANSFER, UNBOUNDED
from dkd_bench.threats import ThreatModelMeta

TOLERATED_SHARE = 0.02
TOLERATED_IMAGES = 2
"""Images, and the share of them, on which a stronger attack may do worse by chance: a start, a rounding."""
TRANSFER_GAP = 0.2
"""Share of images fooled on the surrogate alone from which on it is another classifier than the defence; of a
randomised defence twice as much, since one draw of its surrogate is held against many of its own."""
MIN_FALL = 0.05
"""Accuracy that an attack must have taken at one eps before it is asked to take more at twice as much."""
CHANCE = 0.1
"""Accuracy below which nobody expects it to fall any further."""
GRAY = 0.5
"""Linf eps from which every image can be made the same gray, so that nothing can stand an attack that works."""
REACHED = 0.95
"""Share of images on which an attack without budget must reach its own target."""

Raised: TypeAlias = "Iterator[tuple[CellRecord, FlagRecord]]"
"""Flags, each with the cell whose number it casts doubt on."""


def contradictions(
    cells: Sequence[CellRecord],
    attacks: Mapping[str, AttackMeta],
    threat_models: Mapping[str, ThreatModelMeta],
    evidence: Mapping[str, EvidenceRecord],
) -> Raised:
    """Yield the flags that follow from ``cells`` alone, each with the cell whose number it casts doubt on.

    Args:
        cells: of one run.
        attacks: what the run's attacks declare, by name.
        threat_models: what its threat models declare, by name.
        evidence: of the run, by key.
    """
    for cell in cells:
        if cell.status == "error" and not cell.flags:
            yield cell, FlagRecord(name=ATTACK_ERROR, detail=cell.reason or "no reason is recorded")
    known = [cell for cell in cells if cell.attack in attacks and cell.threat_model in threat_models]
    scored = [cell for cell in known if cell.status == "ok"]

    def seen_whole(cell: CellRecord) -> bool:
        return sees_everything(attacks[cell.attack], threat_models[cell.threat_model])

    for row in _grouped(scored, lambda cell: (cell.defense, cell.decision)):
        yield from _row_flags(row, seen_whole, attacks, evidence)


def count_lost_to_weaker(strong: Sequence[float], weak: Sequence[float]) -> int:
    """Return the number of images that stand the stronger and fall to the weaker of two attacks.

    Of shares of draws those count that differ by more than half; and no more than the means differ by, since of a
    random defence some images answer to the weaker by luck, and others to the stronger.
    """
    differences = [stands - falls for stands, falls in zip(strong, weak, strict=True)]
    count = sum(difference > 0.5 for difference in differences)
    if all(share in (0, 1) for share in (*strong, *weak)):
        return count
    return min(count, max(0, round(fsum(differences))))


def exceeds_chance(count: int, n: int) -> bool:
    """Return whether ``count`` of ``n`` images are more than chance explains."""
    return count > max(TOLERATED_IMAGES, TOLERATED_SHARE * n)


def worst_shares(cells: Iterable[CellRecord]) -> tuple[float, ...]:
    """Return the least share of draws that each image survived over ``cells``, of which there is at least one."""
    return worst_of([cell.image_outcomes for cell in cells]).shares


def _answered_right(cell: CellRecord) -> tuple[float, ...]:
    """Return ``cell.shares`` without what was rejected: a larger step is more easily seen, and that is no masking."""
    return cell.survival or tuple(float(outcome is Outcome.ROBUST) for outcome in cell.outcomes)


def sees_everything(attack: AttackMeta, threat_model: ThreatModelMeta) -> bool:
    """Return whether examples are made with full sight: on the whole, by its gradients."""
    return threat_model.sees_whole and attack.access not in ("scores", "decisions")


def _budget(cell: CellRecord) -> tuple[str, float]:
    return cell.norm, cell.eps or 0.0


def _row_flags(
    cells: Sequence[CellRecord],
    seen_whole: Callable[[CellRecord], bool],
    attacks: Mapping[str, AttackMeta],
    evidence: Mapping[str, EvidenceRecord],
) -> Raised:
    """Yield the flags of one row; ``seen_whole`` says whether a cell's examples were made with full sight."""
    white = [cell for cell in cells if seen_whole(cell)]
    fixed = [cell for cell in white if attacks[cell.attack].kind == "fixed"]
    for budget in _grouped([cell for cell in white if cell.eps is not None], _budget):
        yield from _single_step(budget, attacks)
    for budget in _grouped(fixed, _budget):
        yield from _transfer(budget, evidence)
    for attack in _grouped(fixed, lambda cell: (cell.attack, cell.norm)):
        if not attacks[attack[0].attack].single_step:
            yield from _not_falling(attack)
    for attack in _grouped(white, lambda cell: (cell.attack, cell.norm)):
        yield from _unreached(attack, evidence)
    for budget in _grouped([cell for cell in cells if cell.eps is not None], _budget):
        yield from _black_box(budget, seen_whole)


def _single_step(cells: Sequence[CellRecord], attacks: Mapping[str, AttackMeta]) -> Raised:
    """Compare attacks of one step with all of many together: of a defence that rejects, not each sees the detectors."""
    iterative = [cell for cell in cells if not attacks[cell.attack].single_step]
    if not iterative:
        return
    worst = worst_shares(iterative)
    strongest = min(iterative, key=lambda cell: cell.robust_accuracy or 0.0)
    *others, last = sorted(cell.attack for cell in iterative)
    stood = f"{', '.join(others)} and {last} together do not" if others else f"{last} does not"
    for weak in (cell for cell in cells if attacks[cell.attack].single_step):
        count = count_lost_to_weaker(worst, weak.shares)
        if exceeds_chance(count, weak.n):
            detail = f"{weak.attack} fools {count} of {weak.n} images that {stood}"
            yield strongest, FlagRecord(name=SINGLE_STEP, detail=detail, share=count / weak.n)


def _not_falling(cells: Sequence[CellRecord]) -> Raised:
    """Compare each budget of an attack with the next larger one; look at those that any image can be lost in."""
    for cell in cells:
        accuracy = sum(_answered_right(cell)) / cell.n
        if cell.norm == "linf" and (cell.eps or 0.0) >= GRAY and accuracy > CHANCE:
            detail = (
                f"{100 * accuracy:.1f} % stand {cell.attack} at eps {cell.eps:g}, where every image can be made gray"
            )
            yield cell, FlagRecord(name=NOT_FALLING, detail=detail)
    for small, large in pairwise(sorted(cells, key=lambda cell: cell.eps or 0.0)):
        assert small.eps is not None, "fixed attacks have a budget"
        assert large.eps is not None, "fixed attacks have a budget"
        before, after = _answered_right(small), _answered_right(large)
        count = count_lost_to_weaker(after, before)
        if exceeds_chance(count, large.n):
            detail = f"{count} of {large.n} images fall to {small.attack} at eps {small.eps:g} and stand {large.eps:g}"
            yield large, FlagRecord(name=NOT_FALLING, detail=detail, share=count / large.n)
            continue
        accuracy = sum(before) / small.n
        works = small.clean_accuracy is not None and accuracy <= small.clean_accuracy - MIN_FALL
        if works and large.eps >= 2 * small.eps and sum(after) >= sum(before) and accuracy > CHANCE:
            detail = f"{100 * accuracy:.1f} % stand {small.attack} at eps {small.eps:g}, and no fewer at {large.eps:g}"
            yield large, FlagRecord(name=NOT_FALLING, detail=detail)


def _transfer(cells: Sequence[CellRecord], evidence: Mapping[str, EvidenceRecord]) -> Raised:
    """Compare the strongest attack's success on its own target with that on the defence."""
    strongest = min(cells, key=lambda cell: cell.robust_accuracy or 0.0)
    known = [(each, broken) for each, broken in _broken_targets(strongest, evidence) if broken is not None]
    if not known:
        return
    candidate, broken = min(known, key=lambda each: each[0].robust_accuracy)
    # A surrogate's detectors have no say in what it gets wrong: what the defence rejects is not held against it.
    wrong = 1 - max(0.0, candidate.robust_accuracy - candidate.abstained / strongest.n)
    gap = broken - wrong
    if gap > (TRANSFER_GAP if strongest.survival is None else 2 * TRANSFER_GAP):
        detail = (
            f"{strongest.attack} gets {100 * broken:.1f} % of images wrong on surrogate {candidate.name!r}, "
            f"and of the defence's answers only {100 * wrong:.1f} %"
        )
        yield strongest, FlagRecord(name=TRANSFER, detail=detail, share=gap)


def _unreached(cells: Sequence[CellRecord], evidence: Mapping[str, EvidenceRecord]) -> Raised:
    """Flag an attack that leaves images right on its own target without budget: its numbers within one rest on it.

    In l0 attacks stop at a share of the values, and need not reach any image. A randomised target is asked again to be
    counted, and what lies on its boundary then falls on either side.
    """
    free = next((cell for cell in cells if cell.eps is None and cell.norm != "l0" and cell.survival is None), None)
    reached = [broken for _, broken in _broken_targets(free, evidence) if broken is not None] if free else []
    if reached and max(reached) < REACHED:
        left = 1 - max(reached)
        detail = f"{cells[0].attack} without budget leaves {100 * left:.1f} % of images right on its own target"
        for cell in cells:
            yield cell, FlagRecord(name=UNBOUNDED, detail=detail, share=left)


def _black_box(cells: Sequence[CellRecord], seen_whole: Callable[[CellRecord], bool]) -> Raised:
    """Compare the worst of what sees everything with the worst of what sees less."""
    white = [cell for cell in cells if seen_whole(cell)]
    other = [cell for cell in cells if not seen_whole(cell)]
    if not white or not other:
        return
    worst = worst_shares(white)
    count = count_lost_to_weaker(worst, worst_shares(other))
    if exceeds_chance(count, white[0].n):
        by = max(other, key=lambda cell: count_lost_to_weaker(worst, cell.shares))
        detail = (
            f"{count} of {by.n} images fall only to examples made with less sight, "
            f"most of them to {by.attack} ({by.threat_model})"
        )
        strongest = min(white, key=lambda cell: cell.robust_accuracy or 0.0)
        yield strongest, FlagRecord(name=BLACK_BOX, detail=detail, share=count / by.n)


def _broken_targets(
    cell: CellRecord, evidence: Mapping[str, EvidenceRecord]
) -> list[tuple[CandidateRecord, float | None]]:
    """Return each target attacked, and the share of images it got wrong itself; ``None`` where that is not recorded."""
    chunks = len(cell.evidence) // max(1, len(cell.candidates))
    found: list[tuple[CandidateRecord, float | None]] = []
    for position, candidate in enumerate(cell.candidates):
        keys = cell.evidence[position * chunks : (position + 1) * chunks]
        counts = [evidence[key].broken if key in evidence else None for key in keys]
        known = [count for count in counts if count is not None]
        found.append((candidate, sum(known) / cell.n if counts and len(known) == len(counts) else None))
    return found


def _grouped(cells: Iterable[CellRecord], key: Callable[[CellRecord], tuple[Any, ...]]) -> list[list[CellRecord]]:
    return [list(group) for _, group in groupby(sorted(cells, key=key), key=key)]
