"""Record of a run: everything that it found, with what it takes to make it again."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

import dkd_bench
from dkd_bench.data import CHUNK_SIZE
from dkd_bench.plugins.settings import settings_as_json
from dkd_bench.plugins.suites import suite_fingerprint
from dkd_bench.records import (
    CellRecord,
    DatasetRecord,
    DefenseRecord,
    EvidenceRecord,
    FlagRecord,
    Manifest,
    RunRecord,
    SeparationRecord,
)
from dkd_bench.records.environment import current_environment
from dkd_bench.records.rules import deployed_rule
from dkd_bench.steps.cells import CleanScore, empty_cells, trials_without_crafts
from dkd_bench.steps.plan import Trial, budgets_of
from dkd_bench.steps.prepare import Prepared
from dkd_bench.steps.score import Scored
from dkd_bench.store.digests import library_versions

if TYPE_CHECKING:
    from dkd_bench.doubts import Doubts

LIBRARIES = ("foolbox", "numpy", "pyautoattack", "safetensors", "scikit-learn", "scipy", "torch", "torchvision")
NOT_REACHED = "interrupted before it was run; the same command goes on from here"


@dataclass(slots=True)
class Findings:
    """Findings of a run so far; an interrupted one is recorded from them too."""

    clean: Mapping[str, CleanScore]
    """Clean-image statistics by defence."""
    separations: Mapping[str, SeparationRecord] = field(default_factory=dict)
    """Latent space separation of those defences that are ensembles."""
    trials: dict[int, Scored] = field(default_factory=dict)
    """Results by position in the plan; those not reached are missing."""

    @property
    def cells(self) -> tuple[CellRecord, ...]:
        """The cells scored so far, in the order of the plan."""
        return tuple(cell for position in sorted(self.trials) for cell in self.trials[position].cells)

    @property
    def evidence(self) -> dict[str, EvidenceRecord]:
        """The evidence that the cells rest on, in the order of the plan."""
        return {key: each for position in sorted(self.trials) for key, each in self.trials[position].evidence.items()}


def all_cells(prepared: Prepared, findings: Findings) -> tuple[CellRecord, ...]:
    """Return the cells of the whole plan: ``not_run`` where not reached, ``error`` of defences that failed."""
    cells: list[CellRecord] = []
    for position, trial in enumerate(prepared.plan.trials):
        if position in findings.trials:
            cells += findings.trials[position].cells
        else:
            cells += empty_cells(trial, clean=findings.clean[trial.defense], status="not_run", reason=NOT_REACHED)
    for name, flag in prepared.subjects.failure_flags.items():
        for trial in _trials_of_failed(prepared, name):
            cells += empty_cells(trial, clean=findings.clean[name], status="error", reason=flag.detail, flags=[flag])
    return tuple(cells)


def record(prepared: Prepared, findings: Findings, doubts: Doubts, *, interrupted: bool = False) -> RunRecord:
    """Return the record of what was found, every doubt at the number that it concerns."""
    cells = tuple(doubts.on_cell(cell) for cell in all_cells(prepared, findings))
    failed = doubts.failed or any(cell.status == "error" for cell in cells)
    whole = len(findings.trials) == len(prepared.plan.trials) and not interrupted
    return RunRecord(
        complete=whole and not failed,
        suite=suite_record(prepared),
        suite_fingerprint=fingerprint_of(prepared),
        manifest=make_manifest(prepared, findings, doubts),
        evidence=findings.evidence,
        cells=cells,
    )


def make_manifest(prepared: Prepared, findings: Findings, doubts: Doubts) -> Manifest:
    """Return the manifest of a run: everything that it takes to make it again."""
    subjects, request = prepared.subjects, prepared.request
    return Manifest(
        versions={
            **library_versions(*LIBRARIES),
            "dkd-bench": dkd_bench.__version__,
            "python": python_version(),
        },
        device=subjects.device.type,
        environment=current_environment(subjects.device),
        seed=request.seed,
        training_seed=request.training_seed,
        recipe=request.recipe,
        dataset=DatasetRecord(
            name=subjects.dataset.name,
            digest=subjects.dataset_digest,
            n=len(prepared.images),
            n_test=len(subjects.dataset.test),
            indices=tuple(prepared.images.indices.tolist()),
        ),
        defenses={name: _defense(prepared, findings, name, doubts.on_defense(name)) for name in subjects.defenses},
        plan_digest=prepared.plan_digest,
        request=request.as_json(),
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )


def suite_record(prepared: Prepared) -> dict[str, Any]:
    """Return the attacks of a run with all that determines them, and its threat models."""
    return {
        "attacks": [
            {**attack.identity(), "variant": list(attack.variant(prepared.subjects.dataset.n_classes))}
            for attack in prepared.attacks.values()
        ],
        "threat_models": list(prepared.threat_models),
        "chunk_size": CHUNK_SIZE,
        "eot_draws": prepared.request.eot_draws,
    }


def fingerprint_of(prepared: Prepared) -> str:
    """Return the fingerprint of the attacks of a run."""
    return suite_fingerprint(
        list(prepared.attacks.values()),
        n_classes=prepared.subjects.dataset.n_classes,
        eot_draws=prepared.request.eot_draws,
    )


def _defense(prepared: Prepared, findings: Findings, name: str, flags: Sequence[FlagRecord]) -> DefenseRecord:
    trained, clean = prepared.subjects.defenses[name], findings.clean[name]
    meta = trained.defense.meta
    return DefenseRecord(
        title=meta.title,
        settings=settings_as_json(trained.defense.settings),
        weights_key=trained.key,
        weights_sha256=trained.sha256,
        clean_accuracy=clean.accuracy,
        test_set_accuracy=trained.clean_accuracy,
        separation=findings.separations.get(name),
        randomized=meta.randomized,
        access=prepared.targets.offers[name],
        flags=tuple(flags),
        clean_rejected=clean.rejected,
        abstains=meta.abstains,
        optimizes=meta.optimizes,
        deployed=deployed_rule(trained.defense.deployed_rule, tuple(clean.accuracy)),
    )


def _trials_of_failed(prepared: Prepared, name: str) -> list[Trial]:
    """Return the trials that a defence would have had: of the attacks that apply to most."""
    attacks = [
        (attack.meta.name, budgets)
        for attack in prepared.attacks.values()
        if attack.meta.applies_to != "randomized" and attack.meta.access == "gradients"
        for _, budgets in budgets_of(attack.meta.kind, attack.meta.norms, prepared.budgets)
    ]
    return trials_without_crafts(name, prepared.threat_models, attacks)
