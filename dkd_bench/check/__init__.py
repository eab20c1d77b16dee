"""Regression check: a run compared with a small committed reference, cell by cell, paired by image."""

from dkd_bench.check._check import check_run, make_reference, save_check
from dkd_bench.check._compare import Replay, compare
from dkd_bench.check._decide import Decision, Rule, Sample, decide, holm
from dkd_bench.check._records import Reference, ReferenceCell
from dkd_bench.check._reference import load_reference, reference_from, save_reference
from dkd_bench.check._render import CheckFormat, render_check
from dkd_bench.check._replay import EvidenceReplay
from dkd_bench.check._report import CellVerdict, CheckReport
from dkd_bench.steps.request import CheckRequest

__all__ = [
    "CellVerdict",
    "CheckFormat",
    "CheckReport",
    "CheckRequest",
    "Decision",
    "EvidenceReplay",
    "Reference",
    "ReferenceCell",
    "Replay",
    "Rule",
    "Sample",
    "check_run",
    "compare",
    "decide",
    "holm",
    "load_reference",
    "make_reference",
    "reference_from",
    "render_check",
    "save_check",
    "save_reference",
]
