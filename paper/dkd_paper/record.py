"""What a reproduction measured, beside what the paper reports, as it stands in its JSON file."""

from __future__ import annotations

from typing import Literal

from dkd_bench.leaderboard import RunSummary
from dkd_bench.records import Fraction, Record

Unit = Literal["percent", "percentage points", "per 10,000", "margin"]
"""How a block's numbers are shown; they are kept as fractions, or as margins in the latents' units."""

Verdict = Literal["confirmed", "contradicted", "not decided"]
"""``not decided`` where there was nothing to compare."""


class Estimate(Record):
    """A number measured under one seed or several."""

    value: float
    """The mean over the seeds."""
    ci95: tuple[float, float] | None
    """Wilson interval for ``n`` images at the mean; ``None`` for what is no share of images."""
    n: int
    """Images for each seed."""
    by_seed: tuple[float, ...]
    spread: float | None
    """Standard deviation over the seeds; ``None`` for a single one."""


class Entry(Record):
    """One number of a table."""

    measured: Estimate | None
    """``None`` where nothing was measured."""
    paper: Fraction | None
    """The authors' number; ``None`` where they give none."""


class Row(Record):
    """One line of a table."""

    label: str
    entries: tuple[Entry, ...]
    """In the order of the block's columns."""


class Block(Record):
    """One table."""

    title: str
    unit: Unit
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


class Trend(Record):
    """What the paper says of its numbers, held against ours."""

    claim: str
    verdict: Verdict
    evidence: str


class Source(Record):
    """One run that the numbers come from."""

    part: str
    run: RunSummary
    weights_sha256: dict[str, str]
    """By defence."""


class Reproduction(Record):
    """One of the paper's tables or figures, measured."""

    schema_version: Literal[1] = 1
    target: str
    title: str
    dataset: str
    paper_dataset: str
    """Whose numbers stand beside ours."""
    seeds: tuple[int, ...]
    command: str
    blocks: tuple[Block, ...]
    trends: tuple[Trend, ...]
    notes: tuple[str, ...]
    picture: str | None = None
    """The file beside this one that shows it; ``None`` for a table."""
    picture_sha256: str | None = None
    sources: tuple[Source, ...]
