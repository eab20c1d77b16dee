"""The networks: shapes and sizes as in Table 1, counted by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from dkd_bench.data import ImageSpec
from dkd_bench.errors import ConfigError, UnknownNameError
from dkd_bench.training import captured_latent
from dkd_bench.training.networks import NETWORKS, build_network, member_network_name, reference_network_name

DIGITS = ImageSpec(channels=1, height=8, width=8, n_classes=10)
MNIST = ImageSpec(channels=1, height=28, width=28, n_classes=10)
CIFAR10 = ImageSpec(channels=3, height=32, width=32, n_classes=10)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolution(channels_in: int, channels_out: int, kernel: int = 3) -> int:
    return channels_in * channels_out * kernel**2 + channels_out


def dense(units_in: int, units_out: int) -> int:
    return units_in * units_out + units_out


def sides(network: nn.Sequential, images: ImageSpec, kinds: tuple[type[nn.Module], ...]) -> list[int]:
    """Return the height of the image after each layer of these kinds."""
    seen: list[int] = []
    for layer in network.modules():
        if isinstance(layer, kinds):
            layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[2]))
    network(torch.zeros(1, images.channels, images.height, images.width))
    return seen


SHRINKING = (nn.Conv2d, nn.MaxPool2d)


def test_table1_mnist() -> None:
    network = build_network("table1-mnist", MNIST)
    assert sides(network, MNIST, SHRINKING) == [26, 24, 12, 10, 8, 4]
    assert network.features(torch.zeros(2, 1, 28, 28)).flatten(1).shape == (2, 1024)
    assert parameters(network) == (
        convolution(1, 32)
        + convolution(32, 32)
        + convolution(32, 64)
        + convolution(64, 64)
        + dense(1024, 200)
        + dense(200, 200)
        + dense(200, 10)
    )
    assert parameters(network) == 312_202


def test_table1_cifar10() -> None:
    network = build_network("table1-cifar10", CIFAR10)
    assert sides(network, CIFAR10, SHRINKING) == [32, 32, 32, 16, 16, 16, 16, 8, 8, 8, 8]
    assert parameters(network) == (
        convolution(3, 96)
        + 2 * convolution(96, 96)
        + convolution(96, 192)
        + 3 * convolution(192, 192)
        + 2 * convolution(192, 192, kernel=1)
        + dense(192, 10)
    )


def test_small() -> None:
    network = build_network("small", DIGITS)
    assert sides(network, DIGITS, SHRINKING) == [8, 8, 4, 4, 4, 2]
    assert parameters(network) == (
        convolution(1, 8)
        + convolution(8, 8)
        + convolution(8, 16)
        + convolution(16, 16)
        + dense(64, 64)
        + dense(64, 64)
        + dense(64, 10)
    )


@pytest.mark.parametrize(("images", "flattened"), [(MNIST, 16 * 5 * 5), (DIGITS, 16 * 2 * 2)])
def test_lenet(images: ImageSpec, flattened: int) -> None:
    assert parameters(build_network("lenet", images)) == (
        convolution(1, 6, kernel=5)
        + convolution(6, 16, kernel=5)
        + dense(flattened, 120)
        + dense(120, 84)
        + dense(84, 10)
    )


def test_vgg16() -> None:
    network = build_network("vgg16", CIFAR10)
    assert sides(network, CIFAR10, (nn.MaxPool2d,)) == [16, 8, 4, 2, 1]
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(convolution(before, after) for before, after in pairwise(widths))
    normalisation = 2 * sum(widths[1:])
    assert parameters(network) == convolutions + normalisation + dense(512, 10)
    assert sum(isinstance(layer, nn.Conv2d) for layer in network.modules()) == 13


@pytest.mark.parametrize(
    ("name", "images", "width"),
    [
        ("table1-mnist", MNIST, 200),
        ("table1-cifar10", CIFAR10, 192),
        ("small", DIGITS, 64),
        ("lenet", MNIST, 84),
        ("lenet", DIGITS, 84),
        ("vgg16", CIFAR10, 512),
    ],
)
def test_latents_and_logits(name: str, images: ImageSpec, width: int) -> None:
    network = build_network(name, images).eval()
    with torch.no_grad(), captured_latent(network, "latent") as captured:
        logits = network(torch.rand(3, images.channels, images.height, images.width))
    assert logits.shape == (3, 10)
    assert captured[0].flatten(1).shape == (3, width)
    torch.testing.assert_close(network.logits(captured[0]).detach(), logits)
    assert (logits.sum(dim=1) - 1).abs().max() > 1e-3, "logits, not probabilities"


@pytest.mark.parametrize(
    ("images", "member", "reference"),
    [
        (DIGITS, "small", "lenet"),
        (MNIST, "table1-mnist", "lenet"),
        (CIFAR10, "table1-cifar10", "vgg16"),
        (ImageSpec(channels=3, height=28, width=40, n_classes=4), "table1-cifar10", "lenet"),
        (ImageSpec(channels=3, height=40, width=8, n_classes=4), "small", "lenet"),
        (ImageSpec(channels=1, height=16, width=16, n_classes=2), "table1-mnist", "lenet"),
    ],
)
def test_names_that_fit_the_images(images: ImageSpec, member: str, reference: str) -> None:
    assert member_network_name(images) == member
    assert reference_network_name(images) == reference
    assert repr(build_network("auto", images)) == repr(build_network(member, images))
    logits = build_network(reference, images).eval()(torch.zeros(1, images.channels, images.height, images.width))
    assert logits.shape == (1, images.n_classes)


SMALLEST = {"table1-mnist": 16, "table1-cifar10": 4, "small": 4, "strided": 4, "lenet": 4, "vgg16": 32}


def test_every_network_is_tested_at_its_smallest() -> None:
    assert set(SMALLEST) == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_smallest_images(name: str) -> None:
    side = SMALLEST[name]
    images = ImageSpec(channels=3, height=side, width=side + 3, n_classes=2)
    assert build_network(name, images).eval()(torch.zeros(1, 3, side, side + 3)).shape == (1, 2)
    smaller = ImageSpec(channels=3, height=side - 1, width=side + 3, n_classes=2)
    message = (
        rf"network '{name}' needs images of at least {side} pixels a side, got {side - 1} x {side + 3}; use 'auto'"
    )
    with pytest.raises(ConfigError, match=message):
        build_network(name, smaller)


def test_unknown_network() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no network named 'lennet'\. Did you mean 'lenet'\? Networks: auto, lenet"
    ):
        build_network("lennet", MNIST)


@pytest.mark.parametrize("name", NETWORKS)
def test_building_depends_on_the_global_generator_alone(name: str) -> None:
    def weights() -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(4)
            network = build_network(name, CIFAR10)
        assert network.training
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    assert torch.equal(weights(), weights())
