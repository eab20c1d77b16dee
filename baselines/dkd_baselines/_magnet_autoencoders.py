"""Autoencoders of MagNet, and the loss that they are trained to minimise."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from dkd_bench.api import ConfigError, ImageSpec, Objective, TrainingBatch, TrainingStep

Layout = Literal["I", "II"]
"""Layout of an autoencoder. I: convolution, average pooling, convolution, and back; II: without the pooling."""

WIDTH = 3
"""Number of channels between the images and their reconstruction."""

_NOISE_CHUNK = 1000


@final
class Autoencoders(nn.Module):
    """Autoencoders of one layout side by side: 3x3 convolutions, each group of channels an autoencoder of its own.

    All activations are sigmoids (Meng and Chen 2017, Tables 2 and 4); weights begin as Keras leaves them.
    """

    def __init__(self, images: ImageSpec, *, layout: Layout, count: int = 1) -> None:
        """Build ``count`` autoencoders.

        Raises:
            ConfigError: if the layout halves the images and a side is odd.
        """
        super().__init__()
        self.layout = layout
        self.count = count
        self.pooled = layout == "I"
        if self.pooled and (images.height % 2 or images.width % 2):
            raise ConfigError(
                f"MagNet's autoencoder I halves the images, so their sides must be even, "
                f"got {images.height} x {images.width}; pad them"
            )
        widths = [images.channels, *[WIDTH] * (4 if self.pooled else 2), images.channels]
        self.convolutions = nn.ModuleList(
            _grouped(incoming, outgoing, count) for incoming, outgoing in pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return every autoencoder's reconstruction, ``(N, count, C, H, W)`` in [0, 1], of images ``(N, C, H, W)``."""
        reconstructions: Tensor = self.activations(x)[-1].unflatten(1, (self.count, -1))
        return reconstructions

    def activations(self, x: Tensor, *, only: int | None = None) -> list[Tensor]:
        """Return the output of every convolution, the reconstruction last: of all side by side, or of one alone."""
        y = x.repeat(1, self.count, 1, 1) if only is None else x
        outputs = []
        for position, convolution in enumerate(self.convolutions):
            assert isinstance(convolution, nn.Conv2d), "built so"
            if self.pooled and position == 1:
                y = nn.functional.avg_pool2d(y, 2)
            elif self.pooled and position == 3:
                y = nn.functional.interpolate(y, scale_factor=2.0)
            y = (convolution(y) if only is None else _one_group(convolution, y, only)).sigmoid()
            outputs.append(y)
        return outputs

    def extra_repr(self) -> str:
        """Show the layout: where it pools is in no weight."""
        return f"layout={self.layout}, count={self.count}"


@final
class Reconstruction(nn.Module):
    """One autoencoder out of ``Autoencoders``."""

    def __init__(self, autoencoders: Autoencoders, index: int) -> None:
        """Take the autoencoder at ``index``."""
        super().__init__()
        self.autoencoders = autoencoders
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of images ``(N, C, H, W)``, of their shape, in [0, 1]."""
        return self.autoencoders.activations(x, only=self.index)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoisingTerms:
    """Terms of the autoencoders' loss, with what else its key needs."""

    noise: float
    """Standard deviation of the Gaussian noise on the images, in [0, 1] pixel units."""
    noise_seed: int
    n_held_out: int
    """Number of images kept from training; no part of the loss, but of its key."""
    activity: float = 0.0
    """Weight of the squares of all outputs, summed over a batch."""
    diversity: float = 0.0
    """Weight of the distance from the mean of all reconstructions."""
    apart: float = 0.0
    """The fraction of training that comes before ``diversity`` counts."""


@final
class Denoising(Objective):
    """The error of every autoencoder's reconstruction of noisy images, less their distance from their mean.

    ``sum_i MSE(AE_i(x~), x) - diversity * sum_i MSE(AE_i(x~), mean_k AE_k(x~))`` (Meng and Chen 2017, section 3.6).
    The noise is drawn once for each training image, not for each epoch, as the authors' code does it.
    """

    def __init__(self, terms: DenoisingTerms, shape: torch.Size) -> None:
        """Take the terms, and the shape ``(N, C, H, W)`` of all training images."""
        self.terms = terms
        self._shape = shape
        self._noise: Tensor | None = None

    def identity(self) -> dict[str, Any]:
        """Return the terms."""
        return {"objective": "denoising"} | asdict(self.terms)

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Refuse: an autoencoder has no logits."""
        raise NotImplementedError("autoencoders have no logits; their loss is step_loss")

    def step_loss(self, network: nn.Module, step: TrainingStep) -> Tensor:
        """Return the loss of one batch of ``Autoencoders``, a scalar."""
        assert isinstance(network, Autoencoders), "nothing else is trained so"
        noise = self._noise_of_all()[step.indices].float().to(step.images.device)
        activations = network.activations((step.images + noise).clamp(0, 1))
        reconstructions = activations[-1].unflatten(1, (network.count, -1))
        # The mean is over the autoencoders too: times their number it is the sum of their errors.
        loss: Tensor = network.count * (reconstructions - step.images.unsqueeze(1)).square().mean()
        if self.terms.activity:
            loss = loss + self.terms.activity * sum(each.square().sum() for each in activations)
        if self.terms.diversity and step.progress >= self.terms.apart:
            apart = reconstructions - reconstructions.mean(dim=1, keepdim=True)
            loss = loss - self.terms.diversity * network.count * apart.square().mean()
        return loss

    def _noise_of_all(self) -> Tensor:
        """Return the noise of all training images, in half precision: there are as many values as pixels."""
        if self._noise is None:
            generator = torch.Generator().manual_seed(self.terms.noise_seed)
            self._noise = torch.empty(self._shape, dtype=torch.float16)
            for piece in self._noise.split(_NOISE_CHUNK):
                piece.copy_(self.terms.noise * torch.randn(piece.shape, generator=generator))
        return self._noise


def _grouped(incoming: int, outgoing: int, count: int) -> nn.Conv2d:
    """Return ``count`` convolutions as one; weights uniform by Glorot, biases 0, as in the authors' Keras."""
    convolution = nn.Conv2d(count * incoming, count * outgoing, 3, padding=1, groups=count)
    bound = math.sqrt(6 / (convolution.weight[0, 0].numel() * (incoming + outgoing)))
    nn.init.uniform_(convolution.weight, -bound, bound)
    assert convolution.bias is not None, "there by default"
    nn.init.zeros_(convolution.bias)
    return convolution


def _one_group(convolution: nn.Conv2d, x: Tensor, index: int) -> Tensor:
    """Apply the ``index``-th of the convolutions that are grouped in one."""
    assert convolution.bias is not None, "there by default"
    weight, bias = convolution.weight.chunk(convolution.groups), convolution.bias.chunk(convolution.groups)
    return nn.functional.conv2d(x, weight[index], bias[index], padding=1)
