"""The probe against defences whose fault is known, and honest ones that must pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from dkd_bench.data import ImageSpec
from dkd_bench.defense import Defense, DefenseMeta
from dkd_bench.doubts.answers import gradients_of, probe, without_gradient
from dkd_bench.records.flags import (
    BAD_GRADIENTS,
    FLAGS,
    MISLEADING,
    OPTIMIZES,
    PROBABILITIES,
    RANDOM,
    ZERO_GRADIENTS,
)
from dkd_bench.target import Target
from dkd_bench.target.surrogates import BPDA

SPEC = ImageSpec(channels=1, height=4, width=4, n_classes=3)
IMAGES = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def linear(scale: float = 1.0) -> nn.Sequential:
    layer = nn.Linear(16, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, 16, generator=torch.Generator().manual_seed(1)) * scale)
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer)


def relu() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3))


class Plain(Defense):
    """One linear network, and whatever step before it a subclass takes."""

    meta: ClassVar[DefenseMeta] = DefenseMeta(name="plain", title="Plain")

    def __init__(self, network: nn.Module) -> None:
        super().__init__(SPEC)
        self.network = network

    @property
    def members(self) -> Sequence[nn.Module]:
        return [self.network]

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.network(x).argmax(dim=1)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class Quantised(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 4).round() / 4


class Searching(nn.Module):
    """One gradient step on the way to the answer."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            point = x.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(point.square().sum(), point)
        return x - 0.1 * gradient


def flags_of(defense: Plain) -> list[str]:
    return [flag.name for flag in probe(defense.eval(), IMAGES)]


def stepped(step: nn.Module) -> Plain:
    return Plain(nn.Sequential(step, *linear()))


@pytest.mark.parametrize(
    ("defense", "flag"),
    [
        pytest.param(Plain(linear(scale=1e5)), ZERO_GRADIENTS, id="logits scaled until the softmax saturates"),
        pytest.param(stepped(Quantised()), ZERO_GRADIENTS, id="gradients shattered by rounding"),
        pytest.param(stepped(Noise()), RANDOM, id="noise"),
        pytest.param(stepped(Searching()), OPTIMIZES, id="gradients inside"),
        pytest.param(Plain(nn.Sequential(*linear(), nn.Softmax(dim=1))), PROBABILITIES, id="softmax at the end"),
    ],
)
def test_each_fault_raises_its_flag_and_no_other(defense: Plain, flag: str) -> None:
    assert flags_of(defense) == [flag]


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(linear(), id="linear"),
        pytest.param(relu(), id="relu"),
        pytest.param(nn.Sequential(*linear(), nn.LogSoftmax(dim=1)), id="log-probabilities"),
    ],
)
def test_an_honest_network_raises_none(network: nn.Module) -> None:
    assert probe(Plain(network).eval(), IMAGES) == ()


def test_what_is_declared_is_no_flag() -> None:
    class Declared(Plain):
        meta = DefenseMeta(name="declared", title="Declared", randomized=True, optimizes=True)

    assert probe(Declared(nn.Sequential(Noise(), Searching(), *linear())).eval(), IMAGES) == ()


def test_a_backward_pass_of_its_own_ends_the_zero_gradients() -> None:
    class Adapted(Plain):
        meta = DefenseMeta(name="adapted", title="Adapted", non_differentiable=True)

        def surrogates(self) -> Mapping[str, nn.Module]:
            return {"bpda-identity": BPDA(self.network[0], self.network[1:])}

    assert probe(Adapted(nn.Sequential(Quantised(), *linear())).eval(), IMAGES) == ()


def test_one_surrogate_with_a_gradient_is_enough() -> None:
    """The joint attack takes the strongest surrogate of each image."""
    blind, seeing = nn.Sequential(Quantised(), *linear()), linear()
    assert without_gradient(gradients_of({"blind": blind}, IMAGES)) == 1
    assert without_gradient(gradients_of({"blind": blind, "seeing": seeing}, IMAGES)) == 0


def test_bpda_is_exact_forward_and_the_other_step_backward() -> None:
    network, x = linear(), IMAGES.clone().requires_grad_()
    for backward, factor in ((None, 1.0), (Scaled(3.0), 3.0)):
        module = BPDA(Quantised(), network, backward=backward)
        logits = module(x)
        assert torch.equal(logits, network(Quantised()(IMAGES)))
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x)
        assert torch.allclose(gradient.flatten(1), factor * network[1].weight[0].expand(16, -1))


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def test_the_probe_leaves_random_numbers_alone() -> None:
    defense = stepped(Noise()).eval()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    probe(defense, IMAGES)
    assert torch.equal(torch.rand(1), expected)


def test_every_flag_says_what_it_means_and_what_to_do() -> None:
    assert all(name == flag.name and flag.meaning and flag.remedy for name, flag in FLAGS.items())


def test_a_target_without_detectors_or_generator_says_so() -> None:
    from dkd_bench.errors import AttackError

    target = Target(linear(), name="plain whole", n_classes=3)
    with pytest.raises(AttackError, match="plain whole has no detectors; this attack is for surrogates"):
        target.rejections(IMAGES)
    with pytest.raises(AttackError, match="plain whole has no generator; this attack is for surrogates"):
        _ = target.generator


class Junked(nn.Module):
    """Answers for a rounded image, and has the gradient of something else."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.junk = linear(), nn.Linear(16, 3, bias=False)
        with torch.no_grad():
            self.junk.weight.copy_(1e-4 * torch.randn(3, 16, generator=torch.Generator().manual_seed(2)))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network((x * 4).round() / 4) + self.junk(x.flatten(1))
        return logits


def test_a_gradient_that_leads_nowhere_is_found_out() -> None:
    (flag,) = probe(Plain(Junked()).eval(), IMAGES)
    assert flag.name == MISLEADING
    assert flag.share is not None
    assert flag.share > 0.5


def test_a_gradient_that_is_no_number_is_no_randomness() -> None:
    class Rooted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x.detach()).sqrt() + x

    assert flags_of(stepped(Rooted())) == [BAD_GRADIENTS]


def test_rounding_is_no_randomness() -> None:
    class Rounding(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * (1 + 2e-7 * (self.calls % 2))

    defense = stepped(Rounding())
    assert not torch.equal(defense.network(IMAGES), defense.network(IMAGES))
    assert flags_of(defense) == []
