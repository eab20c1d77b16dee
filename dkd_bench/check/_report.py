"""What a check found: a verdict for each cell of the reference."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import PlainSerializer, PlainValidator

from dkd_bench.errors import ExitCode, Sentence
from dkd_bench.records import CellKey, Fraction, Record

Verdict = Literal["same", "improved", "regressed", "attack changed", "not comparable", "missing"]
VERDICTS: tuple[Verdict, ...] = ("regressed", "missing", "not comparable", "attack changed", "improved", "same")
"""Worst first."""

Side = Literal["attack", "defense", "unknown"]
"""Which of the two is another one than in the reference."""

REPORT_VERSION: Literal[1] = 1


def _sentence(text: str) -> Sentence:
    """Keep a sentence, which pydantic would make a plain text."""
    return text if isinstance(text, Sentence) else Sentence(text)


class CellVerdict(Record):
    """What became of one cell of the reference."""

    key: CellKey
    verdict: Verdict
    detail: Annotated[Sentence, PlainValidator(_sentence), PlainSerializer(str)]
    """Why, where the numbers do not say it."""
    moved: Side | None = None
    """Where the attack changed: what is weaker or stronger for it."""
    old_evidence_before: Fraction | None = None
    """Where the attack changed and the old evidence was replayed: the reference's accuracy on it."""
    old_evidence_now: Fraction | None = None
    """The new defence's accuracy on it."""
    n: int
    """Images of the reference."""
    reference_accuracy: Fraction | None = None
    """Of the run of the reference that is nearest to the new one."""
    new_accuracy: Fraction | None = None
    difference: float | None = None
    """The new less the reference's, image by image."""
    ci95: tuple[float, float] | None = None
    p_value: float | None = None
    """That the new run survives less, exact; that it survives more, where it improved. Where the attack changed and
    the old evidence was replayed, that the new defence survives less of it."""
    p_corrected: float | None = None
    """By Holm's method, over all cells that were compared, or replayed."""

    @property
    def regressed(self) -> bool:
        """Whether the defence is weaker: found so on equal terms, or on the old evidence."""
        return self.verdict == "regressed" or self.moved == "defense"

    @property
    def unchecked(self) -> bool:
        """Whether nothing was compared, so that the defence may be weaker and nobody knows."""
        return self.verdict in ("missing", "not comparable") or self.moved == "unknown"


class CheckReport(Record):
    """A run held against a reference."""

    schema_version: Literal[1] = REPORT_VERSION
    alpha: float
    tolerance: float
    cells: tuple[CellVerdict, ...]
    """One for each cell of the reference, in its order."""
    new_cells: tuple[CellKey, ...] = ()
    """Cells of the run that the reference does not have; they count for nothing."""
    environment: tuple[str, ...] = ()
    """What of the environment is otherwise than in every run of the reference, such as 'torch 2.15.0 to 2.14.1'."""
    warnings: tuple[str, ...] = ()
    """What to read before believing the verdicts; no verdict changes for it."""

    @property
    def regressed(self) -> bool:
        """Whether any cell regressed."""
        return any(cell.regressed for cell in self.cells)

    @property
    def environment_note(self) -> str:
        """The sentence on ``environment``; empty where nothing of it changed."""
        return f"the environment changed too: {', '.join(self.environment)}" if self.environment else ""

    @property
    def exit_code(self) -> ExitCode:
        """1 if a cell regressed, else 3 if one was not compared with anything, else 0."""
        if self.regressed:
            return ExitCode.CHECK_FAILED
        return ExitCode.INCOMPLETE if any(cell.unchecked for cell in self.cells) else ExitCode.DONE
