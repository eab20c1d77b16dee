"""The record of a run, as it stands in ``results.json``: frozen, versioned, no NaN, one outcome per image."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dkd_bench.budget import Norm
from dkd_bench.records._base import Fraction, Interval, Record
from dkd_bench.records._key import CellKey
from dkd_bench.records._outcomes import ImageOutcomes, Outcome

SCHEMA_VERSION: Literal[1] = 1


class FlagRecord(Record):
    """A flag that was raised, with what was seen; ``dkd_bench.records.flags`` says what it means."""

    name: str
    """One of ``dkd_bench.records.flags``."""
    detail: str
    """What was seen, with its numbers."""
    share: Fraction | None = None
    """Of the images looked at; ``None`` where no images are counted."""


class CandidateRecord(Record):
    """How a defence stood against one of the images that a threat model offers: a member's, a magnitude's."""

    name: str
    robust_accuracy: Fraction
    ci95: tuple[Fraction, Fraction]
    failed_majorities: int
    abstained: int


class NormQuantiles(Record):
    """The norms at which images were fooled: [0, 1] pixel units, or values changed in l0."""

    n: int
    q25: float
    median: float
    q75: float


class DetectorRecord(Record):
    """How well one detector tells the images of one candidate from clean ones."""

    detector: str
    candidate: str
    n_clean: int
    n_adversarial: int
    """Candidate images that differ from the clean ones."""
    false_positive_rate: Fraction
    """Clean images rejected, at the deployed threshold."""
    true_positive_rate: Fraction
    """Adversarial images rejected, at the deployed threshold."""
    auc: Fraction
    """Area under the ROC curve: 0.5 for a detector that sees nothing."""
    roc: tuple[tuple[Fraction, Fraction], ...]
    """False and true positive rates over all thresholds, thinned."""


class CellRecord(Record):
    """One defence under one decision rule, threat model, attack and budget."""

    defense: str
    decision: str
    dataset: str
    threat_model: str
    attack: str
    norm: Norm
    eps: float | None
    """``None`` for a minimum-norm attack without budget."""
    n: int
    clean_accuracy: Fraction | None
    robust_accuracy: Fraction | None
    """Over all ``n`` images, the worst candidate per image; ``None`` unless ``status`` is ok."""
    mean_robust_accuracy: Fraction | None
    """The mean over the candidates: over the members, for the standalone threat model."""
    ci95: tuple[Fraction, Fraction] | None
    failed_majorities: int | None
    """Images on which the vote failed for at least one candidate."""
    abstained: int | None
    """Images that were rejected for at least one candidate."""
    status: Literal["ok", "error", "not_run"]
    reason: str | None = None
    """Why there is no number; ``None`` where there is one."""
    flags: tuple[FlagRecord, ...] = ()
    """Why this number is not to be believed."""
    wall_time_s: float
    """Of the crafts, when they were made: shared by all cells that use them."""
    forward_passes: int
    """Images that the crafts evaluated, when they were made."""
    evidence: tuple[str, ...]
    """Keys of the crafts, chunk by chunk for each target in turn."""
    fooling_norms: NormQuantiles | None
    fooling_distances: tuple[float | None, ...] = ()
    """Without budget, for each image the smallest norm at which it was got wrong: 0 if it was wrong when clean,
    ``None`` if it never was. Empty within a budget."""
    outcomes: tuple[Outcome, ...]
    """One for each image, in the order of the manifest's indices."""
    survival: tuple[Fraction, ...] | None = None
    """For a randomised defence, the share of draws each image survived."""
    candidates: tuple[CandidateRecord, ...]
    detectors: tuple[DetectorRecord, ...] = ()
    """Of a defence that abstains, for each candidate and detector."""

    @property
    def key(self) -> CellKey:
        """What tells the cell from all others of a run."""
        return CellKey(
            defense=self.defense,
            decision=self.decision,
            dataset=self.dataset,
            threat_model=self.threat_model,
            attack=self.attack,
            norm=self.norm,
            eps=self.eps,
        )

    @property
    def image_outcomes(self) -> ImageOutcomes:
        """What became of each image; of no image unless ``status`` is ok."""
        return ImageOutcomes(outcomes=self.outcomes, survival=self.survival)

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """The share of draws that each image survived; 0 or 1 for a deterministic defence."""
        return self.image_outcomes.shares


class EvidenceRecord(Record):
    """One craft: the adversarial images of one attack on one target for one chunk of images."""

    sha256: str
    """Of the images' bytes, shape and type."""
    target: str
    attack: str
    norm: Norm
    eps: float | None
    chunk: int
    n: int
    broken: int | None = None
    """Images that the target itself got wrong; ``None`` in records of older versions."""


class SeparationRecord(Record):
    """How far apart the members' latents lie (LSS, Eq. 5 and 6), on the whole test set."""

    layer: str
    n: int
    """Images, each with one latent for every member."""
    dimension: int
    margin: float | None
    """Mean over the members of the hard margin between a member's latents and all others'; ``None`` where some
    member's are not linearly separable from the rest, or too few or too many to tell."""
    scaled_margin: float | None
    """The same in units of the latents' RMS radius: comparable between latents of unlike scale."""
    reason: str | None
    """Why there is no margin."""


class DefenseRecord(Record):
    """The trained defence that was attacked."""

    title: str
    settings: dict[str, Any]
    weights_key: str
    weights_sha256: str
    clean_accuracy: dict[str, Interval]
    """On the run's images, by decision rule."""
    test_set_accuracy: dict[str, Fraction] = Field(default_factory=dict)
    """On the whole test set, by decision rule; on its first 1,000 images for a defence that optimises inside."""
    separation: SeparationRecord | None = None
    """Of an ensemble; ``None`` for a single network, and where members have no such layer."""
    randomized: bool
    abstains: bool
    access: tuple[str, ...] = ("gradients",)
    """What its surrogates offer to attacks; rows that offer the same stand the same attacks."""
    optimizes: bool = False
    """It searches by gradients at test time."""
    flags: tuple[FlagRecord, ...] = ()
    """What the probe found, and what the run left out."""
    deployed: str | None = None
    """The decision rule by which it answers; ``None`` in records of older versions, where it is the cells' last."""
    clean_rejected: dict[str, Interval] = Field(default_factory=dict)
    """The share of the run's clean images that are rejected, by decision rule; empty if the defence never abstains."""


class DatasetRecord(Record):
    """The images of the run."""

    name: str
    digest: str
    n: int
    n_test: int | None = None
    """Images in the whole test set; ``None`` in records of older versions."""
    indices: tuple[int, ...]
    """Positions in the test set, in the order of all outcomes."""


class Manifest(Record):
    """What it takes to make the run again."""

    versions: dict[str, str]
    device: str
    environment: dict[str, str] = Field(default_factory=dict)
    """What the run computed with, beside libraries and device; empty in records of older versions."""
    seed: int
    training_seed: int | None = None
    """Of the defences' training, where it is not ``seed``."""
    recipe: str
    dataset: DatasetRecord
    defenses: dict[str, DefenseRecord]
    plan_digest: str
    request: dict[str, Any]
    command: str

    @property
    def seed_of_training(self) -> int:
        """The seed that the defences were trained with."""
        return self.seed if self.training_seed is None else self.training_seed


class RunRecord(Record):
    """A whole run."""

    schema_version: Literal[1] = SCHEMA_VERSION
    complete: bool
    """Nothing failed and nothing was left undone; a cell that no attack applies to is not_run and says why."""
    suite: dict[str, Any]
    suite_fingerprint: str
    manifest: Manifest
    evidence: dict[str, EvidenceRecord]
    cells: tuple[CellRecord, ...] = Field(min_length=1)
