"""Target of an attack: a frozen, counted, differentiable classifier of images in [0, 1]."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn

from dkd_bench.errors import AttackError
from dkd_bench.target.surrogates import Detecting, OnManifold

Access = Literal["gradients", "scores", "decisions", "detectors", "generator"]
"""Access to a target that an attack needs: gradients of the logits, logits or labels alone, gradients of the logits and
of the detectors, or the generator behind the answers."""

AUTO_BATCH_SIZE = 250
"""Number of images in one model evaluation unless ``--batch-size`` says otherwise: about what a CPU cache holds."""


@final
class Target(nn.Module):
    """A classifier under attack.

    Parameters are frozen (an attack that calls ``backward()`` would otherwise fill their gradients, a third of
    the work), the module is in evaluation mode, answers are float32 whatever the module computes in, and an
    answer that is not finite stops the attack instead of counting as its success.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        n_classes: int,
        batch_size: int = AUTO_BATCH_SIZE,
        draws: int = 1,
    ) -> None:
        """Wrap ``module``; with ``draws`` over 1 each answer is the mean of that many evaluations (EOT)."""
        super().__init__()
        self.module = module.eval().requires_grad_(False)
        self.name = name
        self.n_classes = n_classes
        self.batch_size = batch_size
        self.draws = draws
        self.forward_passes = 0
        """Images evaluated so far, draws counted."""
        self.backward_passes = 0
        """Images differentiated so far, draws counted."""
        first = next(module.parameters(), None)
        self._dtype = torch.float32 if first is None else first.dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float32, shape ``(N, K)``, for images of shape ``(N, C, H, W)``.

        Raises:
            AttackError: if an answer is not finite or not of that shape.
        """
        logits = torch.cat([self._evaluate(piece) for piece in x.split(self.batch_size)])
        if logits.shape != (len(x), self.n_classes):
            raise AttackError(
                f"{self.name} must return logits of shape {(len(x), self.n_classes)}, got {tuple(logits.shape)}"
            )
        if not torch.isfinite(logits).all():
            raise AttackError(f"{self.name} returned logits that are not finite; no attack on it can be scored")
        return logits

    def rejections(self, x: Tensor) -> Tensor:
        """Return by how much each detector rejects each image, float32, shape ``(N, D)``; positive is a reject.

        Raises:
            AttackError: if the target has no detectors, or their answer is not finite or not of that shape.
        """
        if not isinstance(self.module, Detecting):
            raise AttackError(f"{self.name} has no detectors; this attack is for surrogates that are Detecting")
        excess = torch.cat([self.module.rejections(piece.to(self._dtype)) for piece in x.split(self.batch_size)])
        if excess.ndim != 2 or len(excess) != len(x) or not torch.isfinite(excess).all():
            raise AttackError(
                f"the detectors of {self.name} must return finite values of shape ({len(x)}, number of detectors), "
                f"got {tuple(excess.shape)}"
            )
        return excess.float()

    @property
    def generator(self) -> OnManifold:
        """The generator behind the answers.

        Raises:
            AttackError: if the target has none.
        """
        if not isinstance(self.module, OnManifold):
            raise AttackError(f"{self.name} has no generator; this attack is for surrogates that are OnManifold")
        return self.module

    def _evaluate(self, x: Tensor) -> Tensor:
        self.forward_passes += len(x) * self.draws
        x = x.to(self._dtype)
        logits: Tensor = self.module(x)
        for _ in range(self.draws - 1):
            logits = logits + self.module(x)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits.float() / self.draws

    def _count_backward(self, gradient: Tensor) -> None:
        self.backward_passes += len(gradient) * self.draws
