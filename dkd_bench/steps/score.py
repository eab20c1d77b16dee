"""Score: what each defence answers to the evidence of its trials, one outcome an image, one cell a rule and budget."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from dkd_bench.defense import ABSTAIN
from dkd_bench.errors import AttackError, EvidenceError, PluginError
from dkd_bench.records import CellRecord, EvidenceRecord, FlagRecord
from dkd_bench.records.flags import NOT_ADAPTIVE, UNVERIFIED
from dkd_bench.records.statistics import mean_interval
from dkd_bench.steps.cells import CleanScore, Cost, empty_cells, scored_cell
from dkd_bench.steps.craft import CraftedTrial
from dkd_bench.steps.crafter import Crafter, Evidence
from dkd_bench.steps.plan import Craft, Trial
from dkd_bench.steps.prepare import Prepared
from dkd_bench.steps.scoring import TrialScorer, decided

log = logging.getLogger(__name__)

CleanAnswers = tuple[Mapping[str, Tensor], ...]
"""Labels that a defence answers to the clean images, chunk by chunk: shape ``(draws, n)`` by decision rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Cells of one trial, with the evidence that they rest on."""

    cells: tuple[CellRecord, ...]
    evidence: Mapping[str, EvidenceRecord] = field(default_factory=dict)
    """Evidence by key."""


def ask_clean(prepared: Prepared) -> dict[str, CleanAnswers]:
    """Return the answers of each defence to the clean images of the run, by defence.

    Raises:
        PluginError: if a defence fails.
    """
    seed = prepared.request.seed
    return {
        name: tuple(decided(each.defense, chunk.images, seed=seed) for chunk in prepared.images.chunks())
        for name, each in prepared.subjects.defenses.items()
    }


def score_clean(prepared: Prepared, answers: Mapping[str, CleanAnswers]) -> dict[str, CleanScore]:
    """Return the clean accuracy, and the share rejected, of each defence; empty for one that never answered."""
    names = (*prepared.subjects.defenses, *prepared.subjects.failure_flags)
    return {name: _clean_score(prepared, name, answers.get(name, ())) for name in names}


def score(
    crafted: CraftedTrial,
    prepared: Prepared,
    crafter: Crafter,
    answers: Mapping[str, CleanAnswers],
    clean: Mapping[str, CleanScore],
) -> Scored:
    """Return the cells of a trial; without a number, and with the reason, where something failed.

    Args:
        crafted: the trial.
        prepared: the run's defences, images and attacks.
        crafter: that the evidence is read from.
        answers: to the clean images, by defence.
        clean: the accuracy on them, by defence.
    """
    trial = crafted.trial
    if not trial.crafts:
        reason = "the defence offers no differentiable surrogate"
        flags = [FlagRecord(name=NOT_ADAPTIVE, detail=reason)]
        return Scored(
            cells=tuple(empty_cells(trial, clean=clean[trial.defense], status="not_run", reason=reason, flags=flags))
        )
    try:
        if crafted.failure is not None:
            raise crafted.failure
        return _scored(trial, prepared, crafter, answers[trial.defense], clean[trial.defense])
    except (AttackError, EvidenceError, PluginError) as error:
        log.error(error)
        flags = [FlagRecord(name=UNVERIFIED, detail=str(error))] if isinstance(error, EvidenceError) else []
        return Scored(
            cells=tuple(empty_cells(trial, clean=clean[trial.defense], status="error", reason=str(error), flags=flags))
        )


def _clean_score(prepared: Prepared, name: str, answers: CleanAnswers) -> CleanScore:
    right: dict[str, list[float]] = {}
    rejected: dict[str, list[float]] = {}
    for chunk, by_rule in zip(prepared.images.chunks(), answers, strict=False):
        for rule, labels in by_rule.items():
            right.setdefault(rule, []).extend((labels == chunk.labels.cpu()).double().mean(dim=0).tolist())
            if prepared.subjects.defenses[name].defense.meta.abstains:
                rejected.setdefault(rule, []).extend((labels == ABSTAIN).double().mean(dim=0).tolist())
    return CleanScore(
        dataset=prepared.subjects.dataset.name,
        n=len(prepared.images),
        accuracy={rule: mean_interval(shares) for rule, shares in right.items()},
        rejected={rule: mean_interval(shares) for rule, shares in rejected.items()},
    )


def _scored(trial: Trial, prepared: Prepared, crafter: Crafter, answers: CleanAnswers, clean: CleanScore) -> Scored:
    defense = prepared.subjects.defenses[trial.defense].defense
    threat_model = prepared.threat_models[trial.threat_model]
    seed = prepared.request.seed
    scorers = {budget: TrialScorer(defense, threat_model, budget, seed=seed) for budget in trial.budgets}
    cost, recorded = Cost(), {}
    for chunk, by_rule in zip(prepared.images.chunks(), answers, strict=True):
        images = {}
        for target, craft in trial.crafts.items():
            attack = prepared.attacks[craft.attack]
            evidence = crafter.evidence(craft, attack, prepared.targets.target(craft), chunk)
            key = craft.keys[chunk.number]
            recorded[key] = _recorded(evidence, craft, chunk.number, prepared.targets.networks[craft.target].called)
            cost.add(target, key, evidence)
            images[target] = evidence.images.to(chunk.images.device)
        for scorer in scorers.values():
            scorer.add(chunk, by_rule, images)
    cells = [
        scored_cell(trial, budget, rule, score=score, clean=clean, cost=cost)
        for budget, scorer in scorers.items()
        for rule, score in scorer.scores().items()
    ]
    return Scored(cells=tuple(cells), evidence=recorded)


def _recorded(evidence: Evidence, craft: Craft, chunk: int, target: str) -> EvidenceRecord:
    return EvidenceRecord(
        sha256=evidence.sha256,
        target=target,
        attack=craft.attack,
        norm=craft.budget.norm,
        eps=craft.budget.eps,
        chunk=chunk,
        n=len(evidence.images),
        broken=evidence.broken,
    )
