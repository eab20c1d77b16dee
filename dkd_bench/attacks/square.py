"""Square (Andriushchenko et al. 2020) from pyautoattack, by itself: an attack that asks for no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from pyautoattack.square import SquareAttack
from torch import Tensor

from dkd_bench.attacks._base import Attack, AttackMeta
from dkd_bench.attacks._checks import require_positive
from dkd_bench.attacks._verdict import verdict_on
from dkd_bench.budget import Budget
from dkd_bench.target import Target

_NORMS = {"linf": "Linf", "l2": "L2"}
"""Names that the library gives to our norms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareSettings:
    """Parameters of Square.

    Raises:
        ConfigError: if a number is not positive.
    """

    queries: int = 1000
    """Number of queries: a fifth of AutoAttack's 5000, a tenth of the authors' 10,000; squares shrink as fast as these
    allow."""
    restarts: int = 1
    p_init: float = 0.8
    """Share of the pixels that the first squares cover, over 0."""

    def __post_init__(self) -> None:
        require_positive(self, "queries", "restarts", "p_init")


@final
class Square(Attack):
    """Random search with square patches by the logits alone, blind to whether they have a gradient.

    If the target has detectors, their scores are seen as well: a rejected image is no success however it is
    classified, and the search goes on by how far it is from being accepted. Of all points that an image's search
    kept, and the clean image, the one of least loss comes back, fooling or not. The squares are drawn for the
    whole batch, so an image's result depends on its place in it.
    """

    meta = AttackMeta(name="square", title="Square", kind="fixed", libraries=("pyautoattack",), access="scores")
    Settings: ClassVar[type[Any]] = SquareSettings

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return misclassified images that no detector rejects where there are any, else those of least loss."""
        settings: SquareSettings = self.settings
        search = _Search(
            target,
            norm=_NORMS[budget.norm],
            n_queries=settings.queries,
            eps=budget.eps,
            p_init=settings.p_init,
            device=images.device,
        )
        search.init_hyperparam(images)
        with torch.no_grad():
            adversarial, least = images, search.loss_of(images, labels)
            for _ in range(settings.restarts):
                _, points = search.attack_single_run(images, labels)
                loss = search.loss_of(points, labels)
                adversarial = torch.where((loss < least).view(-1, 1, 1, 1), points, adversarial)
                least = torch.minimum(loss, least)
        return adversarial


class _Search(SquareAttack):  # type: ignore[misc]
    """Search of the library, with a loss that knows of detectors; the library never sees the logits."""

    def margin_and_loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss twice: at most 0 is what the library takes for a success, lower what it keeps."""
        loss = self.loss_of(x, y)
        return loss, loss

    def loss_of(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the label's margin if no detector rejects, else what is left of it and the excess: ``(N,)``."""
        verdict = verdict_on(self.predict, images, labels)
        loss = torch.where(
            (verdict.rejections > 0).any(dim=1), (-verdict.margin).clamp_min(0) + verdict.excess(), -verdict.margin
        )
        return torch.where(verdict.success, loss, loss.clamp_min(torch.finfo(loss.dtype).tiny))
