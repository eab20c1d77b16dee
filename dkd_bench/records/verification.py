"""Outcome of ``dkd-bench verify``, as kept beside a run: that the record holds, or what does not."""

from __future__ import annotations

from typing import Literal

from dkd_bench.records._base import Record

VERIFICATION = "verification.json"
"""Name of the file in a run's folder."""


class Verification(Record):
    """The outcome of an audit, bound to the very record that was audited."""

    schema_version: Literal[1] = 1
    results_sha256: str
    """Digest of the bytes of ``results.json``."""
    findings: tuple[str, ...]
    summary: str
    tolerance: float
    """Distance by which an image may be over its budget, in the budget's own unit."""
    checked: dict[str, int]
    """Numbers of cells, images and pieces of evidence looked at, and of outcomes that could not be."""
    versions: dict[str, str]
    """Versions of the libraries that the audit ran with."""
