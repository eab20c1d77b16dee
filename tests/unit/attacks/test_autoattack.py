"""AutoAttack's failures, each seen to be kept away from the result; and that it is AutoAttack still."""

from __future__ import annotations

import sys
from dataclasses import replace

import pyautoattack
import pyautoattack.checks
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from torch import nn

from dkd_bench.attacks.autoattack import (
    AutoAttackRand,
    AutoAttackRandSettings,
    AutoAttackSettings,
    AutoAttackStandard,
)
from dkd_bench.budget import Budget, perturbation_norms
from dkd_bench.errors import ConfigError
from dkd_bench.target import Target

SMALL = AutoAttackSettings(apgd_steps=10, fab_steps=5, square_queries=20)
SMALL_RAND = AutoAttackRandSettings(apgd_steps=10, eot_iter=4, selection_draws=20)
NORMS = {"linf": "Linf", "l2": "L2"}


class Noisy(nn.Module):
    """Adds noise to another network's logits, drawn from the global generator."""

    def __init__(self, network, *, scale):
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, x):
        logits = self.network(x)
        return logits + self.scale * torch.randn(logits.shape, dtype=logits.dtype)


def wrong_rate(target, images, labels, *, draws=200):
    with torch.random.fork_rng():
        torch.manual_seed(99)
        return torch.stack([target(images).argmax(dim=1) != labels for _ in range(draws)]).double().mean(dim=0)


@pytest.mark.parametrize(
    ("n_classes", "standard", "rand"),
    [
        (2, ("apgd-ce", "fab-t", "square"), ("apgd-ce",)),
        (3, ("apgd-ce", "fab-t", "square"), ("apgd-ce", "apgd-dlr")),
        (4, ("apgd-ce", "apgd-t", "fab-t", "square"), ("apgd-ce", "apgd-dlr")),
        (10, ("apgd-ce", "apgd-t", "fab-t", "square"), ("apgd-ce", "apgd-dlr")),
    ],
)
def test_the_sub_attacks_depend_on_the_number_of_classes(n_classes, standard, rand):
    assert AutoAttackStandard().variant(n_classes) == standard
    assert AutoAttackRand().variant(n_classes) == rand


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("n_classes", [2, 3, 4, 12])
@pytest.mark.parametrize("attack", [AutoAttackStandard(SMALL), AutoAttackRand(SMALL_RAND)])
def test_any_number_of_classes_is_attacked(problem, attack, n_classes, norm):
    linear = problem(n_classes=n_classes, n_images=20)
    distances = linear.distances(norm)
    eps = float(distances.median())

    adversarial = attack.run(linear.target(), linear.images, linear.labels, Budget(norm=norm, eps=eps), seed=0)

    assert linear.fooled(adversarial)[distances < eps / 1.1].double().mean() > 0.8


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_the_library_breaks_comes_back_bit_for_bit(problem, norm):
    linear = problem(n_classes=10, n_images=20)
    eps = float(linear.distances(norm).median())
    target = linear.target()
    library = pyautoattack.AutoAttack(target, eps=eps, norm=NORMS[norm], seed=5)
    library.fab.n_iter, library.square.n_queries = 5, 20
    tracer = sys.gettrace()
    theirs, _ = library.run_standard_evaluation(linear.images, linear.labels, batch_size=20)
    sys.settrace(tracer)

    ours = AutoAttackStandard(AutoAttackSettings(fab_steps=5, square_queries=20)).run(
        target, linear.images, linear.labels, Budget(norm=norm, eps=eps), seed=5
    )

    broken = linear.fooled(theirs)
    assert 0 < broken.sum() < len(broken)
    assert torch.equal(ours[broken], theirs[broken])
    assert torch.equal(linear.fooled(ours), broken)


@pytest.mark.parametrize("wrong_when_clean", [False, True])
def test_no_image_comes_back_clean_where_a_point_of_higher_loss_exists(linear, wrong_when_clean):
    """The library would return the clean image, and another judge would call that survival."""
    eps = 0.2 * float(linear.distances("linf").min())
    labels = (linear.labels + 1) % linear.n_classes if wrong_when_clean else linear.labels

    adversarial = AutoAttackStandard(SMALL).run(
        linear.target(), linear.images, labels, Budget(norm="linf", eps=eps), seed=0
    )

    losses = [
        nn.functional.cross_entropy(linear.logits(images), labels, reduction="none")
        for images in (linear.images, adversarial)
    ]
    assert (losses[1] > losses[0]).all()
    assert (perturbation_norms(linear.images, adversarial, "linf") > 0.99 * eps).all()


def test_later_sub_attacks_break_what_apgd_on_cross_entropy_cannot(problem):
    """Logits so large that the cross-entropy has no gradient left: FAB and Square need none of it."""
    linear = problem(n_classes=4, n_images=20)
    linear.weight, linear.bias = 1e5 * linear.weight, 1e5 * linear.bias
    distances = linear.distances("linf")
    eps = 1.5 * float(distances.max())
    confident = distances > 0.1 * distances.max()

    adversarial = AutoAttackStandard(SMALL).run(
        linear.target(), linear.images, linear.labels, Budget(norm="linf", eps=eps), seed=0
    )

    assert linear.fooled(adversarial)[confident].all()


def test_the_process_is_left_alone(linear):
    """``check_dynamic`` of the library counts calls in a global for ever after, and removes any tracer."""

    class Dynamic(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            with torch.enable_grad():
                probe = x.detach().requires_grad_()
                torch.autograd.grad(self.network(probe).sum(), probe)
            return self.network(x)

    target = Target(Dynamic(linear.module()), name="dynamic", n_classes=4)
    counters = dict(pyautoattack.checks.funcs)
    before, mine = sys.gettrace(), lambda *_: None
    sys.settrace(mine)
    try:
        AutoAttackStandard(SMALL).run(target, linear.images, linear.labels, Budget(norm="linf", eps=0.01), seed=0)
        after = sys.gettrace()
    finally:
        sys.settrace(before)

    assert after is mine
    assert pyautoattack.checks.funcs == counters


def test_flags_of_the_library_are_not_printed(linear, caplog, recwarn):
    """A target without gradients: the library prints or, without a logger, warns."""

    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([4.0, 3.0, 2.0, 1.0]) + 0 * x.flatten(1)[:, :4]

    target, labels = Target(Constant(), name="constant", n_classes=4), torch.zeros_like(linear.labels)
    for attack in (AutoAttackStandard(SMALL), AutoAttackRand(SMALL_RAND)):
        attack.run(target, linear.images, labels, Budget(norm="linf", eps=0.1), seed=0)

    assert not caplog.records
    assert not recwarn.list


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_rand_finds_what_stays_misclassified_over_fresh_draws(linear, norm):
    """The library stops at the first image or point that one draw gets wrong."""
    eps = float(linear.distances(norm).quantile(0.7))
    target = Target(Noisy(linear.module(), scale=2.0), name="noisy", n_classes=4)
    library = pyautoattack.AutoAttack(target, eps=eps, norm=NORMS[norm], seed=5, version="rand")
    library.apgd = APGDAttack(target, eps=eps, norm=NORMS[norm], n_iter=10, eot_iter=4, logger=library.logger)
    tracer = sys.gettrace()
    theirs, _ = library.run_standard_evaluation(linear.images, linear.labels, batch_size=70)
    sys.settrace(tracer)

    ours = AutoAttackRand(SMALL_RAND).run(target, linear.images, linear.labels, Budget(norm=norm, eps=eps), seed=5)

    ours_wrong, theirs_wrong = (wrong_rate(target, images, linear.labels) for images in (ours, theirs))
    assert ours_wrong.mean() > theirs_wrong.mean() + 0.05
    assert (ours_wrong > theirs_wrong - 0.3).all()


def test_rand_compares_candidates_over_more_than_one_draw(linear):
    target = Target(Noisy(linear.module(), scale=10.0), name="very noisy", n_classes=4)
    eps = float(linear.distances("linf").median())

    one, many = (
        AutoAttackRand(replace(SMALL_RAND, selection_draws=draws)).run(
            target, linear.images, linear.labels, Budget(norm="linf", eps=eps), seed=0
        )
        for draws in (1, 50)
    )

    one_wrong, many_wrong = (wrong_rate(target, images, linear.labels) for images in (one, many))
    assert many_wrong.mean() > one_wrong.mean() + 0.01


def test_rand_attacks_images_that_one_draw_gets_wrong(linear):
    target = Target(Noisy(linear.module(), scale=3.0), name="very noisy", n_classes=4)

    adversarial = AutoAttackRand(SMALL_RAND).run(
        target, linear.images, linear.labels, Budget(norm="linf", eps=0.1), seed=0
    )

    moved = perturbation_norms(linear.images, adversarial, "linf") > 0
    assert moved.all()


@pytest.mark.parametrize("settings", [AutoAttackSettings, AutoAttackRandSettings])
def test_parameters_are_checked(settings):
    with pytest.raises(ConfigError, match="apgd_steps must be over 0, got 0"):
        settings(apgd_steps=0)
