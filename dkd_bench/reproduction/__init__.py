"""The paper's tables and figures, measured here beside the authors' numbers."""

from dkd_bench.reproduction._record import Block, Entry, Estimate, Reproduction, Row, Source, Trend
from dkd_bench.reproduction._report import render_reproduction, save_reproduction
from dkd_bench.reproduction._study import StudyRequest
from dkd_bench.reproduction._targets import TARGETS, Reproduced, reproduce

__all__ = [
    "TARGETS",
    "Block",
    "Entry",
    "Estimate",
    "Reproduced",
    "Reproduction",
    "Row",
    "Source",
    "StudyRequest",
    "Trend",
    "render_reproduction",
    "reproduce",
    "save_reproduction",
]
