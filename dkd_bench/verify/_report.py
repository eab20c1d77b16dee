"""What an audit of a run has to say."""

from __future__ import annotations

from dataclasses import dataclass

from dkd_bench.budget import TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedCell:
    """A cell when every candidate image is rounded to 8 bits, as a picture file would keep it."""

    cell: str
    robust_accuracy: float
    """Re-scored, of the images as they are."""
    rounded_robust_accuracy: float
    changed: int
    """Images that survive on one side and not on the other."""

    @property
    def change(self) -> float:
        """By how much rounding raises the robust accuracy."""
        return self.rounded_robust_accuracy - self.robust_accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How much an audit looked at."""

    cells: int
    """Re-scored."""
    cells_recorded: int
    images: int
    """Whose outcomes were compared, over all cells."""
    evidence: int
    """Chunks of adversarial images."""
    evidence_made_again: int
    """Of these, not kept by the run, and crafted again from their key."""
    evidence_in_part: int
    """Of these, kept for the broken images only: the digest of the whole cannot be taken from them."""
    outcomes_unchecked: int
    """Of the re-scored cells, of images whose evidence is not there."""


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
    """What an audit found."""

    findings: tuple[str, ...]
    """One sentence for each thing that is wrong; empty if all holds."""
    summary: str
    rounded: tuple[RoundedCell, ...]
    """Of each cell whose evidence was there whole."""
    checked: Checked
    results_sha256: str
    """Of the bytes of the record that was audited."""
    tolerance: float = TOLERANCE
    """How far an image may be over its budget, in the budget's own unit."""
