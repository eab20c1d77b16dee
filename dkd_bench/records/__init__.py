"""Records of a run, frozen and versioned."""

from dkd_bench.records._base import Fraction, Interval, Record
from dkd_bench.records._key import CellKey
from dkd_bench.records._outcomes import (
    BROKEN,
    SURVIVED,
    WORST_FIRST,
    ImageOutcomes,
    Outcome,
    worst_of,
    worst_outcome,
)
from dkd_bench.records._run import (
    SCHEMA_VERSION,
    CandidateRecord,
    CellRecord,
    DatasetRecord,
    DefenseRecord,
    DetectorRecord,
    EvidenceRecord,
    FlagRecord,
    Manifest,
    NormQuantiles,
    RunRecord,
    SeparationRecord,
)

__all__ = [
    "BROKEN",
    "SCHEMA_VERSION",
    "SURVIVED",
    "WORST_FIRST",
    "CandidateRecord",
    "CellKey",
    "CellRecord",
    "DatasetRecord",
    "DefenseRecord",
    "DetectorRecord",
    "EvidenceRecord",
    "FlagRecord",
    "Fraction",
    "ImageOutcomes",
    "Interval",
    "Manifest",
    "NormQuantiles",
    "Outcome",
    "Record",
    "RunRecord",
    "SeparationRecord",
    "worst_of",
    "worst_outcome",
]
