"""Comparison of one cell of a record with itself and with what the defence answers now."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import fsum, isclose

import numpy as np
from numpy.typing import NDArray

from dkd_bench.data import CHUNK_SIZE
from dkd_bench.records import CandidateRecord, CellRecord, DefenseRecord, EvidenceRecord, Outcome
from dkd_bench.verify._answers import OUTCOMES, SURVIVES, CandidateAnswers, Rescored
from dkd_bench.verify._intervals import wilson

_EQUAL = 1e-8
"""Difference of two fractions below which they are one."""
_EQUAL_NORMS = 1e-6
_BROKEN = (Outcome.FOOLED, Outcome.FAILED_MAJORITY)


def is_whole(cell: CellRecord, defense: DefenseRecord, *, n: int) -> bool:
    """Return whether a cell has an outcome for each of ``n`` images, and a share of draws where it must."""
    return next(_gaps(cell, defense, n), None) is None


def record_problems(cell: CellRecord, defense: DefenseRecord | None, *, n: int) -> Iterator[str]:
    """Yield a sentence for each number of a cell that does not follow from its own outcomes, and from its defence's.

    Args:
        cell: as recorded; without a number, only its clean accuracy is looked at.
        defense: as the manifest has it; ``None`` for one that never answered.
        n: images of the run.
    """
    clean = defense.clean_accuracy.get(cell.decision) if defense else None
    if cell.clean_accuracy != (clean.value if clean else None):
        yield f"clean accuracy is recorded as {_number(cell.clean_accuracy)}, the manifest says otherwise"
    if cell.status != "ok" or defense is None:
        return
    if cell.detectors and not defense.abstains:
        yield "it has detectors, and the defence never rejects an image"
    gaps = list(_gaps(cell, defense, n))
    yield from gaps or _arithmetic(cell, n)


def _gaps(cell: CellRecord, defense: DefenseRecord, n: int) -> Iterator[str]:
    if len(cell.outcomes) != n or cell.n != n:
        yield f"expected {n} outcomes, the record has {len(cell.outcomes)} and n = {cell.n}"
    expected = n if defense.randomized else None
    found = None if cell.survival is None else len(cell.survival)
    if found != expected:
        yield f"expected {expected or 'no'} shares of draws survived, the record has {found or 'none'}"


def _arithmetic(cell: CellRecord, n: int) -> Iterator[str]:
    shares = cell.survival if cell.survival is not None else [float(_survived(each)) for each in cell.outcomes]
    counted = fsum(shares)
    yield from _differs("robust accuracy", cell.robust_accuracy, counted / n, found_by="its outcomes count")
    yield from _interval_differs("the interval", cell.ci95, counted, n)
    if cell.survival is not None:
        yield from _contradictions(cell.outcomes, cell.survival)
    for each in cell.candidates:
        yield from _interval_differs(f"the interval of candidate {each.name!r}", each.ci95, each.robust_accuracy * n, n)
    if cell.candidates:
        mean = fsum(each.robust_accuracy for each in cell.candidates) / len(cell.candidates)
        yield from _differs("mean robust accuracy", cell.mean_robust_accuracy, mean, found_by="its candidates make")


def problems(cell: CellRecord, now: Rescored, indices: Sequence[int]) -> Iterator[str]:
    """Yield a sentence for each number or outcome of a cell that is not as re-scored.

    Exact for a deterministic defence; of a randomised one, whose draws are fresh, what its intervals exclude. Where
    part of the images is not there, those that are there are compared, and of all whether they are wrong when clean.

    Args:
        cell: as recorded, with as many outcomes as there are images.
        now: what the defence answers.
        indices: of the images in the test set.
    """
    known = [each.name for each in cell.candidates]
    if known != list(now.candidates):
        yield f"the record has the candidates {', '.join(known)}, the threat model makes {', '.join(now.candidates)}"
        return
    if cell.survival is not None:
        yield from _draws_differ(cell, now, indices)
        return
    yield from _outcomes_differ(cell, now, indices)
    if now.covered.all():
        yield from _counts_differ(cell, now)
        yield from _norms_differ(cell, now)


def left_out_problems(
    cell: CellRecord,
    kept: Mapping[str, Collection[int]],
    evidence: Mapping[str, EvidenceRecord],
    indices: Sequence[int],
) -> Iterator[str]:
    """Yield a sentence for each piece of a cell's evidence that lacks an image with which the cell was broken.

    Args:
        cell: as recorded.
        kept: the rows that are there of each piece kept in part.
        evidence: of the record, by key.
        indices: of the images in the test set.
    """
    for key in (key for key in cell.evidence if key in kept):
        start = evidence[key].chunk * CHUNK_SIZE
        outcomes = cell.outcomes[start : start + CHUNK_SIZE]
        broken = [row for row, outcome in enumerate(outcomes) if outcome in _BROKEN]
        gone = [start + row for row in broken if row not in kept[key]]
        if gone:
            yield (
                f"evidence {key} ({evidence[key].attack} on {evidence[key].target}) lacks image {gone[0]} (number "
                f"{indices[gone[0]]} of the test set), recorded as {cell.outcomes[gone[0]].value}: "
                f"a run keeps every broken one ({_images(len(gone), 'is', 'are')} not there)"
            )


def _outcomes_differ(cell: CellRecord, now: Rescored, indices: Sequence[int]) -> Iterator[str]:
    recorded = np.array([OUTCOMES.index(outcome) for outcome in cell.outcomes])
    clean_errors = recorded == OUTCOMES.index(Outcome.CLEAN_ERROR)
    differing = np.flatnonzero(np.where(now.covered, recorded != now.worst, clean_errors != (now.clean_errors > 0.5)))
    if len(differing):
        first = differing[0]
        before, after = OUTCOMES[recorded[first]].value, OUTCOMES[now.worst[first]].value
        yield (
            f"image {first} (number {indices[first]} of the test set) is recorded as {before}, "
            f"re-scored it is {after} ({_images(len(differing))})"
        )


def _counts_differ(cell: CellRecord, now: Rescored) -> Iterator[str]:
    answered = list(now.candidates.values())
    total = float(now.survival.sum())
    yield from _differs("robust accuracy", cell.robust_accuracy, total / now.n)
    mean = fsum(float(each.survival.mean()) for each in answered) / len(answered)
    yield from _differs("mean robust accuracy", cell.mean_robust_accuracy, mean)
    failed = int(np.any([each.failed for each in answered], axis=0).sum())
    if cell.failed_majorities != failed:
        yield f"{cell.failed_majorities} failed majorities are recorded, re-scored there are {failed}"
    rejected = int(np.any([each.rejected for each in answered], axis=0).sum())
    if cell.abstained != rejected:
        yield f"{cell.abstained} rejected images are recorded, re-scored there are {rejected}"
    for recorded, each in zip(cell.candidates, answered, strict=True):
        yield from _candidate_differs(recorded, each)


def _candidate_differs(recorded: CandidateRecord, now: CandidateAnswers) -> Iterator[str]:
    called = f"candidate {recorded.name!r}"
    yield from _differs(f"robust accuracy under {called}", recorded.robust_accuracy, float(now.survival.mean()))
    if recorded.failed_majorities != int(now.failed.sum()):
        yield f"{called}: {recorded.failed_majorities} failed majorities are recorded, there are {now.failed.sum()}"
    if recorded.abstained != int(now.rejected.sum()):
        yield f"{called}: {recorded.abstained} rejected images are recorded, there are {now.rejected.sum()}"


def _norms_differ(cell: CellRecord, now: Rescored) -> Iterator[str]:
    norms = now.norms_of_lost
    if cell.eps is None and cell.fooling_distances:
        if len(cell.fooling_distances) != now.n:
            yield f"expected {now.n} fooling distances, the record has {len(cell.fooling_distances)}"
            return
        recorded = np.array([np.inf if each is None else each for each in cell.fooling_distances])
        differing = np.flatnonzero(~np.isclose(recorded, norms, rtol=_EQUAL_NORMS, atol=_EQUAL_NORMS))
        if len(differing):
            first = differing[0]
            yield (
                f"image {first} is recorded as lost at norm {recorded[first]:.6g}, "
                f"re-scored it is at {norms[first]:.6g} ({_images(len(differing))})"
            )
    yield from _quantiles_differ(cell, norms[(norms > 0) & np.isfinite(norms)])


def _quantiles_differ(cell: CellRecord, norms: NDArray[np.float64]) -> Iterator[str]:
    recorded = cell.fooling_norms
    if (0 if recorded is None else recorded.n) != len(norms):
        yield f"norms of {recorded.n if recorded else 0} lost images are recorded, re-scored there are {len(norms)}"
    elif recorded is not None:
        quartiles = np.quantile(norms, [0.25, 0.5, 0.75])
        if not np.allclose([recorded.q25, recorded.median, recorded.q75], quartiles, rtol=_EQUAL_NORMS):
            yield f"the quartiles of the norms are not as recorded, re-scored the median is {quartiles[1]:.6g}"


def _draws_differ(cell: CellRecord, now: Rescored, indices: Sequence[int]) -> Iterator[str]:
    assert cell.survival is not None, "only randomised defences have shares of draws"
    if now.covered.all():
        yield from _outside("robust accuracy", cell.robust_accuracy, cell.ci95, float(now.survival.mean()))
        for recorded, each in zip(cell.candidates, now.candidates.values(), strict=True):
            called = f"robust accuracy under candidate {recorded.name!r}"
            yield from _outside(called, recorded.robust_accuracy, recorded.ci95, float(each.survival.mean()))
    shares = np.array(cell.survival)
    turned = (np.abs(shares - now.survival) == 1) & (now.covered | (now.clean_errors == 1))
    if turned.any():
        first = int(np.flatnonzero(turned)[0])
        yield (
            f"image {first} (number {indices[first]} of the test set) is recorded to survive "
            f"{cell.survival[first]:.0%} of the draws, of fresh ones it survives {now.survival[first]:.0%} "
            f"({_images(int(turned.sum()))})"
        )


def _contradictions(outcomes: Sequence[Outcome], shares: Sequence[float]) -> Iterator[str]:
    for image, (outcome, share) in enumerate(zip(outcomes, shares, strict=True)):
        if share == float(not _survived(outcome)):
            yield f"image {image} is recorded as {outcome.value}, and to survive {share:.0%} of the draws"
            return


def _outside(what: str, recorded: float | None, ci95: tuple[float, float] | None, found: float) -> Iterator[str]:
    if ci95 is None or not ci95[0] - _EQUAL <= found <= ci95[1] + _EQUAL:
        yield f"{what} is recorded as {_number(recorded)}, on fresh draws it is {found:.6g}: outside of its interval"


def _differs(what: str, recorded: float | None, found: float, *, found_by: str = "re-scored it is") -> Iterator[str]:
    if recorded is None or not isclose(recorded, found, rel_tol=0, abs_tol=_EQUAL):
        yield f"{what} is recorded as {_number(recorded)}, {found_by} {found:.6g}"


def _interval_differs(what: str, recorded: tuple[float, float] | None, total: float, n: int) -> Iterator[str]:
    low, high = wilson(min(max(total, 0.0), n), n)
    if recorded is None or not (
        isclose(recorded[0], low, rel_tol=0, abs_tol=_EQUAL) and isclose(recorded[1], high, rel_tol=0, abs_tol=_EQUAL)
    ):
        stated = "none" if recorded is None else f"[{recorded[0]:.6g}, {recorded[1]:.6g}]"
        yield f"{what} is recorded as {stated}, {total:.6g} of {n} make it [{low:.6g}, {high:.6g}]"


def _survived(outcome: Outcome) -> bool:
    return OUTCOMES.index(outcome) >= SURVIVES


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _images(count: int, one: str = "differs", many: str = "differ") -> str:
    return f"one image {one}" if count == 1 else f"{count} images {many}"
