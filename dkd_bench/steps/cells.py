"""Building of a record's cells from what was planned and what was scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dkd_bench.budget import Budget
from dkd_bench.records import CellRecord, FlagRecord, Interval
from dkd_bench.records.rules import DEPLOYED
from dkd_bench.steps.crafter import Evidence
from dkd_bench.steps.plan import Trial
from dkd_bench.steps.scoring import CellScore

UNDECIDED = DEPLOYED.name
"""Name of the decision rule in the cells of a defence that never answered."""


@dataclass(slots=True)
class Cost:
    """Cost of a trial's crafts when they were made."""

    wall_time_s: float = 0.0
    forward_passes: int = 0
    keys: dict[str, list[str]] = field(default_factory=dict)
    """Evidence keys by target, chunk by chunk."""

    def add(self, target: str, key: str, evidence: Evidence) -> None:
        """Add the evidence of one chunk."""
        self.wall_time_s += evidence.wall_time_s
        self.forward_passes += evidence.forward_passes
        self.keys.setdefault(target, []).append(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanScore:
    """Clean-image statistics of one defence, repeated in each of its cells."""

    dataset: str
    n: int
    accuracy: dict[str, Interval]
    """Clean accuracy by decision rule; empty for a defence that never answered."""
    rejected: dict[str, Interval] = field(default_factory=dict)
    """Share of clean images rejected by decision rule; empty for a defence that never abstains."""


def scored_cell(
    trial: Trial, budget: Budget, rule: str, *, score: CellScore, clean: CleanScore, cost: Cost
) -> CellRecord:
    """Return the cell of a trial under one budget and decision rule."""
    return CellRecord(
        defense=trial.defense,
        decision=rule,
        dataset=clean.dataset,
        threat_model=trial.threat_model,
        attack=trial.attack,
        norm=budget.norm,
        eps=budget.eps,
        n=clean.n,
        clean_accuracy=clean.accuracy[rule].value,
        status="ok",
        wall_time_s=cost.wall_time_s,
        forward_passes=cost.forward_passes,
        evidence=tuple(key for keys in cost.keys.values() for key in keys),
        outcomes=score.images.outcomes,
        survival=score.images.survival,
        robust_accuracy=score.robust_accuracy,
        mean_robust_accuracy=score.mean_robust_accuracy,
        ci95=score.ci95,
        failed_majorities=score.failed_majorities,
        abstained=score.abstained,
        fooling_norms=score.fooling_norms,
        fooling_distances=score.fooling_distances,
        candidates=score.candidates,
        detectors=score.detectors,
    )


def empty_cells(
    trial: Trial,
    *,
    clean: CleanScore,
    status: Literal["error", "not_run"],
    reason: str,
    flags: Sequence[FlagRecord] = (),
) -> list[CellRecord]:
    """Return the cells of a trial that has no numbers: one for each budget and decision rule."""
    return [
        CellRecord(
            defense=trial.defense,
            decision=rule,
            dataset=clean.dataset,
            threat_model=trial.threat_model,
            attack=trial.attack,
            norm=budget.norm,
            eps=budget.eps,
            n=clean.n,
            clean_accuracy=clean.accuracy[rule].value if clean.accuracy else None,
            robust_accuracy=None,
            mean_robust_accuracy=None,
            ci95=None,
            failed_majorities=None,
            abstained=None,
            status=status,
            reason=reason,
            flags=tuple(flags),
            wall_time_s=0.0,
            forward_passes=0,
            evidence=(),
            fooling_norms=None,
            outcomes=(),
            candidates=(),
        )
        for budget in trial.budgets
        for rule in (clean.accuracy or (UNDECIDED,))
    ]


def trials_without_crafts(
    defense: str, threat_models: Iterable[str], attacks: Iterable[tuple[str, tuple[Budget, ...]]]
) -> list[Trial]:
    """Return the trials that a defence would have had, had it been there to plan for."""
    return [
        Trial(defense=defense, threat_model=threat_model, attack=attack, budgets=budgets, crafts={})
        for threat_model in threat_models
        for attack, budgets in attacks
    ]
