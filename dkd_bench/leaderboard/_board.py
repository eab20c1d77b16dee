"""Contents of a leaderboard, before it is text: groups of comparable rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dkd_bench.budget import Norm
from dkd_bench.leaderboard._external import PublishedRow
from dkd_bench.records import DetectorRecord, FlagRecord, Fraction, Interval, NormQuantiles, Record, SeparationRecord
from dkd_bench.records.flags import RowStatus

Status = Literal["ok", "error", "not_run"]


class AttackScore(Record):
    """Score of one row against one attack of one threat model."""

    attack: str
    status: Status
    reason: str | None
    """Reason why there is no number; ``None`` where there is one."""
    robust: Interval | None
    """Share of all images that survive, from the outcomes; ``None`` unless ``status`` is ok."""
    mean_over_candidates: Fraction | None
    """Mean over the candidates, over the members for instance; ``None`` where there is only one candidate."""
    failed_majorities: int | None
    abstained: int | None
    accepted: Interval | None
    """Accuracy on the images right when clean and not rejected under attack; ``None`` for a defence that never
    abstains, or if none is left."""
    detectors: tuple[DetectorRecord, ...]
    """Results of each detector on each candidate, of a defence that abstains."""
    fooling_norms: NormQuantiles | None
    flags: tuple[FlagRecord, ...]
    forward_passes: int
    """Number of images that the crafts evaluated; crafts that serve several cells are counted in each."""


class ThreatModelScore(Record):
    """Score of one row against all attacks of one threat model."""

    threat_model: str
    status: Status
    worst: Interval | None
    """Accuracy under the worst of the attacks per image; ``None`` if an attack is missing, or there is no budget."""
    failed_majorities: int | None
    """Number of images for which the worst that happened is a failed majority."""
    abstained: int | None
    """Number of images for which the worst that happened is a reject."""
    attacks: tuple[AttackScore, ...]


class PairedDifference(Record):
    """Difference in survival between a row and another, on the same images."""

    value: float
    """First share less the second, in [-1, 1]."""
    ci95: tuple[float, float]
    p_value: Fraction
    """p-value of McNemar's exact test; of Student's paired t for randomised defences."""


class SeedSpread(Record):
    """Spread of one defence under one decision rule over several trainings: what stays and what was luck."""

    defense: str
    decision: str
    training_seeds: tuple[int, ...]
    mean: Fraction
    """Mean over the seeds of the worst over all threat models."""
    standard_deviation: float
    """Standard deviation between the seeds, of the sample."""
    lowest: Fraction
    highest: Fraction


class Row(Record):
    """One defence of one run, under one decision rule, in one group."""

    rank: int | None
    """Rank: one more than the number of rows that are surely better; ``None`` where the row cannot be compared."""
    behind: PairedDifference | None
    """Difference to the first row; ``None`` for that row itself, and for those without rank."""
    run: str
    defense: str
    title: str
    decision: str
    randomized: bool
    """Whether the shares of draws survived are counted instead of images; ``worst`` takes the least per image."""
    abstains: bool
    status: Status
    missing: str | None
    """Attacks that did not run, and why; ``None`` if all did. A row that misses any is not ranked."""
    clean: Interval | None
    separation: SeparationRecord | None
    """Separation of the members' latents; ``None`` for a single network."""
    worst: Interval | None
    """Accuracy under the worst of all threat models per image; ``None`` if anything is missing, or there is no
    budget."""
    failed_majorities: int | None
    """Number of images for which the worst that happened, over all threat models, is a failed majority."""
    abstained: int | None
    """Number of images for which the worst that happened, over all threat models, is a reject."""
    trust: RowStatus
    """Standing of the row with its flags; only accepted rows rank."""
    flags: tuple[FlagRecord, ...]
    """Reasons not to believe the row."""
    clean_rejected: Interval | None
    """Share of clean images rejected; ``None`` for a defence that never abstains."""
    clean_accepted: Fraction | None
    """Accuracy on the clean images that are not rejected; ``None`` as above, or if none is left."""
    surrogates: tuple[str, ...]
    """Stand-ins for the whole that the adversary who sees it attacked."""
    threat_models: tuple[ThreatModelScore, ...]


class Group(Record):
    """Rows that were measured alike: the same images, attacks and budget."""

    dataset: str
    dataset_digest: str
    indices_digest: str
    n: int
    suite_fingerprint: str
    norm: Norm
    eps: float | None
    """Budget in [0, 1] pixel units, in l0 a number of values; ``None`` without one: such a group ranks nothing."""
    environment: str | None = None
    """Environment that computed the group, where a board keeps environments apart."""
    threat_models: tuple[str, ...]
    attacks: tuple[str, ...]
    rows: tuple[Row, ...]
    seed_spreads: tuple[SeedSpread, ...]
    """Spreads of what was trained under several seeds, by ``--training-seed``."""


class RunSummary(Record):
    """Everything that it takes to make a run again."""

    label: str
    complete: bool
    dataset: str
    dataset_digest: str
    indices_digest: str
    n: int
    suite_fingerprint: str
    plan_digest: str
    seed: int
    training_seed: int | None = None
    """Seed of the defences' training, where it is not ``seed``."""
    recipe: str
    device: str
    versions: dict[str, str]
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment that may change rounding and training without being part of the attacks; of older records what they
    tell."""
    command: str


class Board(Record):
    """A leaderboard: the runs it rests on, and their rows in groups."""

    schema_version: Literal[1] = 1
    runs: tuple[RunSummary, ...]
    groups: tuple[Group, ...]
    published: tuple[PublishedRow, ...] = ()
    """Rows of others, measured elsewhere; never ranked among these."""
