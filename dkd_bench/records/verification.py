"""What ``dkd-bench verify`` left beside a run: that it holds, or what does not."""

from __future__ import annotations

from typing import Literal

from dkd_bench.records._base import Record

VERIFICATION = "verification.json"
"""The file, in a run's folder."""


class Verification(Record):
    """The outcome of an audit, bound to the very record that was audited."""

    schema_version: Literal[1] = 1
    results_sha256: str
    """Of the bytes of ``results.json``."""
    findings: tuple[str, ...]
    summary: str
    tolerance: float
    """How far an image may be over its budget, in the budget's own unit."""
    checked: dict[str, int]
    """How many cells, images and pieces of evidence were looked at, and how many outcomes could not be."""
    versions: dict[str, str]
    """Of the libraries that the audit ran with."""
