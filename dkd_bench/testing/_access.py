"""Targets that offer to an attack what its meta asks for, and no more."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from dkd_bench.errors import AttackError
from dkd_bench.target import Access
from dkd_bench.target.surrogates import Detecting, OnManifold

_TOLERATED = 0.005
"""Difference that the two values of a pair may have, in [0, 1] pixel units, as a root mean square over the image."""


def offering(network: nn.Module, access: Access, shape: tuple[int, ...]) -> nn.Module:
    """Return ``network`` as a target that offers ``access``, for images of ``shape``, of even width.

    Detector and generator know images whose values come in equal pairs, side by side, and no others.
    """
    if access in ("scores", "decisions"):
        return _Blind(network, access)
    if access == "detectors":
        return _DetectingPairs(network)
    return _GeneratingPairs(network, shape) if access == "generator" else network


def of_pairs(access: Access) -> bool:
    """Return whether only images of equal pairs count against a target that offers ``access``."""
    return access in ("detectors", "generator")


def paired(values: Tensor) -> Tensor:
    """Return ``values`` with each pair of neighbours in the last dimension replaced by its mean."""
    means: Tensor = (values[..., ::2] + values[..., 1::2]) / 2
    return means.repeat_interleave(2, dim=-1)


def unlikeness(images: Tensor) -> Tensor:
    """Return the distance of each image's values from pairs: over 0 is a reject, shape ``(N,)``."""
    difference = (images[..., ::2] - images[..., 1::2]).flatten(1)
    return difference.square().mean(dim=1) / _TOLERATED**2 - 1


@final
class _Blind(nn.Module):
    """Network that answers with logits, or with 1 for the likeliest class and 0 for the others, without a gradient."""

    def __init__(self, network: nn.Module, access: Access) -> None:
        super().__init__()
        self.network = network
        self.access = access

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        if self.access == "decisions":
            logits = nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits.dtype)
        blind: Tensor = _WithoutGradient.apply(logits, x, self.access)
        return blind


class _WithoutGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, x: Tensor, access: Access) -> Tensor:
        ctx.access = access
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise AttackError(
            f"the attack's meta says access={ctx.access!r}, but it asked for a gradient; "
            "say access='gradients', or go by the answers alone"
        )


@final
class _DetectingPairs(Detecting):
    """Network that rejects images whose values are not pairs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits

    def rejections(self, x: Tensor) -> Tensor:
        return unlikeness(x).unsqueeze(1)


@final
class _GeneratingPairs(OnManifold):
    """Network that makes images whose values are pairs, and answers for the nearest one."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self._half = (*shape[:-1], shape[-1] // 2)
        self.latent_dimension = torch.Size(self._half).numel()

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(paired(x))

    def generate(self, latent: Tensor) -> Tensor:
        return latent.sigmoid().view(-1, *self._half).repeat_interleave(2, dim=-1)

    def classify(self, images: Tensor) -> Tensor:
        precision = next(self.network.parameters()).dtype
        logits: Tensor = self.network(images.to(precision))
        return logits.float()
