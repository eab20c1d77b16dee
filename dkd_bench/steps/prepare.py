"""From words to things: the dataset, the trained defences, the attacks, and the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from dkd_bench.attacks import Attack
from dkd_bench.budget import Budget, Norm
from dkd_bench.data import Dataset, load_dataset, select_balanced
from dkd_bench.defense import Defense, DefenseMeta
from dkd_bench.defense.reference import SEED_OFFSET, Reference
from dkd_bench.doubts.answers import answers_vary, probe
from dkd_bench.errors import ConfigError, FieldName, PluginError, UndeclaredRandomnessError, UnknownNameError
from dkd_bench.plugins import registry
from dkd_bench.plugins.settings import setting_names, settings_from_words
from dkd_bench.plugins.suites import ALL, resolve_attacks
from dkd_bench.progress import Progress
from dkd_bench.records import FlagRecord
from dkd_bench.records.environment import ENVIRONMENT_LIBRARIES
from dkd_bench.records.flags import NOT_ADAPTIVE, NOT_ADMITTED, RANDOM
from dkd_bench.steps.craft import Chunk
from dkd_bench.steps.plan import (
    CHUNK_SIZE,
    Craft,
    Ground,
    Plan,
    PlannedAttack,
    PlannedDefense,
    PlannedTarget,
    make_plan,
)
from dkd_bench.steps.request import RunRequest, TrainRequest, parse_settings, settings_for
from dkd_bench.steps.weights import DefenseFactory, TrainedDefense, Trainer
from dkd_bench.store.digests import (
    code_digest,
    digest_content,
    digest_json,
    digest_module,
    digest_tensors,
    library_versions,
    package_digest,
)
from dkd_bench.target import AUTO_BATCH_SIZE, Access, Target
from dkd_bench.target.decision import Decision
from dkd_bench.target.surrogates import Detecting, OnManifold
from dkd_bench.threats import Roles, ThreatModel, load_threat_models
from dkd_bench.training import recipe_named

REFERENCE = "reference"
ADMISSION_IMAGES = 100
VARIATION_IMAGES = 8
"""Shown twice to the networks of a randomised defence, to see which of them are random."""
DECISION = "decision"
"""The target of a defence without surrogates: its answers, and nothing else."""
GRADIENTS: Access = "gradients"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The defences of a request, those that could be trained and why the others could not."""

    dataset: Dataset
    dataset_digest: str
    device: torch.device
    defenses: Mapping[str, TrainedDefense]
    failure_flags: Mapping[str, FlagRecord]
    """Defence name to the flag that it raises, whose detail says why there is none."""
    trainer: Trainer

    @property
    def failures(self) -> Mapping[str, str]:
        """Defence name to the sentence that says why there is none."""
        return {name: flag.detail for name, flag in self.failure_flags.items()}


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """Everything that a run works with."""

    request: RunRequest
    trained: Trained
    attacks: Mapping[str, Attack]
    threat_models: Mapping[str, ThreatModel]
    budgets: tuple[Budget, ...]
    indices: Tensor
    """Positions in the test set, in seeded order."""
    networks: Mapping[str, tuple[str, nn.Module]]
    """Digest of a target to what it is called and the network itself."""
    offers: Mapping[str, tuple[str, ...]]
    """What the surrogates of each defence offer to attacks, in alphabetical order."""
    plan: Plan

    def chunks(self) -> Iterator[Chunk]:
        """Yield the clean images chunk by chunk, on the device."""
        for number in range(-(-len(self.indices) // CHUNK_SIZE)):
            yield self.chunk(number)

    def chunk(self, number: int) -> Chunk:
        """Return the clean images of one chunk, on the device."""
        indices = self.indices[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE]
        images, labels = self.trained.dataset.test.batch(indices)
        return Chunk(number=number, images=images.to(self.trained.device), labels=labels.to(self.trained.device))

    def target(self, craft: Craft) -> Target:
        """Return the network behind a craft as its attack sees it.

        A randomised target takes any chunk whole, lest its draws depend on the batch size.
        """
        called, network = self.networks[craft.target]
        batch_size = CHUNK_SIZE if craft.randomized else self.request.batch_size or AUTO_BATCH_SIZE
        return Target(
            network,
            name=called,
            n_classes=self.trained.dataset.n_classes,
            batch_size=batch_size,
            draws=craft.draws,
        )

    @cached_property
    def flags(self) -> Mapping[str, tuple[FlagRecord, ...]]:
        """What makes a defence's row suspicious before it is attacked, by defence.

        Asked for when a record is made: a run that is found again, and a worker, need not probe anything.
        """
        return {name: (*self._probed(each), *self._gaps(each)) for name, each in self.trained.defenses.items()}

    def _probed(self, defense: TrainedDefense) -> tuple[FlagRecord, ...]:
        try:
            return probe(defense.defense, self.trained.trainer.probe)
        except Exception as error:
            detail = f"its surrogates fail when they are probed: {type(error).__name__}: {error}"
            return (FlagRecord(name=NOT_ADMITTED, detail=detail),)

    def _gaps(self, defense: TrainedDefense) -> tuple[FlagRecord, ...]:
        """Return the flag of a defence that rejects images, where the adversary who sees the whole ignored that."""
        seeing = {name for name, threat_model in self.threat_models.items() if threat_model.meta.sees_whole}
        whole = [each for each in self.plan.trials if each.defense == defense.name and each.threat_model in seeing]
        if not defense.defense.meta.abstains or not whole:
            return ()
        looked_at = any(self.attacks[trial.attack].meta.access == "detectors" for trial in whole)
        if "detectors" in self.offers[defense.name] and looked_at:
            return ()
        return (FlagRecord(name=NOT_ADAPTIVE, detail="it rejects images, and no attack looked at its detectors"),)

    @cached_property
    def plan_digest(self) -> str:
        """A digest of all that determines the record, the harness's own code included."""
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
                    for trial in self.plan.trials
                ],
                "defenses": {
                    name: [trained.sha256, trained.key] for name, trained in sorted(self.trained.defenses.items())
                },
                "failures": sorted(self.trained.failures),
                "request": self.request.as_json(),
                "dataset": self.trained.dataset_digest,
                "threat_models": {name: code_digest(type(each)) for name, each in self.threat_models.items()},
                "harness": package_digest(),
            }
        )


def train(
    request: TrainRequest,
    progress: Progress,
    *,
    dataset: Dataset | None = None,
    attacks: Mapping[str, Attack] | None = None,
) -> Trained:
    """Return the defences of ``request``, trained or loaded.

    Args:
        request: what to train.
        progress: where training reports to.
        dataset: the request's, if it is loaded already.
        attacks: those of the run, whose settings ``--set`` reaches too.

    Raises:
        UnknownNameError: if a name is unknown.
        ConfigError: if a setting is wrong, or the device is not there.
        DatasetError: if the dataset cannot be loaded.
    """
    device = _device(request.device)
    classes, failures = _defense_classes(request)
    _check_settings(request, classes, attacks or {})
    factories = _factories(classes, request)
    dataset = dataset or load_dataset(request.dataset, root=request.data_root)
    n_probe = min(ADMISSION_IMAGES, len(dataset.test))
    probe = select_balanced(dataset.test.labels, n_examples=n_probe, seed=request.seed)
    trainer = Trainer(
        dataset=dataset,
        dataset_digest=dataset.digest(),
        recipe=recipe_named(request.recipe, dataset),
        seed=request.seed if request.training_seed is None else request.training_seed,
        device=device,
        progress=progress,
        probe=dataset.test.batch(probe)[0].to(device),
    )
    defenses = {}
    flags = {name: FlagRecord(name=NOT_ADMITTED, detail=reason) for name, reason in failures.items()}
    for name, factory in factories.items():
        try:
            trained = trainer.trained(name, factory)
            _check_surrogate_names(name, trained.defense)
            defenses[name] = trained
        except PluginError as error:
            flag = RANDOM if isinstance(error, UndeclaredRandomnessError) else NOT_ADMITTED
            flags[name] = FlagRecord(name=flag, detail=str(error))
    return Trained(
        dataset=dataset,
        dataset_digest=trainer.dataset_digest,
        device=device,
        defenses=defenses,
        failure_flags=flags,
        trainer=trainer,
    )


def prepare(request: RunRequest, progress: Progress) -> Workbench:
    """Return everything that the run of ``request`` works with; raises as ``train`` does."""
    attacks = _attacks(request)
    threat_models = load_threat_models(request.threat_models)
    explicit = tuple(Budget(norm=request.norm, eps=eps) for eps in dict.fromkeys(request.eps))
    dataset = load_dataset(request.dataset, root=request.data_root)
    budgets = explicit or (_default_budget(dataset, request.norm),)
    n_examples = dataset.default_n_examples if request.n_examples is None else request.n_examples
    indices = select_balanced(dataset.test.labels, n_examples=n_examples, seed=request.seed)
    trained = train(request, progress, dataset=dataset, attacks=attacks)
    networks: dict[str, tuple[str, nn.Module]] = {}
    planned = _planned_defenses(trained, threat_models, networks, seed=request.seed)
    plan = (
        Plan(trials=())
        if not planned
        else make_plan(
            defenses=planned,
            attacks=[_planned_attack(attack) for attack in attacks.values()],
            threat_models=list(threat_models.values()),
            budgets=budgets,
            ground=Ground(
                chunk_digests=tuple(_chunk_digest(dataset, chunk) for chunk in indices.split(CHUNK_SIZE)),
                seed=request.seed,
                eot_draws=request.eot_draws,
                harness=code_digest(Target),
                libraries=library_versions(*ENVIRONMENT_LIBRARIES),
            ),
        )
    )
    offers = {
        each.name: tuple(sorted({one for name in each.roles.surrogates for one in each.targets[name].access}))
        for each in planned
    }
    return Workbench(
        request=request,
        trained=trained,
        attacks=attacks,
        threat_models=threat_models,
        budgets=budgets,
        indices=indices,
        networks=networks,
        offers=offers,
        plan=plan,
    )


def check_words(request: RunRequest) -> None:
    """Raise what ``prepare`` would raise for a wrong name or setting, before anything is loaded or trained."""
    attacks = _attacks(request)
    load_threat_models(request.threat_models)
    _device(request.device)
    classes, _ = _defense_classes(request)
    _check_settings(request, classes, attacks)
    _factories(classes, request)


def _default_budget(dataset: Dataset, norm: Norm) -> Budget:
    if norm not in dataset.default_eps:
        raise ConfigError(
            f"dataset {dataset.name!r} has no budget of its own in {norm}; give one with ", FieldName("eps")
        )
    return Budget(norm=norm, eps=dataset.default_eps[norm])


def concerning(request: RunRequest) -> RunRequest:
    """Return ``request`` without the settings of plugins that it does not name, and those that none of its knows.

    Raises:
        ConfigError: if a name is unknown, or a setting is no setting at all.
    """
    classes, _ = _defense_classes(request)
    known = _known_settings(classes, _attack_classes(request))
    kept = tuple(
        word
        for word in request.settings
        for plugin, setting in parse_settings((word,))
        if (plugin in known if plugin is not None else any(setting in names for names in known.values()))
    )
    return replace(request, settings=kept)


def defense_name(reference: str) -> str:
    """Return what the defence that a user names, perhaps by its file, calls itself; raises as ``train`` does."""
    classes, failures = _defense_classes(TrainRequest(defenses=(reference,)))
    for reason in failures.values():
        raise PluginError(reason)
    return next(iter(classes))


def _device(word: str) -> torch.device:
    if word == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            FieldName("device"), " cuda: torch finds no CUDA device here; use ", FieldName("device"), " cpu or auto"
        )
    return torch.device("cuda" if word != "cpu" and torch.cuda.is_available() else "cpu")


def _defense_classes(request: TrainRequest) -> tuple[dict[str, type[Defense]], dict[str, str]]:
    classes: dict[str, type[Defense]] = {}
    failures: dict[str, str] = {}
    asked: list[str] = []
    for name in request.defenses:
        asked += registry.without_argument("defenses") if name == ALL else [name]
    for reference in dict.fromkeys(asked):
        try:
            cls = registry.load("defenses", reference)
            if not (isinstance(cls, type) and issubclass(cls, Defense)) or not hasattr(cls, "meta"):
                raise PluginError(f"{reference!r} must be a subclass of dkd_bench.api.Defense with a meta, got {cls!r}")
        except PluginError as error:
            failures[reference] = str(error)
            continue
        if cls.meta.name in classes:
            raise ConfigError(f"two of the defences are named {cls.meta.name!r}; rename one in its meta")
        classes[cls.meta.name] = cls
    return classes, failures


def _factories(classes: Mapping[str, type[Defense]], request: TrainRequest) -> dict[str, DefenseFactory]:
    parsed = parse_settings(request.settings)
    factories: dict[str, DefenseFactory] = {}
    for name, cls in classes.items():
        words = settings_for(name, setting_names(cls.Settings), parsed)
        settings = settings_from_words(cls.Settings, words, owner=name)
        factories[name] = lambda images, cls=cls, settings=settings: cls(images, settings)  # type: ignore[misc]
    return factories


def _known_settings(
    classes: Mapping[str, type[Defense]], attacks: Mapping[str, Attack | type[Attack]]
) -> dict[str, Sequence[str]]:
    """Return the names of the settings of each defence and attack in a run, by the plugin's name."""
    known: dict[str, Sequence[str]] = {name: setting_names(attack.Config) for name, attack in attacks.items()}
    return known | {name: setting_names(cls.Settings) for name, cls in classes.items()}


def _check_settings(request: TrainRequest, classes: Mapping[str, type[Defense]], attacks: Mapping[str, Attack]) -> None:
    """Refuse a ``--set`` that concerns nothing in the run."""
    known = _known_settings(classes, attacks)
    for plugin, setting in parse_settings(request.settings):
        if plugin is not None and plugin not in known:
            raise UnknownNameError("defence or attack in this run", plugin, known, known_as="In this run")
        if plugin is None and not any(setting in names for names in known.values()):
            everything = {name for names in known.values() for name in names}
            raise UnknownNameError("setting", setting, everything, known_as="Settings in this run")


def _attack_classes(request: RunRequest) -> dict[str, type[Attack]]:
    classes: dict[str, type[Attack]] = {}
    for name in resolve_attacks(request.attacks):
        cls = registry.load("attacks", name)
        if not (isinstance(cls, type) and issubclass(cls, Attack)) or not hasattr(cls, "meta"):
            raise PluginError(f"{name!r} must be a subclass of dkd_bench.api.Attack with a meta, got {cls!r}")
        classes[cls.meta.name] = cls
    return classes


def _attacks(request: RunRequest) -> dict[str, Attack]:
    parsed = parse_settings(request.settings)
    return {
        name: cls(settings_from_words(cls.Config, settings_for(name, setting_names(cls.Config), parsed), owner=name))
        for name, cls in _attack_classes(request).items()
    }


def _planned_attack(attack: Attack) -> PlannedAttack:
    meta = attack.meta
    return PlannedAttack(
        name=meta.name,
        kind=meta.kind,
        norms=meta.norms,
        applies_to=meta.applies_to,
        averages_draws=meta.averages_draws,
        access=meta.access,
        identity=attack.identity(),
    )


def _named_members(defense: Defense) -> dict[str, nn.Module]:
    return {f"member-{number}": member for number, member in enumerate(defense.members, start=1)}


def _check_surrogate_names(name: str, defense: Defense) -> None:
    """Refuse a surrogate that would take the place of another target."""
    taken = defense.surrogates().keys() & {REFERENCE, DECISION, *_named_members(defense)}
    if taken:
        raise PluginError(f"a surrogate of defence {name!r} is called {min(taken)!r}, a target's name; rename it")


def _planned_defenses(
    trained: Trained,
    threat_models: Mapping[str, ThreatModel],
    networks: dict[str, tuple[str, nn.Module]],
    *,
    seed: int,
) -> list[PlannedDefense]:
    """Describe the defences for the plan, and put the networks behind their targets into ``networks``."""
    reference: dict[str, nn.Module] = {}
    roles_probe = Roles(reference=REFERENCE, members=(), surrogates=())
    if trained.defenses and any(REFERENCE in threat.targets(roles_probe) for threat in threat_models.values()):
        reference = {REFERENCE: _trained_reference(trained.trainer, seed=seed)}
    planned = []
    for name, each in trained.defenses.items():
        members = _named_members(each.defense)
        surrogates = dict(each.defense.surrogates()) or {DECISION: Decision(each.defense)}
        targets = {}
        for target, module in (reference | members | surrogates).items():
            may_vary = each.defense.meta.randomized and target != REFERENCE
            random = may_vary and answers_vary(module, trained.trainer.probe[:VARIATION_IMAGES])
            offers = _offered(module, each.defense.meta) if target in surrogates else frozenset({GRADIENTS})
            targets[target] = PlannedTarget(
                digest=digest_module(module), content=digest_content(module), randomized=random, access=offers
            )
            called = REFERENCE if target == REFERENCE else f"{name} {target}"
            networks.setdefault(targets[target].digest, (called, module))
        planned.append(
            PlannedDefense(
                name=name,
                roles=Roles(reference=REFERENCE, members=tuple(members), surrogates=tuple(surrogates)),
                targets=targets,
            )
        )
    return planned


def _offered(surrogate: nn.Module, meta: DefenseMeta) -> frozenset[Access]:
    """Return what a surrogate offers to attacks; those without gradients are for what hides them."""
    if isinstance(surrogate, Decision):
        return frozenset({"decisions"})
    offered: set[Access] = {GRADIENTS}
    if isinstance(surrogate, Detecting):
        offered.add("detectors")
    if isinstance(surrogate, OnManifold):
        offered.add("generator")
    if meta.hides_gradients:
        offered |= {"scores", "decisions"}
    return frozenset(offered)


def _trained_reference(trainer: Trainer, *, seed: int) -> nn.Module:
    """Return the adversary's own network; another ``--training-seed`` of the defences does not change it."""
    return replace(trainer, seed=seed + SEED_OFFSET).trained(REFERENCE, Reference).defense.members[0]


def _chunk_digest(dataset: Dataset, indices: Tensor) -> str:
    images, labels = dataset.test.batch(indices)
    return digest_tensors({"images": images, "labels": labels})
