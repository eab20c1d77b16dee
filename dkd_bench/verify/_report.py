"""Report of an audit."""

from __future__ import annotations

from dataclasses import dataclass

from dkd_bench.budget import TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedCell:
    """Numbers of a cell when every candidate image is rounded to 8 bits, as a picture file would keep it."""

    cell: str
    robust_accuracy: float
    """Robust accuracy re-scored on the images as they are, in [0, 1]."""
    rounded_robust_accuracy: float
    changed: int
    """Number of images that survive on one side and not on the other."""

    @property
    def change(self) -> float:
        """Difference that rounding makes to the robust accuracy, in [-1, 1]; positive if it raises it."""
        return self.rounded_robust_accuracy - self.robust_accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Counts of what an audit looked at."""

    cells: int
    """Number of cells re-scored."""
    cells_recorded: int
    images: int
    """Number of images whose outcomes were compared, over all cells."""
    evidence: int
    """Number of chunks of adversarial images."""
    evidence_made_again: int
    """Number of these that the run did not keep, and that were crafted again from their key."""
    evidence_in_part: int
    """Number of these kept for the broken images only: the digest of the whole cannot be taken from them."""
    outcomes_unchecked: int
    """Number of outcomes in the re-scored cells of images whose evidence is not there."""


def summarised(checked: Checked, *, findings: int, other_code: bool) -> str:
    """Return in a sentence what was looked at, what was found, and what that leaves open.

    Args:
        checked: how much was looked at.
        findings: how many there are.
        other_code: whether the run was made by another version of this package.
    """
    found = f"{findings} finding{'' if findings == 1 else 's'}" if findings else "all of it as recorded"
    parts = [
        f"re-scored {checked.cells} of {checked.cells_recorded} cells, "
        f"{checked.images} images against their outcomes: {found}"
    ]
    if checked.evidence_made_again == 1:
        parts.append("1 piece of evidence was not in the run and was made again from its key")
    elif checked.evidence_made_again:
        parts.append(
            f"{checked.evidence_made_again} pieces of evidence were not in the run and were made again from their keys"
        )
    if checked.outcomes_unchecked:
        parts.append(
            f"{checked.outcomes_unchecked} of {checked.images + checked.outcomes_unchecked} outcomes could not be "
            "checked, since only broken images were kept"
        )
    if other_code:
        parts.append("made by other code of dkd-bench than this")
    return "; ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """Findings of an audit."""

    findings: tuple[str, ...]
    """Sentence for each thing that is wrong; empty if all holds."""
    summary: str
    rounded: tuple[RoundedCell, ...]
    """Robust accuracy after rounding, of each cell whose evidence was there whole."""
    checked: Checked
    results_sha256: str
    """Digest of the bytes of the record that was audited."""
    tolerance: float = TOLERANCE
    """Distance by which an image may be over its budget, in the budget's own unit."""
