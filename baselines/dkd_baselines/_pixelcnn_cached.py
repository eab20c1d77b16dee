"""Greedy purification, pixel by pixel: what a new pixel does not change is cached, not computed again.

The vertical stream knows whole rows and is computed row by row. The horizontal stream is a small matrix product for
each layer and pixel; what it sees of the row above is summed for the whole row beforehand. All is in double precision:
the likeliest of many levels is then the same however the images are batched.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import cast, final

import torch
from torch import Tensor, nn

from dkd_baselines._pixelcnn import (
    LEVELS,
    Block,
    CausalConvolution,
    GatedResnet,
    Mixture,
    PixelCNN,
    Resolution,
    Stream,
    concat_elu,
    levels_of,
    scaled,
)

ROUNDING = 1e-6
"""Rounding error allowed for, in levels: 16/255 is 16 levels, whatever the last bit of the quotient."""


@final
class GreedyPurifier(nn.Module):
    """Purifier that moves each value, in raster order, to the likeliest one within reach, given those before it."""

    def __init__(self, density: PixelCNN, eps: float) -> None:
        """Take the density and how far a value may move, in [0, 1]: as many whole levels as cover it."""
        super().__init__()
        self.density = density
        self.eps = eps

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the purified images, shape ``(N, C, H, W)``, multiples of 1/255 in [0, 1]."""
        levels = levels_of(images.double())
        purified = levels.clone()
        # In double precision the batch size does not decide between two levels that are almost equally likely.
        evaluation = CachedPixelCNN(copy.deepcopy(self.density).double(), tuple(levels.shape))
        reach = math.ceil(self.eps * (LEVELS - 1) - ROUNDING)
        steps = torch.arange(-reach, reach + 1, dtype=levels.dtype, device=levels.device)
        for row in range(levels.shape[2]):
            evaluation.begin_row(row)
            for column in range(levels.shape[3]):
                within = (levels[:, :, row, column, None] + steps).clamp(0, LEVELS - 1)
                pixel = likeliest(evaluation.mixture_at(row, column), within)
                evaluation.put(row, column, pixel)
                purified[:, :, row, column] = pixel
        return (purified / (LEVELS - 1)).to(images.dtype)


def likeliest(mixture: Mixture, candidates: Tensor) -> Tensor:
    """Return of the candidate levels ``(N, C, V)`` the likeliest, channel after channel, shape ``(N, C)``.

    The mixtures' leading shape is ``(N, 1)``.
    """
    pixel: list[Tensor] = []
    for channel, levels in enumerate(candidates.unbind(dim=1)):
        if pixel:
            mixture = mixture.given(channel - 1, pixel[-1].unsqueeze(2))
        best = mixture.log_probabilities(channel, levels.unsqueeze(2)).argmax(dim=1, keepdim=True)
        pixel.append(levels.gather(1, best))
    return torch.cat(pixel, dim=1)


@final
class CachedPixelCNN:
    """PixelCNN++ over images whose pixels become known in raster order.

    For each row comes ``begin_row``, then for each of its pixels ``mixture_at`` and ``put``. Hidden values have their
    channels last: ``(N, W, F)`` along a row, ``(N, F)`` at a pixel.
    """

    def __init__(self, network: PixelCNN, shape: tuple[int, ...]) -> None:
        """Take the network and the images' shape ``(N, C, H, W)``."""
        n, channels, height, width = shape
        self._network = network
        self._body = _Resolution(network.body, n, width)
        self._before = network.before.weight[:, :, 1, 0].T
        self._known = network.before.weight.new_zeros(n, channels + 1, height + 2, width + 2)
        """Two rows of padding above, a column on either side; the last channel tells the image from the padding."""
        self._known[:, -1, 2:, 1:-1] = 1
        self._of_row = self._known.new_zeros(n, width, network.size.filters)

    def begin_row(self, row: int) -> None:
        """Compute all that depends on the rows above alone."""
        network = self._network
        last = self._known[:, :, row + 1 : row + 2]
        vertical = nn.functional.conv2d(self._known[:, :, row : row + 2], network.above.weight, network.above.bias)
        from_last = nn.functional.conv2d(last, network.row_above.weight, network.row_above.bias)
        corner = nn.functional.conv2d(last[..., :-2], network.before.weight[:, :, :1], network.before.bias)
        self._of_row = _channels_last(from_last + corner)
        self._body.begin_row(row, _stream(_channels_last(vertical)))

    def mixture_at(self, row: int, column: int) -> Mixture:
        """Return the pixel's mixtures, of leading shape ``(N, 1)``."""
        start = torch.addmm(self._of_row[:, column], self._known[:, :, row + 2, column], self._before)
        hidden = nn.functional.elu(self._body.at(row, column, _stream(start)).raw)
        last = self._network.parameters_of_pixel
        parameters = nn.functional.linear(hidden, last.weight.flatten(1), last.bias)
        return self._network.mixture(parameters.unsqueeze(1))

    def put(self, row: int, column: int, levels: Tensor) -> None:
        """Make the pixel known: levels ``(N, C)``."""
        self._known[:, :-1, row + 2, column + 1] = scaled(levels)


class _Resolution:
    """Cache of the blocks of one resolution and of the lower ones."""

    def __init__(self, network: Resolution, n: int, width: int) -> None:
        self.inward = [_Block(cast(Block, block), n, width) for block in network.inward]
        self.outward = [_Block(cast(Block, block), n, width) for block in network.outward]
        self.lower = None if network.lower is None else _Lower(network, n, width)

    def begin_row(self, row: int, x: Stream) -> Stream:
        seen = [x]
        for block in self.inward:
            seen.append(block.begin_row(seen[-1], []))
        x = seen.pop() if self.lower is None else self.lower.begin_row(row, seen[-1].raw)
        for block in self.outward:
            x = block.begin_row(x, [seen.pop()])
        return x

    def at(self, row: int, column: int, x: Stream) -> Stream:
        seen = [x]
        for block in self.inward:
            seen.append(block.at(column, seen[-1], []))
        x = seen.pop() if self.lower is None else self.lower.at(row, column, seen[-1].raw)
        for block in self.outward:
            x = block.at(column, x, [seen.pop()])
        return x


class _Lower:
    """Cache of the lower resolutions: each second row and column is theirs, and serves the next one too."""

    def __init__(self, network: Resolution, n: int, width: int) -> None:
        assert network.lower is not None, "there is a lower one"
        assert network.shrink is not None, "which takes a way there"
        assert network.grow is not None, "and back"
        self.blocks = _Resolution(network.lower, n, width // 2)
        self.shrink_vertical = _Convolution(network.shrink.vertical, n, width)
        self.shrink_horizontal = _Convolution(network.shrink.horizontal, n, width)
        self.grow = network.grow
        self.horizontal = self.grow.horizontal.weight.new_zeros(n, width // 2, self.grow.horizontal.in_channels)
        self.vertical = torch.zeros_like(self.horizontal)

    def begin_row(self, row: int, x: Tensor) -> Stream:
        if row % 2 == 0:
            half = self.shrink_vertical.row(x)
            self.vertical = self.blocks.begin_row(row // 2, _stream(half)).raw
            self.shrink_horizontal.begin_row()
        else:
            self.shrink_vertical.keep_row(x)
        layer = self.grow.vertical
        grown = nn.functional.conv_transpose2d(
            self.vertical.transpose(1, 2).unsqueeze(2),
            layer.weight[:, :, row % 2 : row % 2 + 1],
            layer.bias,
            stride=(1, 2),
            padding=(0, 1),
            output_padding=(0, 1),
        )
        return _stream(_channels_last(grown))

    def at(self, row: int, column: int, x: Tensor) -> Stream:
        self.shrink_horizontal.keep(column, x)
        if row % 2 == 0 and column % 2 == 0:
            half = self.shrink_horizontal.at(column)
            self.horizontal[:, column // 2] = self.blocks.at(row // 2, column // 2, _stream(half)).raw
        layer = self.grow.horizontal
        assert layer.bias is not None, "it has one"
        weight = layer.weight[:, :, row % 2, column % 2]
        return _stream(torch.addmm(layer.bias, self.horizontal[:, column // 2], weight))


class _Block:
    """Cache of one block."""

    def __init__(self, block: Block, n: int, width: int) -> None:
        self.vertical = _Gated(block.vertical, n, width)
        self.horizontal = _Gated(block.horizontal, n, width)

    def begin_row(self, x: Stream, skip: Sequence[Stream]) -> Stream:
        x = self.vertical.row(x, skip)
        self.horizontal.begin_row(x)
        return x

    def at(self, column: int, x: Stream, skip: Sequence[Stream]) -> Stream:
        return self.horizontal.at(column, x, skip)


class _Gated:
    """Cache of a gated residual block: the inputs of its two convolutions."""

    def __init__(self, block: GatedResnet, n: int, width: int) -> None:
        self.first = _Convolution(block.first, n, width)
        self.second = _Convolution(block.second, n, width)
        aside = () if block.aside is None else block.aside.weight.flatten(1).T.split(2 * block.aside.out_channels)
        self.sides = list(aside)

    def row(self, x: Stream, sides: Sequence[Stream]) -> Stream:
        hidden = self.first.row(x.active)
        for side, matrix in zip(sides, self.sides, strict=True):
            hidden = hidden + side.active @ matrix
        return _gated(x.raw, self.second.row(concat_elu(hidden, dim=2)))

    def begin_row(self, vertical: Stream) -> None:
        """Prepare a row of the horizontal stream, whose first side is the vertical one."""
        self.first.begin_row(vertical.active @ self.sides[0])
        self.second.begin_row()

    def at(self, column: int, x: Stream, sides: Sequence[Stream]) -> Stream:
        self.first.keep(column, x.active)
        hidden = self.first.at(column)
        for side, matrix in zip(sides, self.sides[1:], strict=True):
            hidden = hidden.addmm_(side.active, matrix)
        self.second.keep(column, concat_elu(hidden))
        return _gated(x.raw, self.second.at(column))


class _Convolution:
    """Cache of a causal convolution's inputs: those of the row above until a place of this row takes theirs."""

    def __init__(self, layer: CausalConvolution, n: int, width: int) -> None:
        weight, bias = layer.convolution.weight, layer.convolution.bias
        assert bias is not None, "causal convolutions have one"
        inputs, taps = weight.shape[1], weight.shape[3]
        self.stride = layer.convolution.stride[0]
        self.above, self.here = (weight[:, :, row].permute(2, 1, 0).flatten(0, 1) for row in (0, 1))
        self.bias = bias
        self.inputs = weight.new_zeros(n, width + taps - 1, inputs)
        row_length = (width + taps - 1) * inputs
        self.windows = self.inputs.as_strided((n, width, taps * inputs), (row_length, inputs, 1))
        """What the kernel sees of its row at each place, without a copy."""
        self.partial = bias

    def row(self, values: Tensor) -> Tensor:
        """Return a whole row of outputs, and keep its inputs ``(N, W, F)``."""
        seen_above = self._seen(self.above)
        self.keep_row(values)
        return seen_above + self._seen(self.here) + self.bias

    def keep_row(self, values: Tensor) -> None:
        self.inputs[:, 1 : 1 + values.shape[1]] = values

    def begin_row(self, *more: Tensor) -> None:
        """Sum what the row to come sees of the row above, and ``more``, before the first of its inputs is kept."""
        self.partial = sum(more, self._seen(self.above) + self.bias)

    def keep(self, column: int, values: Tensor) -> None:
        self.inputs[:, column + 1] = values

    def at(self, column: int) -> Tensor:
        """Return the output at one place ``(N, F)``, its own inputs and those before being kept."""
        return torch.addmm(self.partial[:, column // self.stride], self.windows[:, column], self.here)

    def _seen(self, matrix: Tensor) -> Tensor:
        windows = self.windows[:, :: self.stride]
        seen = windows.flatten(0, 1) @ matrix  # One product, not one for each image.
        return seen.view(*windows.shape[:2], matrix.shape[1])


def _stream(raw: Tensor) -> Stream:
    return Stream(raw, concat_elu(raw, dim=-1))


def _gated(x: Tensor, hidden: Tensor) -> Stream:
    value, gate = hidden.chunk(2, dim=-1)
    return _stream(x + value * gate.sigmoid())


def _channels_last(row: Tensor) -> Tensor:
    """Return a row ``(N, F, 1, W)`` as ``(N, W, F)``."""
    return row.squeeze(2).transpose(1, 2)
