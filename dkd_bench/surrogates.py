"""Differentiable stand-ins for a vote: what the joint attack sees of an ensemble.

The vote itself has no gradient. Each class here maps members to one logit-like output ``(N, K)``; the names
follow the losses compared in Tramer et al. 2020 and Pang et al. 2019. A vote judges what they produce.
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
