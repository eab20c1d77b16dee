"""Adversarial training: what its objectives compute, and for which budgets."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from dkd_baselines.robust_training import (
    WARM_UP,
    PGDObjective,
    PGDTraining,
    RobustSettings,
    Trades,
    TradesObjective,
    TradesSettings,
)
from dkd_bench.data import ImageSpec
from dkd_bench.errors import ConfigError
from dkd_bench.training import TrainingStep

DIGITS = ImageSpec(channels=1, height=8, width=8, n_classes=10)
MNIST = ImageSpec(channels=1, height=28, width=28, n_classes=10)
CIFAR = ImageSpec(channels=3, height=32, width=32, n_classes=10)
WEIGHTS = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 2.0, -0.5]])


def linear() -> nn.Sequential:
    layer = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(WEIGHTS)
    return nn.Sequential(nn.Flatten(), layer)


def step(images: Tensor, labels: Tensor, *, progress: float = 0.9) -> TrainingStep:
    return TrainingStep(
        indices=torch.arange(len(labels)),
        images=images,
        labels=labels,
        progress=progress,
        generator=torch.Generator().manual_seed(0),
    )


GRAY = torch.full((2, 1, 1, 3), 0.5)
LABELS = torch.tensor([0, 1])
FAR = RobustSettings(steps=20, rel_stepsize=0.5)


def cross_entropy_at_the_corner(eps: float) -> Tensor:
    """Against a linear network the worst point is a corner of the budget, known by hand."""
    direction = (WEIGHTS[1] - WEIGHTS[0]).sign()
    worst = GRAY.flatten(1) + eps * torch.stack([direction, -direction])
    return nn.functional.cross_entropy(worst @ WEIGHTS.T, LABELS)


def test_pgd_trains_on_the_worst_corner_of_a_linear_network() -> None:
    loss = PGDObjective(FAR, 0.2).step_loss(linear(), step(GRAY, LABELS))
    assert loss.item() == pytest.approx(cross_entropy_at_the_corner(0.2).item(), abs=1e-5)


def test_the_budget_grows_over_the_warm_up() -> None:
    half = PGDObjective(FAR, 0.2).step_loss(linear(), step(GRAY, LABELS, progress=WARM_UP / 2))
    assert half.item() == pytest.approx(cross_entropy_at_the_corner(0.1).item(), abs=1e-5)


def test_trades_is_cross_entropy_and_the_divergence_of_the_corner() -> None:
    images = GRAY + torch.tensor([0.1, -0.05, 0.2])
    settings = TradesSettings(beta=3.0, steps=20, rel_stepsize=0.5)
    loss = TradesObjective(settings, 0.1).step_loss(linear(), step(images, LABELS))
    clean = (images.flatten(1) @ WEIGHTS.T).log_softmax(dim=1)
    corners = [
        ((images.flatten(1) + 0.1 * sign * (WEIGHTS[1] - WEIGHTS[0]).sign()) @ WEIGHTS.T).log_softmax(dim=1)
        for sign in (-1, 1)
    ]
    # From noise beside the clean image the search climbs to one corner or to the other, image by image.
    one, other = ((clean.exp() * (clean - corner)).sum(dim=1) for corner in corners)
    reachable = [torch.stack(pair).mean() for pair in product(*zip(one, other, strict=True))]
    expected = [(nn.functional.cross_entropy(clean, LABELS) + 3.0 * divergence).item() for divergence in reachable]
    assert any(loss.item() == pytest.approx(each, abs=1e-5) for each in expected)


def test_images_stay_in_the_box() -> None:
    seen: list[Tensor] = []
    network = linear()
    network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach()))
    PGDObjective(FAR, 0.3).step_loss(network, step(torch.zeros(2, 1, 1, 3), LABELS))
    assert all(bool(((images >= 0) & (images <= 0.3 + 1e-6)).all()) for images in seen)


@pytest.mark.parametrize(("images", "eps"), [(DIGITS, 0.1), (MNIST, 0.3), (CIFAR, 8 / 255)])
def test_the_budget_is_that_of_the_images(images: ImageSpec, eps: float) -> None:
    assert PGDTraining(images).eps == eps
    assert Trades(images, TradesSettings(eps=0.2)).eps == 0.2


def test_identities_tell_objectives_apart() -> None:
    told = [
        PGDObjective(RobustSettings(), 0.3).identity(),
        PGDObjective(RobustSettings(), 0.1).identity(),
        PGDObjective(RobustSettings(steps=3), 0.3).identity(),
        TradesObjective(TradesSettings(), 0.3).identity(),
        TradesObjective(TradesSettings(beta=6.0), 0.3).identity(),
    ]
    assert all(one != other for place, one in enumerate(told) for other in told[place + 1 :])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": 1.5}, r"eps must be in \(0, 1\], or 0 for the dataset's own, got 1.5"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"rel_stepsize": 0.0}, "rel_stepsize and epochs_ratio must be positive, got 0.0 and 2.5"),
        ({"beta": -1.0}, "beta must be positive, got -1.0"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TradesSettings(**wrong)  # type: ignore[arg-type]
