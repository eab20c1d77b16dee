"""Square: where there is no gradient, and where detectors reject."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dkd_bench.attacks.foolbox.table import FGSM
from dkd_bench.attacks.square import Square, SquareSettings
from dkd_bench.budget import Budget, perturbation_norms
from dkd_bench.errors import ConfigError
from dkd_bench.target import Target
from dkd_bench.target.surrogates import Detecting

QUICK = SquareSettings(queries=200)


class Rounding(nn.Module):
    """Sees images of five gray levels, and does not say how to get from one to the next."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network((x * 4).round() / 4)


class Bright(Detecting):
    """Says class 1 if the left half is brighter than the right one, and rejects what is brighter than a limit."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, x):
        half = x.shape[3] // 2
        margin = 10 * (x[..., :half] - x[..., half:]).flatten(1).mean(dim=1)
        return torch.stack([torch.zeros_like(margin), margin], dim=1)

    def rejections(self, x):
        return x.flatten(1).mean(dim=1, keepdim=True) - self.limit


def shaded(n_images, side=8):
    """Return images whose right half is a little brighter, and their label, 0."""
    images = 0.45 + 0.02 * torch.rand(n_images, 1, side, side, generator=torch.Generator().manual_seed(0))
    images[..., side // 2 :] += 0.05
    return images, torch.zeros(n_images, dtype=torch.int64)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_breaks_what_has_no_gradient_and_leaves_fgsm_where_it_was(linear, norm):
    target = Target(Rounding(linear.module()), name="rounding", n_classes=4)
    labels = target(linear.images).argmax(dim=1)
    budget = Budget(norm=norm, eps=0.3 if norm == "linf" else 1.5)

    by_gradient, by_search = (
        attack.run(target, linear.images, labels, budget, seed=0) for attack in (FGSM(), Square())
    )

    assert torch.equal(target(by_gradient).argmax(dim=1), labels)
    assert (target(by_search).argmax(dim=1) != labels).double().mean() > 0.9


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_gradient_is_asked_for(linear, norm):
    target = linear.target(access="scores")
    eps = 2.5 * float(linear.distances(norm).median())

    adversarial = Square(QUICK).run(target, linear.images, linear.labels, Budget(norm=norm, eps=eps), seed=0)

    assert linear.fooled(adversarial).double().mean() > 0.5
    assert target.backward_passes == 0


@pytest.mark.parametrize("side", [6, 8, 28])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_squares_fit_into_small_images(norm, side):
    images, labels = shaded(5, side)
    target = Target(Bright(limit=2.0), name="bright", n_classes=2)
    budget = Budget(norm=norm, eps=0.1 if norm == "linf" else 0.1 * side)

    adversarial = Square(QUICK).run(target, images, labels, budget, seed=0)

    assert (target(adversarial).argmax(dim=1) == 1).all()
    assert (perturbation_norms(images, adversarial, norm) <= budget.eps + 1e-6).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_rejected_image_is_no_success(norm):
    images, labels = shaded(12)
    budget = Budget(norm=norm, eps=0.1 if norm == "linf" else 0.8)
    open_door, guarded = (Target(Bright(limit), name="bright", n_classes=2) for limit in (2.0, 0.485))

    careless, careful = (Square(QUICK).run(target, images, labels, budget, seed=0) for target in (open_door, guarded))

    assert (guarded(careless).argmax(dim=1) == 1).all()
    assert (guarded.rejections(careless) > 0).any()
    assert (guarded(careful).argmax(dim=1) == 1).all()
    assert (guarded.rejections(careful) <= 0).all()


def test_where_all_is_rejected_what_is_least_right_and_least_rejected_comes_back():
    images, labels = shaded(6)
    target, budget = Target(Bright(limit=-1.0), name="bright", n_classes=2), Budget(norm="linf", eps=0.1)

    def loss(x):
        return (-target(x)[:, 1]).clamp_min(0) + target.rejections(x).squeeze(1)

    adversarial = Square(QUICK).run(target, images, labels, budget, seed=0)

    assert (loss(adversarial) < loss(images) - 0.4).all()
    assert (perturbation_norms(images, adversarial, "linf") <= 0.1 + 1e-6).all()


def test_more_restarts_never_do_worse(linear):
    eps = 1.5 * float(linear.distances("linf").median())
    once, thrice = (
        Square(SquareSettings(queries=50, restarts=restarts)).run(
            linear.target(), linear.images, linear.labels, Budget(norm="linf", eps=eps), seed=0
        )
        for restarts in (1, 3)
    )

    assert (linear.fooled(thrice) | ~linear.fooled(once)).all()
    assert linear.fooled(thrice).sum() > linear.fooled(once).sum()


def test_no_more_queries_than_announced(linear):
    target = linear.target()

    Square(SquareSettings(queries=30, restarts=2)).run(
        target, linear.images, linear.labels, Budget(norm="linf", eps=1e-3), seed=0
    )

    assert target.forward_passes == len(linear.images) * (1 + 2 * (1 + 30 + 1))


class Undecided(nn.Module):
    """Answers the same to all images: all classes alike, so the first one."""

    def forward(self, x):
        return torch.zeros(len(x), 3)


def test_a_tie_is_judged_by_the_answer():
    images = torch.full((2, 1, 8, 8), 0.5)
    target = Target(Undecided(), name="undecided", n_classes=3)

    adversarial = Square(QUICK).run(target, images, torch.tensor([0, 1]), Budget(norm="linf", eps=0.1), seed=0)

    assert torch.equal(adversarial[1], images[1])
    assert target.forward_passes == 2 + 2 + 200 + 2


@pytest.mark.parametrize("name", ["queries", "restarts", "p_init"])
def test_parameters_are_checked(name):
    with pytest.raises(ConfigError, match=f"{name} must be over 0, got 0"):
        SquareSettings(**{name: 0})
