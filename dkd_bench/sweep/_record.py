"""Record of a sweep, as it stands in ``sweep.json``."""

from __future__ import annotations

from typing import Literal

from dkd_bench.budget import Norm
from dkd_bench.leaderboard import RunSummary
from dkd_bench.records import Interval, Record, SeparationRecord


class SweepPoint(Record):
    """Measurements of a defence in one run, under the rule that it deploys."""

    label: str
    """Value of the setting, or the level's defence."""
    defense: str
    decision: str
    clean: Interval
    """Clean accuracy on the whole test set."""
    n_test: int
    separation: SeparationRecord | None
    robust: dict[str, Interval]
    """Accuracy under attack by threat model, over all images of the run; without those that its defence offers nothing
    to."""
    weights_sha256: str
    run: RunSummary


class Sweep(Record):
    """Measurements of a sweep."""

    schema_version: Literal[1] = 1
    defense: str
    setting: str
    dataset: str
    attack: str
    norm: Norm
    eps: float | None
    """Budget in [0, 1] pixel units, in l0 a number of values; ``None`` for a minimum-norm attack."""
    n: int
    seed: int
    threat_models: tuple[str, ...]
    points: tuple[SweepPoint, ...]
    levels: tuple[SweepPoint, ...]

    @property
    def title(self) -> str:
        """Title of the sweep's tables and pictures."""
        return f"{self.defense} over {self.setting}, {self.dataset}"

    @property
    def under_attack(self) -> str:
        """Description of its accuracies: under which attack, within which budget."""
        budget = "" if self.eps is None else f" {self.norm} {self.eps:g}"
        return f"accuracy under {self.attack}{budget}"
