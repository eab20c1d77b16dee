"""Records of a reference, as they stand in the committed file: outcomes as bit sets, digests, no images."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from dkd_bench.check._outcomes import unpacked
from dkd_bench.records import CellKey, Fraction, Record

REFERENCE_VERSION: Literal[1] = 1


class ReferenceDefense(Record):
    """Defence of one run of the reference."""

    weights_sha256: str
    """Digest of structure, code and weights."""
    flags: tuple[str, ...]
    """Names of the flags that it raised, in alphabetical order."""


class ReferenceRun(Record):
    """Run that the reference was made of."""

    command: str
    request: dict[str, Any]
    versions: dict[str, str]
    device: str
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment that computed it, beside libraries and device; empty in references of older versions."""
    plan_digest: str
    suite_fingerprint: str
    defenses: dict[str, ReferenceDefense]
    evidence: tuple[tuple[str, str], ...]
    """Key and SHA-256 of each craft."""


class RecordedOutcomes(Record):
    """Outcomes of one run in one cell."""

    survived: str
    """Survival of each image in base64: one bit each; of a randomised defence one byte, the number of draws
    survived."""
    evidence: tuple[tuple[int, ...], ...]
    """Positions of the crafts in the run's ``evidence``, for each target in turn, chunk by chunk."""


class ReferenceCell(Record):
    """Cell as the runs of the reference found it."""

    key: CellKey
    attack_digest: str
    """Digest of all that determines the attack, whatever else was in its suite."""
    draws: int = Field(ge=1, le=255)
    """Number of draws; 1 for a defence that is not randomised."""
    runs: tuple[RecordedOutcomes, ...]
    """Outcomes of each run of the reference, in its order."""


class ReferenceDataset(Record):
    """Images of all runs of a reference."""

    name: str
    digest: str
    n: int = Field(ge=1)
    indices_sha256: str
    """Digest of their positions in the test set, in the order of all outcomes."""


class Reference(Record):
    """Reference for later runs: one run, or several that differ in their training seed alone."""

    schema_version: Literal[1] = REFERENCE_VERSION
    dataset: ReferenceDataset
    runs: tuple[ReferenceRun, ...] = Field(min_length=1)
    cells: tuple[ReferenceCell, ...] = Field(min_length=1)
    digest: str
    """Digest of everything else in here."""

    @model_validator(mode="after")
    def _whole(self) -> Reference:
        keys = [cell.key for cell in self.cells]
        if len(set(keys)) < len(keys):
            raise ValueError(f"the cell {first_repeated(keys)} stands in it twice")
        for cell in self.cells:
            if len(cell.runs) != len(self.runs):
                raise ValueError(f"the cell {cell.key} must have {len(self.runs)} runs, has {len(cell.runs)}")
            for run, recorded in zip(self.runs, cell.runs, strict=True):
                unpacked(recorded.survived, n=self.dataset.n, draws=cell.draws)
                if any(not 0 <= place < len(run.evidence) for places in recorded.evidence for place in places):
                    raise ValueError(f"the cell {cell.key} names evidence that is not in it")
                if len({len(places) for places in recorded.evidence}) > 1:
                    raise ValueError(f"the cell {cell.key} has more chunks on one target than on another")
        return self

    def shares(self, cell: ReferenceCell) -> tuple[tuple[Fraction, ...], ...]:
        """Return for each run the share of draws that each image survived: 0 or 1 where there is one draw."""
        return tuple(unpacked(each.survived, n=self.dataset.n, draws=cell.draws) for each in cell.runs)


def first_repeated(keys: list[CellKey]) -> CellKey:
    """Return the first key that is in ``keys`` again."""
    return next(key for position, key in enumerate(keys) if key in keys[:position])
