"""What a sweep measured, as it stands in ``sweep.json``."""

from __future__ import annotations

from typing import Literal

from dkd_bench.budget import Norm
from dkd_bench.leaderboard import RunSummary
from dkd_bench.records import Interval, Record, SeparationRecord


class SweepPoint(Record):
    """A defence as one run measured it, under the rule that it deploys."""

    label: str
    """The value of the setting, or the level's defence."""
    defense: str
    decision: str
    clean: Interval
    """On the whole test set."""
    n_test: int
    separation: SeparationRecord | None
    robust: dict[str, Interval]
    """By threat model, over all images of the run; without those that its defence offers nothing to."""
    weights_sha256: str
    run: RunSummary


class Sweep(Record):
    """What a sweep measured."""

    schema_version: Literal[1] = 1
    defense: str
    setting: str
    dataset: str
    attack: str
    norm: Norm
    eps: float | None
    """``None`` for a minimum-norm attack."""
    n: int
    seed: int
    threat_models: tuple[str, ...]
    points: tuple[SweepPoint, ...]
    levels: tuple[SweepPoint, ...]

    @property
    def title(self) -> str:
        """What tables and pictures of the sweep are called."""
        return f"{self.defense} over {self.setting}, {self.dataset}"

    @property
    def under_attack(self) -> str:
        """What its accuracies are: under which attack, within which budget."""
        budget = "" if self.eps is None else f" {self.norm} {self.eps:g}"
        return f"accuracy under {self.attack}{budget}"
