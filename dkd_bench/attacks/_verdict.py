"""Verdict of a target on images that an attack has made, rejects included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from dkd_bench.target import Target
from dkd_bench.target.surrogates import Detecting


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Answers of a target to ``N`` images, differentiable where the target is."""

    margin: Tensor
    """Largest logit of a wrong class less the label's, shape ``(N,)``."""
    pull: Tensor
    """Logsumexp of the wrong classes' logits less the label's, shape ``(N,)``: it tends to no one class."""
    fooled: Tensor
    """Whether a wrong class is answered, bool, shape ``(N,)``."""
    rejections: Tensor
    """Distance beyond each detector's threshold, shape ``(N, D)``; no columns if the target has no detectors."""

    @property
    def success(self) -> Tensor:
        """Whether a wrong class is answered and no detector rejects, bool, shape ``(N,)``."""
        return self.fooled & ~(self.rejections > 0).any(dim=1)

    def excess(self, slack: float = 0.0) -> Tensor:
        """Return by how much the detectors together reject, were their thresholds lower by ``slack``: ``(N,)``."""
        return (self.rejections + slack).clamp_min(0).sum(dim=1)


def verdict_on(target: Target, images: Tensor, labels: Tensor) -> Verdict:
    """Ask ``target`` for its logits, and for its rejections if it is ``Detecting``, once each."""
    logits: Tensor = target(images)
    own = labels.unsqueeze(1)
    wrong, right = logits.scatter(1, own, -torch.inf), logits.gather(1, own).squeeze(1)
    detects = isinstance(target.module, Detecting)
    return Verdict(
        margin=wrong.amax(dim=1) - right,
        pull=wrong.logsumexp(dim=1) - right,
        fooled=logits.argmax(dim=1) != labels,
        rejections=target.rejections(images) if detects else logits.new_zeros(len(logits), 0),
    )
