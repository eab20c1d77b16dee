"""Surrogates: differentiable stand-ins for the whole of a defence, as the joint attack sees it.

A vote has no gradient. Each ensemble surrogate maps members to one logit-like output ``(N, K)``; the names follow
the losses compared in Tramer et al. 2020 and Pang et al. 2019. A vote judges what they produce. A step before the
network that has no useful gradient gets one from ``BPDA``. What more a surrogate can tell an adaptive attack, it
says by its class: ``Detecting``, ``OnManifold``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn


class EnsembleSurrogate(nn.Module, ABC):
    """Combines the members' logits into one differentiable output."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        """Take the members, at least one."""
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the whole, shape ``(N, K)``."""
        return self.combine(torch.stack([member(x) for member in self.members]))

    @abstractmethod
    def combine(self, logits: Tensor) -> Tensor:
        """Return ``(N, K)`` from the members' logits ``(M, N, K)``."""


@final
class LogMeanProbability(EnsembleSurrogate):
    """The logarithm of the members' mean probability, by logsumexp: no zero gradient at underflow."""

    def combine(self, logits: Tensor) -> Tensor:
        """Return ``log(mean_m softmax(Z_m))``."""
        return logits.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))


@final
class MeanLogit(EnsembleSurrogate):
    """The mean of the members' logits."""

    def combine(self, logits: Tensor) -> Tensor:
        """Return ``mean_m Z_m``."""
        return logits.mean(dim=0)


@final
class SumOfMargins(EnsembleSurrogate):
    """The sum of the members' margins, none counting for more than ``kappa``: a vote that can be differentiated.

    For class j and member m the margin is ``Z_mj - max_{i != j} Z_mi``. The cut from above bounds each member's
    vote, so that a very sure one cannot outweigh the others, and a member that is fooled with ``kappa`` to
    spare is not pushed further towards its wrong class. A cut from below would leave sure members without any
    gradient, since all rival classes would be cut.
    """

    kappa = 1.0

    def combine(self, logits: Tensor) -> Tensor:
        """Return ``sum_m min(margin_mj, kappa)``."""
        top, second = logits.topk(2, dim=2).values.unbind(dim=2)
        is_top = nn.functional.one_hot(logits.argmax(dim=2), logits.shape[2]).bool()
        rival = torch.where(is_top, second.unsqueeze(2), top.unsqueeze(2))
        return (logits - rival).clamp_max(self.kappa).sum(dim=0)


@final
class BPDA(nn.Module):
    """Network after a step that is exact forward and differentiated as something else (Athalye et al. 2018).

    BPDA, backward pass differentiable approximation: an attack that needs the gradient of ``network(step(x))``
    gets that of ``network`` at ``step(x)``, times that of ``backward`` at ``x``. A step whose answers differ
    between calls draws from torch's global generator here, which attacks seed.
    """

    def __init__(self, step: nn.Module, network: nn.Module, *, backward: nn.Module | None = None) -> None:
        """Take the step and the network after it; ``backward`` is the identity unless given."""
        super().__init__()
        self.step = step
        self.network = network
        self.backward_step = backward

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's logits ``(N, K)`` for the images after the step."""
        with torch.no_grad():
            stepped: Tensor = self.step(x)
        approximate = x if self.backward_step is None else self.backward_step(x)
        # The difference is exactly zero: what the network sees is the step's own output, bit by bit.
        logits: Tensor = self.network(stepped + (approximate - approximate.detach()))
        return logits


class Detecting(nn.Module, ABC):
    """Surrogate of a defence that abstains: it also tells how near its detectors are to rejecting."""

    @abstractmethod
    def rejections(self, x: Tensor) -> Tensor:
        """Return for each detector how far each image is beyond its threshold, ``(N, D)``: positive is a reject.

        Differentiable, and of the order of 1 where a change of one class's logit is; exact in its sign.
        """


class OnManifold(nn.Module, ABC):
    """Surrogate of a defence that answers for the nearest image its generator can make."""

    latent_dimension: int

    @abstractmethod
    def generate(self, latent: Tensor) -> Tensor:
        """Return the images ``(N, C, H, W)`` in [0, 1] of latents ``(N, latent_dimension)``, differentiable."""

    @abstractmethod
    def classify(self, images: Tensor) -> Tensor:
        """Return the logits ``(N, K)`` of generated images, without looking for the nearest one first."""


def ensemble_surrogates(members: Sequence[nn.Module]) -> Mapping[str, nn.Module]:
    """Return the surrogates that the joint attack uses against a vote of ``members``.

    A single member is its own surrogate: every combination of one network orders the classes alike.
    """
    if len(members) == 1:
        return {"whole": members[0]}
    return {
        "log-mean-probability": LogMeanProbability(members),
        "mean-logit": MeanLogit(members),
        "sum-of-margins": SumOfMargins(members),
    }
