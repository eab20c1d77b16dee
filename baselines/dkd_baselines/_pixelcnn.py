"""PixelCNN++ (Salimans et al. 2017): the likelihood of an image, one value after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from dkd_bench.api import ConfigError, ImageSpec, Objective, TrainingBatch, TrainingStep

LEVELS = 256
SMALLEST_LOG_SCALE = -7.0
"""Smallest log-scale of a logistic, images being in [-1, 1]: the authors' bound, about a ninth of a level."""
LAST_WEIGHTS = 0.1
"""Scale of the initial weights that end a block, in units of the others': it begins near the identity (the
authors')."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelCNNSize:
    """Size of a PixelCNN++."""

    filters: int
    resnets: int
    """Number of gated blocks of a resolution on the way in, and one more on the way out except at the lowest."""
    resolutions: int
    """Number of resolutions; each has half the side of the one before."""
    mixtures: int
    """Number of logistics in the distribution of a pixel."""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in asdict(self).items() if name != "dropout"}
        for name, value in numbers.items():
            if value < 1:
                raise ConfigError(f"{name} of a PixelCNN++ must be at least 1, got {value}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout of a PixelCNN++ must be in [0, 1), got {self.dropout}")


class Stream(NamedTuple):
    """State of one of the two streams between blocks, shape ``(N, F, H, W)`` and ``(N, 2F, H, W)``."""

    raw: Tensor
    active: Tensor
    """Activation ``concat_elu(raw)``, which several blocks read."""


def concat_elu(x: Tensor, dim: int = 1) -> Tensor:
    """Return ``elu([x, -x])``, twice as long along ``dim``."""
    return nn.functional.elu(torch.cat([x, -x], dim=dim))


def _stream(raw: Tensor) -> Stream:
    return Stream(raw, concat_elu(raw))


@final
class CausalConvolution(nn.Module):
    """A convolution that sees the row above and, of its own row, what its stream may know.

    A kernel of ``(2, 3)`` serves the vertical stream, whose rows are whole; one of ``(2, 2)`` the horizontal
    stream, which knows its row up to itself.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: tuple[int, int], *, stride: int = 1) -> None:
        """Build the convolution."""
        super().__init__()
        self.convolution = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return one value for each place, or for each second one: the padding below and on the right is cut off."""
        stride = self.convolution.stride[0]
        y: Tensor = self.convolution(x)
        return y[:, :, : x.shape[2] // stride, : x.shape[3] // stride]


VERTICAL, HORIZONTAL = (2, 3), (2, 2)


@final
class GatedResnet(nn.Module):
    """``x + a * sigmoid(b)``, a and b by two convolutions of ``x``; the first adds what other streams say."""

    def __init__(self, size: PixelCNNSize, kernel: tuple[int, int], *, sides: int) -> None:
        """Build both convolutions, and the 1x1 one of the other streams if there are any."""
        super().__init__()
        filters = size.filters
        self.dropout = size.dropout
        self.first = CausalConvolution(2 * filters, filters, kernel)
        self.aside = nn.Conv2d(2 * filters * sides, filters, 1, bias=False) if sides else None
        self.second = CausalConvolution(2 * filters, 2 * filters, kernel)
        with torch.no_grad():
            self.second.convolution.weight *= LAST_WEIGHTS

    def forward(self, x: Stream, sides: Sequence[Stream], generator: torch.Generator | None) -> Stream:
        """Return the stream after the block; dropout draws from ``generator``, and is off without one."""
        hidden = self.first(x.active)
        if self.aside is not None:
            hidden = hidden + self.aside(torch.cat([side.active for side in sides], dim=1))
        hidden = concat_elu(hidden)
        if self.dropout and generator is not None:
            kept = torch.rand(hidden.shape, generator=generator, device=hidden.device) >= self.dropout
            hidden = hidden * kept / (1 - self.dropout)
        value, gate = self.second(hidden).chunk(2, dim=1)
        return _stream(x.raw + value * gate.sigmoid())


class Pair(NamedTuple):
    """States of both streams at one depth."""

    vertical: Stream
    """Stream that knows the rows above."""
    horizontal: Stream
    """Stream that knows them too, and the row up to the pixel before."""


@final
class Block(nn.Module):
    """Gated block of each stream; the horizontal reads the vertical one, and both on the way out what came in."""

    def __init__(self, size: PixelCNNSize, *, skip: bool) -> None:
        """Build both; with ``skip``, for the way out."""
        super().__init__()
        self.vertical = GatedResnet(size, VERTICAL, sides=int(skip))
        self.horizontal = GatedResnet(size, HORIZONTAL, sides=1 + skip)

    def forward(self, x: Pair, skip: Pair | None, generator: torch.Generator | None) -> Pair:
        """Return both streams after the block."""
        vertical = self.vertical(x.vertical, [] if skip is None else [skip.vertical], generator)
        sides = [vertical] if skip is None else [vertical, skip.horizontal]
        return Pair(vertical, self.horizontal(x.horizontal, sides, generator))


@final
class Shrink(nn.Module):
    """Halving of the side: a convolution with stride 2 for each stream."""

    def __init__(self, filters: int) -> None:
        """Build both."""
        super().__init__()
        self.vertical = CausalConvolution(filters, filters, VERTICAL, stride=2)
        self.horizontal = CausalConvolution(filters, filters, HORIZONTAL, stride=2)

    def forward(self, x: Pair) -> Pair:
        """Return both streams at half the side."""
        return Pair(_stream(self.vertical(x.vertical.raw)), _stream(self.horizontal(x.horizontal.raw)))


@final
class Grow(nn.Module):
    """Doubling of the side: a transposed convolution for each stream."""

    def __init__(self, filters: int) -> None:
        """Build both."""
        super().__init__()
        self.vertical = nn.ConvTranspose2d(filters, filters, VERTICAL, stride=2, padding=(0, 1), output_padding=(0, 1))
        self.horizontal = nn.ConvTranspose2d(filters, filters, HORIZONTAL, stride=2)

    def forward(self, x: Pair) -> Pair:
        """Return both streams at twice the side."""
        return Pair(_stream(self.vertical(x.vertical.raw)), _stream(self.horizontal(x.horizontal.raw)))


@final
class Resolution(nn.Module):
    """Blocks of one resolution, in and out, around those of the lower ones."""

    def __init__(self, size: PixelCNNSize, below: int) -> None:
        """Build this resolution and the ``below`` lower ones."""
        super().__init__()
        self.inward = nn.ModuleList(Block(size, skip=False) for _ in range(size.resnets))
        self.lower = Resolution(size, below - 1) if below else None
        self.shrink = Shrink(size.filters) if below else None
        self.grow = Grow(size.filters) if below else None
        self.outward = nn.ModuleList(Block(size, skip=True) for _ in range(size.resnets + bool(below)))

    def forward(self, x: Pair, generator: torch.Generator | None) -> Pair:
        """Return both streams after all blocks, each outward block reading what the opposite inward one did."""
        seen = [x]
        for block in self.inward:
            seen.append(block(seen[-1], None, generator))
        if self.lower is None or self.shrink is None or self.grow is None:
            x = seen.pop()
        else:
            x = self.grow(self.lower(self.shrink(seen[-1]), generator))
        for block in self.outward:
            x = block(x, seen.pop(), generator)
        return x


@final
class PixelCNN(nn.Module):
    """Density of images: for each pixel a mixture of logistics, given all pixels before it in raster order.

    Without the authors' weight normalisation and the start that goes with it.
    """

    def __init__(self, images: ImageSpec, size: PixelCNNSize) -> None:
        """Build the network.

        Raises:
            ConfigError: if the images cannot be halved as often as the size asks.
        """
        super().__init__()
        factor = 2 ** (size.resolutions - 1)
        if images.height % factor or images.width % factor:
            raise ConfigError(
                f"{size.resolutions} resolutions need sides that {factor} divides, "
                f"got {images.height} x {images.width}; use fewer"
            )
        self.channels, self.size = images.channels, size
        inputs, filters = images.channels + 1, size.filters
        self.above = nn.Conv2d(inputs, filters, (2, 3), padding=(2, 1))
        self.row_above = nn.Conv2d(inputs, filters, (1, 3), padding=(1, 1))
        self.before = nn.Conv2d(inputs, filters, (2, 1), padding=(1, 1))
        self.body = Resolution(size, size.resolutions - 1)
        self.parameters_of_pixel = nn.Conv2d(filters, size.mixtures * parameters_per_logistic(images.channels), 1)

    def forward(self, levels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return each pixel's mixture, shape ``(N, P, H, W)``, for levels 0 to 255 as floats, ``(N, C, H, W)``.

        Training draws dropout from ``generator``, which is on the images' device.
        """
        height, width = levels.shape[2:]
        # The channel of ones tells the image from the padding, which is 0 and so mid-gray.
        x = torch.cat([scaled(levels), torch.ones_like(levels[:, :1])], dim=1)
        vertical = self.above(x)[:, :, :height]
        horizontal = self.row_above(x)[:, :, :height] + self.before(x)[:, :, :height, :width]
        out = self.body(Pair(_stream(vertical), _stream(horizontal)), generator)
        parameters: Tensor = self.parameters_of_pixel(nn.functional.elu(out.horizontal.raw))
        return parameters

    def bits_per_dimension(self, levels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the bits that each image takes, per value, shape ``(N,)``."""
        mixture = self.mixture(self(levels, generator).movedim(1, 3))
        log_mass = torch.zeros_like(levels[:, 0])
        for channel in range(self.channels):
            value = levels[:, channel].unsqueeze(3)
            log_mass = log_mass + mixture.log_probabilities(channel, value)
            if channel + 1 < self.channels:
                mixture = mixture.given(channel, value)
        return -log_mass.mean(dim=(1, 2)) / (self.channels * math.log(2))

    def mixture(self, parameters: Tensor) -> Mixture:
        """Return the mixtures that parameters ``(..., P)`` stand for."""
        return Mixture.of(parameters, self.channels)


def scaled(levels: Tensor) -> Tensor:
    """Return levels 0 to 255 as values in [-1, 1]."""
    return levels / ((LEVELS - 1) / 2) - 1


def parameters_per_logistic(channels: int) -> int:
    """Return the number of parameters of one logistic: a weight, means, scales, and links between channels."""
    return 1 + 2 * channels + channels * (channels - 1) // 2


class Mixture(NamedTuple):
    """Discretised mixtures of M logistics over the channels of pixels, of any leading shape."""

    log_weights: Tensor
    """Logarithms of weights that sum to 1, shape ``(..., M)``."""
    means: Tensor
    """Means, shape ``(..., C, M)``; in [-1, 1] is where the images are."""
    log_scales: Tensor
    """Logarithms of the scales, shape ``(..., C, M)``."""
    links: Tensor
    """Factors by which the mean of a channel follows an earlier one's value, shape ``(..., C (C - 1) / 2, M)``."""

    @classmethod
    def of(cls, parameters: Tensor, channels: int) -> Mixture:
        """Return the mixtures that a network's outputs ``(..., P)`` stand for."""
        parts = parameters.unflatten(-1, (parameters_per_logistic(channels), -1))
        return cls(
            parts[..., 0, :].log_softmax(dim=-1),
            parts[..., 1 : channels + 1, :],
            parts[..., channels + 1 : 2 * channels + 1, :].clamp_min(SMALLEST_LOG_SCALE),
            parts[..., 2 * channels + 1 :, :].tanh(),
        )

    def log_probabilities(self, channel: int, levels: Tensor) -> Tensor:
        """Return the log-probability of ``levels``, which broadcast with ``(..., M)`` and lose that dimension."""
        return (self.log_weights + self._log_masses(channel, levels)).logsumexp(dim=-1)

    def given(self, channel: int, levels: Tensor) -> Mixture:
        """Return the mixtures for the later channels, given the value of this one and of all before it.

        Logistics that expected the value weigh more, and the means of later channels follow it.
        """
        means = list(self.means.unbind(dim=-2))
        for later in range(channel + 1, len(means)):
            link = self.links[..., later * (later - 1) // 2 + channel, :]
            means[later] = means[later] + link * scaled(levels)
        log_weights = (self.log_weights + self._log_masses(channel, levels)).log_softmax(dim=-1)
        return self._replace(log_weights=log_weights, means=torch.stack(means, dim=-2))

    def _log_masses(self, channel: int, levels: Tensor) -> Tensor:
        """Return the log-probability of ``levels`` under each logistic, shape ``(..., M)``.

        A level's probability is what the logistic has between the middles to its neighbours; 0 and 255 have the
        tails. With F the logistic function, ``F(b) - F(a) = F(b) F(-a) (1 - exp(a - b))``: a sum of logarithms that
        loses no digits however far in a tail.
        """
        half = 1 / (LEVELS - 1)
        sharpness = (-self.log_scales[..., channel, :]).exp()
        centred = (scaled(levels) - self.means[..., channel, :]) * sharpness
        below = nn.functional.logsigmoid(centred + half * sharpness)
        above = nn.functional.logsigmoid(half * sharpness - centred)
        inside = below + above + (-torch.expm1(-2 * half * sharpness)).log()
        return torch.where(levels == 0, below, torch.where(levels == LEVELS - 1, above, inside))


@final
class BitsPerDimension(Objective):
    """Loss of a density: the bits that images take under it, per value, which is the negative log-likelihood."""

    def identity(self) -> dict[str, Any]:
        """Return its name: it has no parameters."""
        return {"objective": "bits per dimension"}

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Refuse: a density has no logits."""
        raise NotImplementedError("bits per dimension are a loss of images, not of logits; see step_loss")

    def step_loss(self, network: nn.Module, step: TrainingStep) -> Tensor:
        """Return the mean over the batch's images."""
        assert isinstance(network, PixelCNN), "the objective of a density"
        generator = None
        if network.size.dropout:
            seed = int(torch.randint(2**62, (), generator=step.generator))
            generator = torch.Generator(device=step.images.device).manual_seed(seed)
        return network.bits_per_dimension(levels_of(step.images), generator).mean()


def levels_of(images: Tensor) -> Tensor:
    """Return images in [0, 1] as levels 0 to 255, in the images' type."""
    return (images * (LEVELS - 1)).round()
