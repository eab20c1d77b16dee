"""Record of a reproduction, as it stands in its JSON file: measured numbers, beside what the paper reports."""

from __future__ import annotations

from typing import Literal

from dkd_bench.leaderboard import RunSummary
from dkd_bench.records import Fraction, Record

Unit = Literal["percent", "percentage points", "per 10,000", "margin"]
"""Unit of a block's numbers when shown; they are kept as fractions, or as margins in the latents' units."""

Verdict = Literal["confirmed", "contradicted", "not decided"]
"""Verdict on a claim; ``not decided`` where there was nothing to compare."""


class Estimate(Record):
    """Number measured under one seed or several."""

    value: float
    """Mean over the seeds."""
    ci95: tuple[float, float] | None
    """Wilson interval for ``n`` images at the mean; ``None`` for what is no share of images."""
    n: int
    """Number of images for each seed."""
    by_seed: tuple[float, ...]
    spread: float | None
    """Standard deviation over the seeds; ``None`` for a single one."""


class Entry(Record):
    """Number of a table, ours beside the paper's."""

    measured: Estimate | None
    """Estimate of ours; ``None`` where nothing was measured."""
    paper: Fraction | None
    """Number of the authors; ``None`` where they give none."""


class Row(Record):
    """One line of a table."""

    label: str
    entries: tuple[Entry, ...]
    """Entries in the order of the block's columns."""


class Block(Record):
    """One table."""

    title: str
    unit: Unit
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


class Trend(Record):
    """Claim of the paper on its numbers, held against ours."""

    claim: str
    verdict: Verdict
    evidence: str


class Source(Record):
    """Run that the numbers come from."""

    part: str
    run: RunSummary
    weights_sha256: dict[str, str]
    """Digests of the weights, by defence."""


class Reproduction(Record):
    """One of the paper's tables or figures, measured."""

    schema_version: Literal[1] = 1
    target: str
    title: str
    dataset: str
    paper_dataset: str
    """Dataset of the paper whose numbers stand beside ours."""
    seeds: tuple[int, ...]
    command: str
    blocks: tuple[Block, ...]
    trends: tuple[Trend, ...]
    notes: tuple[str, ...]
    picture: str | None = None
    """Name of the file beside this one with the picture; ``None`` for a table."""
    picture_sha256: str | None = None
    sources: tuple[Source, ...]
