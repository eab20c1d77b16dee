"""Preparation: the first steps of every command that needs a run's things: resolve, train, plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dkd_bench.attacks import Attack
from dkd_bench.budget import Budget
from dkd_bench.data import RunImages
from dkd_bench.errors import ConfigError, FieldName
from dkd_bench.progress import Progress
from dkd_bench.records.environment import ENVIRONMENT_LIBRARIES
from dkd_bench.steps.plan import Ground, Plan, make_plan
from dkd_bench.steps.request import RunRequest
from dkd_bench.steps.resolve import Cast, resolve
from dkd_bench.steps.targets import REFERENCE, Targets, describe_targets, reference_wanted
from dkd_bench.steps.train import Subjects, choose_images, train, train_reference
from dkd_bench.store.code import code_digest, package_digest
from dkd_bench.store.digests import digest_json, library_versions
from dkd_bench.target import Target
from dkd_bench.threats import ThreatModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Products of the first steps of a run: everything that crafting and scoring need."""

    request: RunRequest
    attacks: Mapping[str, Attack]
    threat_models: Mapping[str, ThreatModel]
    budgets: tuple[Budget, ...]
    images: RunImages
    subjects: Subjects
    targets: Targets
    plan: Plan
    plan_digest: str
    """Digest of all that determines the record, the harness's own code included."""


def prepare(request: RunRequest, progress: Progress) -> Prepared:
    """Resolve the words of ``request``, train its defences, and plan.

    Raises:
        UnknownNameError: if a name is unknown.
        ConfigError: if a setting is wrong, no attack applies, or the device is not there.
        DatasetError: if the dataset cannot be loaded.
        PluginError: if an attack or a threat model cannot be imported.
        StoreError: if weights cannot be written, or those found are damaged.
    """
    cast = resolve(request)
    return prepare_cast(cast, choose_images(cast), progress)


def prepare_cast(cast: Cast[RunRequest], images: RunImages, progress: Progress) -> Prepared:
    """Train the defences of ``cast``, and plan its attacks on ``images``.

    Raises:
        ConfigError: if the dataset has no budget of its own where none is named, or no attack applies.
        StoreError: if weights cannot be written, or those found are damaged.
    """
    budgets = cast.budgets or (_default_budget(images, cast.request),)
    subjects = train(cast, progress, dataset=images.dataset)
    targets = find_targets(cast, subjects)
    plan = plan_crafts(cast, images, targets, budgets)
    return Prepared(
        request=cast.request,
        attacks=cast.attacks,
        threat_models=cast.threat_models,
        budgets=budgets,
        images=images,
        subjects=subjects,
        targets=targets,
        plan=plan,
        plan_digest=digest_plan(plan, subjects, cast),
    )


def find_targets(cast: Cast[RunRequest], subjects: Subjects) -> Targets:
    """Return the targets that the defences offer; the black-box reference is trained where a threat model wants it."""
    wanted = bool(subjects.defenses) and reference_wanted(cast.threat_models)
    return describe_targets(
        {name: each.defense for name, each in subjects.defenses.items()},
        reference={REFERENCE: train_reference(subjects, seed=cast.request.seed)} if wanted else {},
        shown=subjects.trainer.probe,
        n_classes=subjects.dataset.n_classes,
        batch_size=cast.request.batch_size,
    )


def plan_crafts(cast: Cast[RunRequest], images: RunImages, targets: Targets, budgets: tuple[Budget, ...]) -> Plan:
    """Return the plan of a run; an empty one where no defence could be trained.

    Raises:
        ConfigError: if an attack does not know the norm asked for, or no attack applies at all.
    """
    if not targets.planned:
        return Plan(trials=())
    return make_plan(
        defenses=targets.planned,
        attacks=list(cast.attacks.values()),
        threat_models=list(cast.threat_models.values()),
        budgets=budgets,
        ground=Ground(
            chunk_digests=images.digests(),
            seed=cast.request.seed,
            eot_draws=cast.request.eot_draws,
            harness=code_digest(Target),
            libraries=library_versions(*ENVIRONMENT_LIBRARIES),
        ),
    )


def digest_plan(plan: Plan, subjects: Subjects, cast: Cast[RunRequest]) -> str:
    """Return a digest of all that determines the record of a run, the harness's own code included."""
    return digest_json(
        {
            "trials": [
                {
                    "defense": trial.defense,
                    "threat_model": trial.threat_model,
                    "attack": trial.attack,
                    "budgets": [[budget.norm, budget.eps] for budget in trial.budgets],
                    "crafts": {name: list(craft.keys) for name, craft in trial.crafts.items()},
                }
                for trial in plan.trials
            ],
            "defenses": {name: [trained.sha256, trained.key] for name, trained in sorted(subjects.defenses.items())},
            "failures": sorted(subjects.failures),
            "request": cast.request.as_json(),
            "dataset": subjects.dataset_digest,
            "threat_models": {name: code_digest(type(each)) for name, each in cast.threat_models.items()},
            "harness": package_digest(),
        }
    )


def _default_budget(images: RunImages, request: RunRequest) -> Budget:
    if request.norm not in images.dataset.default_eps:
        raise ConfigError(
            f"dataset {images.dataset.name!r} has no budget of its own in {request.norm}; give one with ",
            FieldName("eps"),
        )
    return Budget(norm=request.norm, eps=images.dataset.default_eps[request.norm])
