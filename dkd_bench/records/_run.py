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
    """Name of the flag, one of ``dkd_bench.records.flags``."""
    detail: str
    """Observation that raised the flag, with its numbers."""
    share: Fraction | None = None
    """Share of the images looked at, in [0, 1]; ``None`` where no images are counted."""


class CandidateRecord(Record):
    """Result of a defence against one of the images that a threat model offers: a member's, a magnitude's."""

    name: str
    robust_accuracy: Fraction
    ci95: tuple[Fraction, Fraction]
    failed_majorities: int
    abstained: int


class NormQuantiles(Record):
    """Quantiles of the norms at which images were fooled: [0, 1] pixel units, or values changed in l0."""

    n: int
    q25: float
    median: float
    q75: float


class DetectorRecord(Record):
    """Performance of one detector in telling the images of one candidate from clean ones."""

    detector: str
    candidate: str
    n_clean: int
    n_adversarial: int
    """Number of candidate images that differ from the clean ones."""
    false_positive_rate: Fraction
    """Share of clean images rejected, at the deployed threshold."""
    true_positive_rate: Fraction
    """Share of adversarial images rejected, at the deployed threshold."""
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
    """Budget in [0, 1] pixel units, in l0 a number of values; ``None`` for a minimum-norm attack without budget."""
    n: int
    clean_accuracy: Fraction | None
    robust_accuracy: Fraction | None
    """Share of all ``n`` images that survive the worst candidate; ``None`` unless ``status`` is ok."""
    mean_robust_accuracy: Fraction | None
    """Mean of the candidates' robust accuracies: over the members, for the standalone threat model."""
    ci95: tuple[Fraction, Fraction] | None
    failed_majorities: int | None
    """Number of images on which the vote failed for at least one candidate."""
    abstained: int | None
    """Number of images that were rejected for at least one candidate."""
    status: Literal["ok", "error", "not_run"]
    reason: str | None = None
    """Reason why there is no number; ``None`` where there is one."""
    flags: tuple[FlagRecord, ...] = ()
    """Reasons not to believe this number."""
    wall_time_s: float
    """Seconds that the crafts took when they were made: shared by all cells that use them."""
    forward_passes: int
    """Number of images that the crafts evaluated, when they were made."""
    evidence: tuple[str, ...]
    """Keys of the crafts, chunk by chunk for each target in turn."""
    fooling_norms: NormQuantiles | None
    fooling_distances: tuple[float | None, ...] = ()
    """Smallest norm at which each image is fooled, in a cell without budget: 0 if it was wrong when clean, ``None`` if
    it never was fooled. Empty within a budget."""
    outcomes: tuple[Outcome, ...]
    """Outcome of each image, in the order of the manifest's indices."""
    survival: tuple[Fraction, ...] | None = None
    """Share of draws that each image survived, of a randomised defence; ``None`` of any other."""
    candidates: tuple[CandidateRecord, ...]
    detectors: tuple[DetectorRecord, ...] = ()
    """Results of each detector on each candidate; empty unless the defence abstains."""

    @property
    def key(self) -> CellKey:
        """Identity of the cell among all others of a run."""
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
        """Outcomes of the cell's images; empty unless ``status`` is ok."""
        return ImageOutcomes(outcomes=self.outcomes, survival=self.survival)

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """The share of draws that each image survived; 0 or 1 for a deterministic defence."""
        return self.image_outcomes.shares


class EvidenceRecord(Record):
    """One craft: the adversarial images of one attack on one target for one chunk of images."""

    sha256: str
    """Digest of the images' bytes, shape and type."""
    target: str
    attack: str
    norm: Norm
    eps: float | None
    chunk: int
    n: int
    broken: int | None = None
    """Number of images that the target itself got wrong; ``None`` in records of older versions."""


class SeparationRecord(Record):
    """Latent space separation of an ensemble's members (LSS, Eq. 5 and 6), on the whole test set."""

    layer: str
    n: int
    """Number of images, each with one latent for every member."""
    dimension: int
    margin: float | None
    """Mean over the members of the hard margin between a member's latents and all others'; ``None`` where some
    member's are not linearly separable from the rest, or too few or too many to tell."""
    scaled_margin: float | None
    """Margin in units of the latents' RMS radius: comparable between latents of unlike scale."""
    reason: str | None
    """Reason why there is no margin; ``None`` where there is one."""


class DefenseRecord(Record):
    """The trained defence that was attacked."""

    title: str
    settings: dict[str, Any]
    weights_key: str
    weights_sha256: str
    clean_accuracy: dict[str, Interval]
    """Clean accuracy on the run's images, by decision rule."""
    test_set_accuracy: dict[str, Fraction] = Field(default_factory=dict)
    """Clean accuracy on the whole test set, by decision rule; on its first 1,000 images for a defence that optimises
    inside."""
    separation: SeparationRecord | None = None
    """Separation of an ensemble's members; ``None`` for a single network, and where members have no such layer."""
    randomized: bool
    abstains: bool
    access: tuple[str, ...] = ("gradients",)
    """Access that the surrogates offer to attacks; rows that offer the same stand the same attacks."""
    optimizes: bool = False
    """Whether the defence searches by gradients at test time."""
    flags: tuple[FlagRecord, ...] = ()
    """Reasons not to believe the defence as a whole: findings of the probe, and what the run left out."""
    deployed: str | None = None
    """Decision rule by which it answers; ``None`` in records of older versions, where it is the cells' last."""
    clean_rejected: dict[str, Interval] = Field(default_factory=dict)
    """Share of the run's clean images that are rejected, by decision rule; empty if the defence never abstains."""


class DatasetRecord(Record):
    """Test images of the run."""

    name: str
    digest: str
    n: int
    n_test: int | None = None
    """Number of images in the whole test set; ``None`` in records of older versions."""
    indices: tuple[int, ...]
    """Positions in the test set, in the order of all outcomes."""


class Manifest(Record):
    """Everything that it takes to make the run again."""

    versions: dict[str, str]
    device: str
    environment: dict[str, str] = Field(default_factory=dict)
    """Software and hardware of the run, beside libraries and device; empty in records of older versions."""
    seed: int
    training_seed: int | None = None
    """Seed of the defences' training, where it is not ``seed``."""
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
    """Record of a whole run."""

    schema_version: Literal[1] = SCHEMA_VERSION
    complete: bool
    """Whether nothing failed and nothing was left undone; a cell that no attack applies to is not_run and says why."""
    suite: dict[str, Any]
    suite_fingerprint: str
    manifest: Manifest
    evidence: dict[str, EvidenceRecord]
    cells: tuple[CellRecord, ...] = Field(min_length=1)
