"""Contract of an attack."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator
from functools import cache
from math import ceil
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from dkd_bench.attacks import Attack, AttackMeta
from dkd_bench.budget import NORMS, Budget, Norm, check_images, perturbation_norms
from dkd_bench.plugins.settings import setting_names
from dkd_bench.store.digests import digest_json, digest_module
from dkd_bench.target import Access, Target
from dkd_bench.target.randomness import isolated_randomness
from dkd_bench.testing._access import of_pairs, offering
from dkd_bench.testing._common import (
    QUICK_RECIPE,
    expect,
    expect_frozen_with_defaults,
    expect_name_and_title,
    expect_unknown_refused,
    global_generators,
    moved_generators,
    quick_dataset,
)
from dkd_bench.testing._linear import LinearProblem, linear_problem
from dkd_bench.training import TrainingSet, train_network
from dkd_bench.training.networks import build_network

_SEED = 7
_REACH = 1.5
"""Multiple of the distance to the nearest boundary that must suffice a fixed attack as a budget."""
_BLIND_REACH = 2.5
"""Multiple that must suffice an attack that sees no gradients."""
_SLACK = 2.0
"""Multiple of the distance to the nearest boundary that a minimum-norm attack may need."""
_SHARE = 0.5
"""Share of the images on which an attack must succeed, at least."""
_BUDGETS: dict[Norm, tuple[float, float]] = {"linf": (0.1, 0.5), "l2": (0.5, 3.0), "l0": (4, 32)}
"""Budgets to test with: the digits' own, and one that presses against the box; in l0 a few of the 64 values, and half
of them."""


class AttackContract(ABC):
    """Contract of every attack; derive a class named ``Test...`` and set ``attack``."""

    attack: ClassVar[type[Attack]]
    settings: ClassVar[Any] = None
    """Parameters to test with; the defaults of ``attack.Settings`` if there are none. Cheap ones test as well."""

    def test_meta_names_the_attack(self) -> None:
        """Plan, command line and fingerprint read the meta."""
        owner = self.attack.__name__
        meta = getattr(self.attack, "meta", None)
        if not isinstance(meta, AttackMeta):
            raise AssertionError(f"{owner}.meta must be an AttackMeta, got {meta!r}; write meta = AttackMeta(name=...)")
        expect_name_and_title(meta, owner=owner)
        for field, value, known in (
            ("kind", meta.kind, ("fixed", "minimum_norm")),
            ("applies_to", meta.applies_to, ("any", "deterministic", "randomized")),
            ("access", meta.access, get_args(Access)),
        ):
            expect(value in known, f"{owner}'s meta.{field} must be one of {', '.join(known)}, got {value!r}")
        expect(
            meta.norms and set(meta.norms) <= set(NORMS),
            f"{owner}'s meta.norms must be some of {', '.join(NORMS)}, got {meta.norms!r}",
        )
        settings = setting_names(self.attack.Settings)
        expect(
            meta.effort is None or (meta.effort in settings and meta.kind == "fixed" and not meta.single_step),
            f"{owner}'s meta.effort must be a setting of an attack that searches a budget, "
            f"one of {', '.join(settings) or 'none'}; got {meta.effort!r}",
        )
        digest_json(self._built().identity())

    def test_settings_are_a_frozen_dataclass_with_defaults(self) -> None:
        """Every parameter is part of the crafts' keys, and reached by ``--set``."""
        expect_frozen_with_defaults(self.attack.Settings, owner=f"{self.attack.__name__}.Settings")

    def test_unknown_settings_are_refused(self) -> None:
        """A misspelt ``--set`` must not run with the default."""
        expect_unknown_refused(self.attack.Settings, owner=f"{self.attack.__name__}.Settings")

    def test_budget_and_box_are_kept(self) -> None:
        """``verify`` refuses what leaves the budget or [0, 1]; nothing is clipped for an attack."""
        dataset = quick_dataset()
        images, labels = dataset.test.batch(torch.arange(12))
        target = _network_target(self.attack.meta.access)
        for norm in self.attack.meta.norms:
            for eps in _BUDGETS[norm] if self.attack.meta.kind == "fixed" else (None,):
                budget = Budget(norm=norm, eps=eps)
                adversarial = self._run(target, images, labels, budget)
                check_images(images, adversarial, budget, source=f"{self.attack.__name__} at {budget}")

    def test_same_seed_gives_the_same_images(self) -> None:
        """A craft is found again by its key, so what the key names must be all that matters."""
        for problem, budget in self._problems():
            first = self._run(problem.target(), problem.images, problem.labels, budget)
            with moved_generators():
                second = self._run(problem.target(), problem.images, problem.labels, budget)
            differing = int((first != second).flatten(1).any(dim=1).sum())
            expect(
                not differing,
                f"{self.attack.__name__} at {budget} must give the same images when run again with the same seed, "
                f"but {differing} of {len(first)} differ; draw from torch's global generator, which run() has seeded, "
                "and keep nothing in self between runs",
            )

    def test_leaves_everything_else_alone(self) -> None:
        """Other crafts share the images, the target and the process."""
        for problem, budget in self._problems():
            target = problem.target()
            images, labels = problem.images.clone(), problem.labels.clone()
            weights, generators = digest_module(target.module), global_generators()
            self._run(target, images, labels, budget)
            same = torch.equal(images, problem.images) and torch.equal(labels, problem.labels)
            gradients = [name for name, parameter in target.named_parameters() if parameter.grad is not None]
            thawed = [name for name, parameter in target.named_parameters() if parameter.requires_grad]
            who = f"{self.attack.__name__} at {budget}"
            expect(same, f"{who} must not change the clean images or labels; work on a copy")
            expect(
                global_generators() == generators,
                f"{who} must leave the global random generators where they were; draw inside _perturb only",
            )
            expect(
                digest_module(target.module) == weights,
                f"{who} must not change the target's weights or structure; only call target(images)",
            )
            expect(
                not gradients and not thawed,
                f"{who} must leave the target's parameters frozen and without gradients, but "
                f"{', '.join(gradients + thawed)} have changed; use torch.autograd.grad(loss, images)",
            )
            expect(
                not any(module.training for module in target.module.modules()),
                f"{who} must leave the target in evaluation mode; do not call train()",
            )

    def test_finds_the_boundary_of_a_linear_model(self) -> None:
        """An attack that cannot break a linear model proves nothing by failing to break a defence."""
        for problem, budget in self._problems():
            adversarial = self._run(problem.target(), problem.images, problem.labels, budget)
            success, aim = problem.fooled(adversarial), f"within {self._reach:g} times the distance to the boundary"
            if budget.eps is None:
                norms = perturbation_norms(problem.images, adversarial, budget.norm)
                success = success & (norms <= _SLACK * problem.distances)
                aim = f"at most {_SLACK:g} times as far away as the boundary"
            if of_pairs(self.attack.meta.access):
                aim = f"of pairs of equal values (which its detector accepts, and its generator makes) {aim}"
            share = float(success.double().mean())
            expect(
                share >= _SHARE,
                f"{self.attack.__name__} in {budget.norm} must find misclassified images of a linear model {aim} "
                f"for at least {_SHARE:.0%} of the images, found them for {share:.0%}; is the gradient's sign "
                "right, is the step long enough, and is the point that fooled the target the one returned?",
            )

    def test_misclassified_images_come_back_whole(self) -> None:
        """Images that the target gets wrong when clean are in every chunk."""
        for problem, budget in self._problems():
            wrong = torch.where(torch.arange(len(problem.labels)) % 2 == 0, problem.labels, (problem.labels + 1) % 4)
            for labels, which in ((wrong, "every second image"), ((problem.labels + 1) % 4, "every image")):
                adversarial = self._run(problem.target(), problem.images, labels, budget)
                expect(
                    torch.isfinite(adversarial).all(),
                    f"{self.attack.__name__} at {budget} must return finite images where the target gets {which} wrong "
                    "already; return such an image as it is, or the worst point found",
                )

    def test_takes_a_single_image(self) -> None:
        """The last chunk of a run may hold one image."""
        for problem, budget in self._problems():
            adversarial = self._run(problem.target(), problem.images[:1], problem.labels[:1], budget)
            expect(
                torch.isfinite(adversarial).all(),
                f"{self.attack.__name__} at {budget} must return a finite image when given one alone; "
                "do not squeeze() the batch away",
            )

    def _built(self) -> Attack:
        return self.attack(self.settings)

    def _run(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        return self._built().run(target, images, labels, budget, seed=_SEED)

    @property
    def _reach(self) -> float:
        return _BLIND_REACH if self.attack.meta.access in ("scores", "decisions") else _REACH

    def _problems(self) -> Iterator[tuple[LinearProblem, Budget]]:
        """Yield a linear problem in each of the attack's norms, with the budget that suffices there."""
        for norm in self.attack.meta.norms:
            problem = linear_problem(norm, self.attack.meta.access)
            fixed = self.attack.meta.kind == "fixed"
            reach = self._reach * float(problem.distances.max())
            yield problem, Budget(norm=norm, eps=(ceil(reach) if norm == "l0" else reach) if fixed else None)


def _network_target(access: Access) -> Target:
    """Return a small network trained on the digits, as a target that offers ``access``."""
    spec = quick_dataset().image_spec
    network = offering(_network(), access, (spec.channels, spec.height, spec.width))
    return Target(network, name="a small network", n_classes=spec.n_classes)


@cache
def _network() -> nn.Module:
    dataset = quick_dataset()
    with isolated_randomness(0):
        network = build_network("auto", dataset.image_spec)
        data = TrainingSet(split=dataset.train, digest=dataset.train.digest())
        train_network(network, data, recipe=QUICK_RECIPE, generator=torch.Generator().manual_seed(0))
    return network
