"""What a leaderboard says, before it is text: groups of comparable rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dkd_bench.budget import Norm
from dkd_bench.leaderboard._external import PublishedRow
from dkd_bench.records import DetectorRecord, FlagRecord, Fraction, Interval, NormQuantiles, Record, SeparationRecord
from dkd_bench.records.flags import RowStatus

Status = Literal["ok", "error", "not_run"]


class AttackScore(Record):
    """How one row stood against one attack of one threat model."""

    attack: str
    status: Status
    reason: str | None
    """Why there is no number; ``None`` where there is one."""
    robust: Interval | None
    """Over all images, from the outcomes; ``None`` unless ``status`` is ok."""
    mean_over_candidates: Fraction | None
    """Over the members, for instance; ``None`` where there is only one candidate."""
    failed_majorities: int | None
    abstained: int | None
    accepted: Interval | None
    """Of the images right when clean and not rejected under attack, those still right; ``None`` for a defence that
    never abstains, or if none is left."""
    detectors: tuple[DetectorRecord, ...]
    """Of a defence that abstains, for each candidate and detector."""
    fooling_norms: NormQuantiles | None
    flags: tuple[FlagRecord, ...]
    forward_passes: int
    """Images that the crafts evaluated; crafts that serve several cells are counted in each."""


class ThreatModelScore(Record):
    """How one row stood against all attacks of one threat model."""

    threat_model: str
    status: Status
    worst: Interval | None
    """Per image the worst over the attacks; ``None`` if an attack is missing, or there is no budget."""
    failed_majorities: int | None
    """Images for which the worst that happened is a failed majority."""
    abstained: int | None
    """Images for which the worst that happened is a reject."""
    attacks: tuple[AttackScore, ...]


class PairedDifference(Record):
    """How much more, or less, a row survives than another, on the same images."""

    value: float
    """In [-1, 1]."""
    ci95: tuple[float, float]
    p_value: Fraction
    """Of McNemar's exact test; of Student's paired t for randomised defences."""


class SeedSpread(Record):
    """One defence under one decision rule, trained several times: what stays and what was luck."""

    defense: str
    decision: str
    training_seeds: tuple[int, ...]
    mean: Fraction
    """Of the worst over all threat models."""
    standard_deviation: float
    """Between the seeds, of the sample."""
    lowest: Fraction
    highest: Fraction


class Row(Record):
    """One defence of one run, under one decision rule, in one group."""

    rank: int | None
    """One more than the number of rows that are surely better; ``None`` where the row cannot be compared."""
    behind: PairedDifference | None
    """To the first row; ``None`` for that row itself, and for those without rank."""
    run: str
    defense: str
    title: str
    decision: str
    randomized: bool
    """The shares of draws survived are counted instead of images; ``worst`` takes the least per image."""
    abstains: bool
    status: Status
    missing: str | None
    """Which attacks did not run, and why; ``None`` if all did. A row that misses any is not ranked."""
    clean: Interval | None
    separation: SeparationRecord | None
    """How far apart the members' latents lie; ``None`` for a single network."""
    worst: Interval | None
    """Per image the worst over all threat models; ``None`` if anything is missing, or there is no budget."""
    failed_majorities: int | None
    """Images for which the worst that happened, over all threat models, is a failed majority."""
    abstained: int | None
    """Images for which the worst that happened, over all threat models, is a reject."""
    trust: RowStatus
    """What becomes of the row with its flags; only accepted rows rank."""
    flags: tuple[FlagRecord, ...]
    """Why the row is not to be believed."""
    clean_rejected: Interval | None
    """Clean images rejected; ``None`` for a defence that never abstains."""
    clean_accepted: Fraction | None
    """Of the clean images that are not rejected, those answered right; ``None`` as above, or if none is left."""
    surrogates: tuple[str, ...]
    """The stand-ins for the whole that the adversary who sees it attacked."""
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
    """``None`` where attacks went as far as they needed: such a group ranks nothing."""
    environment: str | None = None
    """What computed the group, where a board keeps environments apart."""
    threat_models: tuple[str, ...]
    attacks: tuple[str, ...]
    rows: tuple[Row, ...]
    seed_spreads: tuple[SeedSpread, ...]
    """Of what was trained under several seeds, by ``--training-seed``."""


class RunSummary(Record):
    """What it takes to make a run again."""

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
    """Where it is not ``seed``."""
    recipe: str
    device: str
    versions: dict[str, str]
    environment: dict[str, str] = Field(default_factory=dict)
    """What may round and train otherwise without being part of the attacks; of older records what they tell."""
    command: str


class Board(Record):
    """A leaderboard: the runs it rests on, and their rows in groups."""

    schema_version: Literal[1] = 1
    runs: tuple[RunSummary, ...]
    groups: tuple[Group, ...]
    published: tuple[PublishedRow, ...] = ()
    """Rows of others, measured elsewhere; never ranked among these."""
