"""Report of a check: a verdict for each cell of the reference."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import PlainSerializer, PlainValidator

from dkd_bench.errors import ExitCode, Sentence
from dkd_bench.records import CellKey, Fraction, Record

Verdict = Literal["same", "improved", "regressed", "attack changed", "not comparable", "missing"]
VERDICTS: tuple[Verdict, ...] = ("regressed", "missing", "not comparable", "attack changed", "improved", "same")
"""Verdicts, worst first."""

Side = Literal["attack", "defense", "unknown"]
"""Side, defence or attack, that differs from the reference."""

REPORT_VERSION: Literal[1] = 1


def _sentence(text: str) -> Sentence:
    """Keep a sentence, which pydantic would make a plain text."""
    return text if isinstance(text, Sentence) else Sentence(text)


class CellVerdict(Record):
    """Verdict on one cell of the reference."""

    key: CellKey
    verdict: Verdict
    detail: Annotated[Sentence, PlainValidator(_sentence), PlainSerializer(str)]
    """Why, where the numbers do not say it."""
    moved: Side | None = None
    """Side that is weaker or stronger, where the attack changed."""
    old_evidence_before: Fraction | None = None
    """Accuracy of the reference on its evidence, where the attack changed and that evidence was replayed."""
    old_evidence_now: Fraction | None = None
    """Accuracy of the new defence on the same evidence."""
    n: int
    """Number of images of the reference."""
    reference_accuracy: Fraction | None = None
    """Accuracy of the run of the reference that is nearest to the new one, in [0, 1]."""
    new_accuracy: Fraction | None = None
    difference: float | None = None
    """Accuracy of the new run less the reference's, image by image, in [-1, 1]."""
    ci95: tuple[float, float] | None = None
    p_value: float | None = None
    """p-value, exact, of the new run surviving less, or more where it improved. Where the attack changed and the old
    evidence was replayed, of the new defence surviving less of it."""
    p_corrected: float | None = None
    """p-value corrected by Holm's method, over all cells that were compared, or replayed."""

    @property
    def regressed(self) -> bool:
        """Whether the defence is weaker: found so on equal terms, or on the old evidence."""
        return self.verdict == "regressed" or self.moved == "defense"

    @property
    def unchecked(self) -> bool:
        """Whether nothing was compared, so that the defence may be weaker and nobody knows."""
        return self.verdict in ("missing", "not comparable") or self.moved == "unknown"


class CheckReport(Record):
    """Comparison of a run with a reference."""

    schema_version: Literal[1] = REPORT_VERSION
    alpha: float
    tolerance: float
    cells: tuple[CellVerdict, ...]
    """Verdict on each cell of the reference, in its order."""
    new_cells: tuple[CellKey, ...] = ()
    """Cells of the run that the reference does not have; they count for nothing."""
    environment: tuple[str, ...] = ()
    """Differences of the environment from that of every run of the reference, such as 'torch 2.15.0 to 2.14.1'."""
    warnings: tuple[str, ...] = ()
    """Sentences to read before believing the verdicts; no verdict changes for them."""

    @property
    def regressed(self) -> bool:
        """Whether any cell regressed."""
        return any(cell.regressed for cell in self.cells)

    @property
    def environment_note(self) -> str:
        """Sentence on ``environment``; empty where nothing of it changed."""
        return f"the environment changed too: {', '.join(self.environment)}" if self.environment else ""

    @property
    def exit_code(self) -> ExitCode:
        """Exit status: 1 if a cell regressed, else 3 if one was not compared with anything, else 0."""
        if self.regressed:
            return ExitCode.CHECK_FAILED
        return ExitCode.INCOMPLETE if any(cell.unchecked for cell in self.cells) else ExitCode.DONE
