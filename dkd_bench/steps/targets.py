"""Targets: the networks offered to attacks, as the plan needs to know them and as attacks meet them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from dkd_bench.data import CHUNK_SIZE
from dkd_bench.defense import Defense, DefenseMeta
from dkd_bench.defense.decision_target import Decision
from dkd_bench.steps.plan import Craft, PlannedDefense, PlannedTarget
from dkd_bench.store.digests import digest_content, digest_module
from dkd_bench.target import AUTO_BATCH_SIZE, Access, Target
from dkd_bench.target.surrogates import Detecting, OnManifold
from dkd_bench.target.variation import answers_vary
from dkd_bench.threats import Roles, ThreatModel

REFERENCE = "reference"
"""Name of the target that is the black-box adversary's own network."""
DECISION = "decision"
"""Name of the target of a defence without surrogates: its answers, and nothing else."""
GRADIENTS: Access = "gradients"
VARIATION_IMAGES = 8
"""Number of images shown twice to the networks of a randomised defence, to see which of them are random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Network behind one or several targets."""

    called: str
    """Name of the network: ``reference``, or the first defence that offers it and the target's name."""
    module: nn.Module


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Targets of all defences of a run."""

    planned: tuple[PlannedDefense, ...]
    networks: Mapping[str, Network]
    """Networks by the digest of a target."""
    n_classes: int
    batch_size: int | None
    """Number of images in one model evaluation; ``None`` for the target's own choice."""

    @property
    def offers(self) -> Mapping[str, tuple[str, ...]]:
        """Access that the surrogates of each defence offer to attacks, in alphabetical order."""
        return {
            each.name: tuple(sorted({one for name in each.roles.surrogates for one in each.targets[name].access}))
            for each in self.planned
        }

    def target(self, craft: Craft) -> Target:
        """Return the network behind a craft as its attack sees it.

        A randomised target takes any chunk whole, lest its draws depend on the batch size.
        """
        network = self.networks[craft.target]
        batch_size = CHUNK_SIZE if craft.randomized else self.batch_size or AUTO_BATCH_SIZE
        return Target(
            network.module, name=network.called, n_classes=self.n_classes, batch_size=batch_size, draws=craft.draws
        )


def named_members(members: Sequence[nn.Module]) -> dict[str, nn.Module]:
    """Return the members of a defence by the names of their targets."""
    return {f"member-{number}": member for number, member in enumerate(members, start=1)}


def targets_of(defense: Defense, *, reference: Mapping[str, nn.Module]) -> tuple[Roles, dict[str, nn.Module]]:
    """Return the names of a defence's targets by role, and the network of each; ``reference`` is one of them."""
    members = named_members(defense.members)
    surrogates = dict(defense.surrogates()) or {DECISION: Decision(defense)}
    roles = Roles(reference=REFERENCE, members=tuple(members), surrogates=tuple(surrogates))
    return roles, {**reference, **members, **surrogates}


def describe_targets(
    defenses: Mapping[str, Defense],
    *,
    reference: Mapping[str, nn.Module],
    shown: Tensor,
    n_classes: int,
    batch_size: int | None,
) -> Targets:
    """Return the targets of ``defenses``.

    Args:
        defenses: by name, trained.
        reference: the black-box adversary's network under ``REFERENCE``, or nothing where no threat model wants it.
        shown: clean images for seeing which networks are random, float32, shape ``(N, C, H, W)``.
        n_classes: of the dataset.
        batch_size: images in one model evaluation; ``None`` for the target's own choice.
    """
    networks: dict[str, Network] = {}
    planned = []
    for name, defense in defenses.items():
        roles, modules = targets_of(defense, reference=reference)
        targets = {}
        for target, module in modules.items():
            may_vary = defense.meta.randomized and target != REFERENCE
            offers = _offered(module, defense.meta) if target in roles.surrogates else frozenset({GRADIENTS})
            targets[target] = PlannedTarget(
                digest=digest_module(module),
                content=digest_content(module),
                randomized=may_vary and answers_vary(module, shown[:VARIATION_IMAGES]),
                access=offers,
            )
            called = REFERENCE if target == REFERENCE else f"{name} {target}"
            networks.setdefault(targets[target].digest, Network(called=called, module=module))
        planned.append(PlannedDefense(name=name, roles=roles, targets=targets))
    return Targets(planned=tuple(planned), networks=networks, n_classes=n_classes, batch_size=batch_size)


def reference_wanted(threat_models: Mapping[str, ThreatModel]) -> bool:
    """Return whether any threat model attacks the reference."""
    roles = Roles(reference=REFERENCE, members=(), surrogates=())
    return any(REFERENCE in threat_model.targets(roles) for threat_model in threat_models.values())


def _offered(surrogate: nn.Module, meta: DefenseMeta) -> frozenset[Access]:
    """Return the access that a surrogate offers; those without gradients are for defences that hide them."""
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
