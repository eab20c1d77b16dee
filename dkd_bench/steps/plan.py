"""Plan of a run: the crafts it takes, each wanted once, and the cells that use them.

Knows names, digests and budgets; nothing of tensors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dkd_bench.budget import Budget, Norm
from dkd_bench.errors import ConfigError, FieldName, PluginError
from dkd_bench.store.digests import digest_json, seed_from

if TYPE_CHECKING:
    from dkd_bench.attacks import Attack, AttackMeta
    from dkd_bench.target import Access
    from dkd_bench.threats import Roles, ThreatModel


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTarget:
    """Target as the plan needs to know it."""

    digest: str
    """Digest of the network behind the target."""
    content: str
    """Digest of that network without its code, from which the attack's seed comes."""
    randomized: bool = False
    """Whether the target's answers differ between calls."""
    access: frozenset[Access] = frozenset({"gradients"})
    """Access that the target offers to attacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDefense:
    """Defence as the plan needs to know it."""

    name: str
    roles: Roles
    targets: Mapping[str, PlannedTarget]
    """Targets by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Craft:
    """Craft of one attack on one target under one budget, for all images asked for: one key for each chunk."""

    target: str
    """Digest of the network attacked."""
    attack: str
    budget: Budget
    draws: int
    """Number of evaluations averaged in each answer: over 1 for a randomised target (EOT)."""
    randomized: bool
    """Whether the target's answers differ between calls."""
    keys: tuple[str, ...]
    """Keys of the evidence: digests of all that determines its bytes, code and library versions included."""
    seeds: tuple[int, ...]
    """Seeds of the attack, from what is asked of it alone: other code, or another torch, searches from the same
    points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Trial of one defence under one threat model and attack: scored together, one cell for each budget and rule."""

    defense: str
    threat_model: str
    attack: str
    budgets: tuple[Budget, ...]
    crafts: Mapping[str, Craft]
    """Crafts by the name of the target; empty if the defence offers none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Crafts and trials of a run."""

    trials: tuple[Trial, ...]

    @property
    def crafts(self) -> tuple[Craft, ...]:
        """The crafts, each once, in the order in which the trials want them."""
        return tuple({craft.keys: craft for trial in self.trials for craft in trial.crafts.values()}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Inputs that all crafts of a run share."""

    chunk_digests: tuple[str, ...]
    """Digests of images and labels, chunk by chunk."""
    seed: int
    eot_draws: int
    harness: str
    """Digest of the harness's code that every craft goes through."""
    libraries: Mapping[str, str]
    """Versions of what computes every attack: other ones may give other bytes."""


def make_plan(
    *,
    defenses: Sequence[PlannedDefense],
    attacks: Sequence[Attack],
    threat_models: Sequence[ThreatModel],
    budgets: Sequence[Budget],
    ground: Ground,
) -> Plan:
    """Return the plan for every defence under every threat model, attack and budget.

    Raises:
        ConfigError: if an attack does not know the norm asked for, or no attack applies at all.
    """
    trials: list[Trial] = []
    for defense in defenses:
        for threat_model in threat_models:
            for attack in attacks:
                trials.extend(_trials(defense, threat_model, attack, budgets, ground))
    if not trials:
        raise ConfigError(
            f"none of the attacks {', '.join(attack.meta.name for attack in attacks)} applies to the defences asked "
            "for; run with ",
            FieldName("attacks"),
            " all",
        )
    return Plan(trials=tuple(trials))


def _trials(
    defense: PlannedDefense,
    threat_model: ThreatModel,
    attack: Attack,
    budgets: Sequence[Budget],
    ground: Ground,
) -> list[Trial]:
    """Return the trials of one attack: one for each craft budget, with the cell budgets that it serves."""
    offered = _offered(defense, threat_model)
    targets = {name: target for name, target in offered.items() if _applies(attack.meta, target)}
    if not targets and not _missed(attack, offered.values()):
        return []
    return [
        Trial(
            defense=defense.name,
            threat_model=threat_model.meta.name,
            attack=attack.meta.name,
            budgets=cell_budgets,
            crafts={name: _craft(target, attack, craft_budget, ground) for name, target in targets.items()},
        )
        for craft_budget, cell_budgets in budgets_of(attack.meta.kind, attack.meta.norms, budgets)
    ]


def _offered(defense: PlannedDefense, threat_model: ThreatModel) -> dict[str, PlannedTarget]:
    """Return the targets of a defence that the adversary sees; raise PluginError if there is none of a name."""
    names = threat_model.targets(defense.roles)
    unknown = [name for name in names if name not in defense.targets]
    if unknown:
        raise PluginError(
            f"threat model {threat_model.meta.name!r} asks for the target {unknown[0]!r} of defence {defense.name!r}; "
            f"expected some of {', '.join(defense.targets)}"
        )
    return {name: defense.targets[name] for name in names}


def _applies(meta: AttackMeta, target: PlannedTarget) -> bool:
    """Return whether an attack is meant for such a target, and the target offers what it needs."""
    return meta.access in target.access and _fits(meta, target)


def _fits(meta: AttackMeta, target: PlannedTarget) -> bool:
    """Return whether an attack is meant for targets that answer as randomly as this one does."""
    return meta.applies_to in ("any", "randomized" if target.randomized else "deterministic")


def _missed(attack: Attack, offered: Collection[PlannedTarget]) -> bool:
    """Return whether the attack ought to have been run, but no target has the gradients that it follows."""
    return (
        attack.meta.access == "gradients"
        and not any("gradients" in target.access for target in offered)
        and (not offered or any(_fits(attack.meta, target) for target in offered))
    )


def budgets_of(
    kind: Literal["fixed", "minimum_norm"], norms: Sequence[Norm], budgets: Sequence[Budget]
) -> list[tuple[Budget, tuple[Budget, ...]]]:
    """Return each budget that an attack crafts under, with the budgets of the cells that the craft serves.

    A minimum-norm craft serves every budget of its norm, and the cell without budget. Its norm is the one of
    the budgets if it knows it, else its first.

    Raises:
        ConfigError: if an attack within a budget does not know the norm asked for.
    """
    if kind == "minimum_norm":
        norm = next((budget.norm for budget in budgets if budget.norm in norms), norms[0])
        unbudgeted = Budget(norm=norm)
        return [(unbudgeted, (unbudgeted, *(budget for budget in budgets if budget.norm == norm)))]
    for budget in budgets:
        if budget.norm not in norms:
            raise ConfigError(
                f"an attack asked for works in {', '.join(norms)}, not in {budget.norm}; choose another ",
                FieldName("norm"),
                " or leave that attack out",
            )
    return [(budget, (budget,)) for budget in budgets]


def _craft(target: PlannedTarget, attack: Attack, budget: Budget, ground: Ground) -> Craft:
    identity = attack.identity()
    draws = ground.eot_draws if target.randomized and not attack.meta.averages_draws else 1
    asked = [
        {
            "target": target.content,
            "draws": draws,
            "attack": {part: identity[part] for part in ("name", "parameters")},
            "norm": budget.norm,
            "eps": budget.eps,
            "images": chunk_digest,
            "seed": ground.seed,
        }
        for chunk_digest in ground.chunk_digests
    ]
    code = {
        "target_code": target.digest,
        "attack_code": identity,
        "harness": ground.harness,
        "libraries": dict(ground.libraries),
    }
    return Craft(
        target=target.digest,
        attack=attack.meta.name,
        budget=budget,
        draws=draws,
        randomized=target.randomized,
        keys=tuple(digest_json(each | code) for each in asked),
        seeds=tuple(seed_from(each) for each in asked),
    )
