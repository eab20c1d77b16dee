"""Network architectures: Table 1 of the paper, a small counterpart for digits, and the black-box references.

Each returns logits ``(N, K)``; the layer before the last is named ``latent`` (the paper's "close to the output").
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from torch import nn

from dkd_bench.data import ImageSpec
from dkd_bench.errors import ConfigError, UnknownNameError


def _convolution(channels_in: int, channels_out: int, kernel: int = 3, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(channels_in, channels_out, kernel, padding=padding), nn.ReLU()]


def _flattened_size(features: nn.Sequential, images: ImageSpec) -> int:
    import torch

    with torch.no_grad():
        features.eval()
        size = features(torch.zeros(1, images.channels, images.height, images.width)).numel()
        features.train()
    return int(size)


def _dense_head(features: nn.Sequential, images: ImageSpec, first: int, second: int) -> nn.Sequential:
    """Append two dense ReLU layers, the second the latent, and the logits."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["features"] = features
    parts["flatten"] = nn.Flatten()
    parts["dense"] = nn.Sequential(
        nn.Linear(_flattened_size(features, images), first), nn.ReLU(), nn.Linear(first, second)
    )
    parts["latent"] = nn.ReLU()
    parts["logits"] = nn.Linear(second, images.n_classes)
    return nn.Sequential(parts)


def table1_mnist(images: ImageSpec) -> nn.Sequential:
    """Return Table 1's MNIST network: 32-32, pool, 64-64, pool (unpadded 3x3), 200, 200, softmax."""
    features = nn.Sequential(
        *_convolution(images.channels, 32),
        *_convolution(32, 32),
        nn.MaxPool2d(2),
        *_convolution(32, 64),
        *_convolution(64, 64),
        nn.MaxPool2d(2),
    )
    return _dense_head(features, images, 200, 200)


def table1_cifar10(images: ImageSpec) -> nn.Sequential:
    """Return Table 1's CIFAR10 network: 96 x 3, pool, 192 x 3, pool, 192 (3x3, 1x1, 1x1), average pool."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["features"] = nn.Sequential(
        *_convolution(images.channels, 96, padding=1),
        *_convolution(96, 96, padding=1),
        *_convolution(96, 96, padding=1),
        nn.MaxPool2d(2),
        *_convolution(96, 192, padding=1),
        *_convolution(192, 192, padding=1),
        *_convolution(192, 192, padding=1),
        nn.MaxPool2d(2),
        *_convolution(192, 192, padding=1),
        *_convolution(192, 192, kernel=1),
        *_convolution(192, 192, kernel=1),
    )
    parts["latent"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts["logits"] = nn.Linear(192, images.n_classes)
    return nn.Sequential(parts)


def small(images: ImageSpec) -> nn.Sequential:
    """Return a small counterpart of Table 1's MNIST network for 8x8 images: 8-8, pool, 16-16, pool, 64, 64."""
    features = nn.Sequential(
        *_convolution(images.channels, 8, padding=1),
        *_convolution(8, 8, padding=1),
        nn.MaxPool2d(2),
        *_convolution(8, 16, padding=1),
        *_convolution(16, 16, padding=1),
        nn.MaxPool2d(2),
    )
    return _dense_head(features, images, 64, 64)


def strided(images: ImageSpec) -> nn.Sequential:
    """Return the small network of Wong and Kolter 2018: 4x4 convolutions of 16 and 32 with stride 2, 100, logits.

    Twenty times cheaper than Table 1's, for training that needs many gradients of every image.
    """
    features = nn.Sequential(
        nn.Conv2d(images.channels, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
    )
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["features"] = features
    parts["flatten"] = nn.Flatten()
    parts["dense"] = nn.Linear(_flattened_size(features, images), 100)
    parts["latent"] = nn.ReLU()
    parts["logits"] = nn.Linear(100, images.n_classes)
    return nn.Sequential(parts)


def lenet(images: ImageSpec) -> nn.Sequential:
    """Return LeNet-5 (LeCun et al. 1998) with ReLU and max pooling; padded for images under 28 pixels."""
    padding = 0 if min(images.height, images.width) >= 28 else 2
    features = nn.Sequential(
        *_convolution(images.channels, 6, kernel=5, padding=2),
        nn.MaxPool2d(2),
        *_convolution(6, 16, kernel=5, padding=padding),
        nn.MaxPool2d(2),
    )
    return _dense_head(features, images, 120, 84)


def vgg16(images: ImageSpec) -> nn.Sequential:
    """Return VGG16 (Simonyan and Zisserman 2015, configuration D) with batch norm and one dense layer."""
    layers: list[nn.Module] = []
    channels = images.channels
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["features"] = nn.Sequential(*layers)
    parts["latent"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts["logits"] = nn.Linear(512, images.n_classes)
    return nn.Sequential(parts)


NETWORKS: Mapping[str, Callable[[ImageSpec], nn.Sequential]] = {
    "table1-mnist": table1_mnist,
    "table1-cifar10": table1_cifar10,
    "small": small,
    "strided": strided,
    "lenet": lenet,
    "vgg16": vgg16,
}

_SMALLEST = {"table1-mnist": 16, "table1-cifar10": 4, "small": 4, "strided": 4, "lenet": 4, "vgg16": 32}


def build_network(name: str, images: ImageSpec) -> nn.Sequential:
    """Return the untrained network called ``name``, or with ``auto`` the one of Table 1 that fits the images.

    Raises:
        UnknownNameError: if there is no network of that name.
        ConfigError: if the images are too small for it.
    """
    if name == "auto":
        name = member_network_name(images)
    if name not in NETWORKS:
        raise UnknownNameError("network", name, ["auto", *NETWORKS], known_as="Networks")
    if min(images.height, images.width) < _SMALLEST[name]:
        raise ConfigError(
            f"network {name!r} needs images of at least {_SMALLEST[name]} pixels a side, "
            f"got {images.height} x {images.width}; use 'auto'"
        )
    return NETWORKS[name](images)


def member_network_name(images: ImageSpec) -> str:
    """Return the network of an ensemble's member: by Table 1 for gray and colour images, small under 16 pixels."""
    if min(images.height, images.width) < 16:
        return "small"
    return "table1-mnist" if images.channels == 1 else "table1-cifar10"


def reference_network_name(images: ImageSpec) -> str:
    """Return the black-box reference: VGG16 for colour images of 32 pixels and more, else LeNet (section 4.2)."""
    return "vgg16" if images.channels == 3 and min(images.height, images.width) >= 32 else "lenet"
