"""Classes of Foolbox 3.3.4 where they had to be repaired; a test fails without each repair."""

from __future__ import annotations

from typing import Any

import eagerpy as ep
import torch
from eagerpy.astensor import astensor
from eagerpy.tensor.tensor import Tensor
from foolbox.attacks.carlini_wagner import L2CarliniWagnerAttack
from foolbox.attacks.fast_minimum_norm import L0FMNAttack, L2FMNAttack, LInfFMNAttack
from foolbox.devutils import atleast_kd, flatten
from foolbox.models.base import Model


class CarliniWagner(L2CarliniWagnerAttack):
    """Carlini-Wagner attack whose images do not depend on their batch mates, and without black images.

    Foolbox's early abort is off: it watches the loss summed over the batch, so batch mates would decide. A black
    image is how Foolbox says that it found nothing; most targets misclassify it, so it must not pass.
    """

    def __init__(self, **arguments: Any) -> None:
        """Take Foolbox's arguments but ``abort_early``."""
        super().__init__(**arguments, abort_early=False)

    def run(self, model: Model, inputs: Any, criterion: Any, *, early_stop: float | None = None, **kwargs: Any) -> Any:
        """Return nearly the nearest misclassified images, and an image itself where there is none."""
        found = super().run(model, inputs, criterion, early_stop=early_stop, **kwargs)
        black = (found == 0).flatten(1).all(dim=1)
        return torch.where(black.view(-1, 1, 1, 1), inputs, found)


_OVERSHOOT = 1.02
"""By how much FMN goes past where it expects the boundary, as DeepFool does."""


class LinfFMN(LInfFMNAttack):
    """FMN in Linf that crosses the boundary: see ``_reach``."""

    def project(self, x: Tensor, x0: Tensor, epsilon: Tensor) -> Tensor:
        """Return ``x`` pulled into the ball around ``x0``."""
        pulled: Tensor = super().project(x, x0, _reach(epsilon))
        return pulled


class L2FMN(L2FMNAttack):
    """FMN in L2 with a projection, which in Foolbox divides a norm by itself and changes nothing.

    The box comes first: what it cuts off after the ball would be missing from the length, so that images with many
    black or white pixels would never come as far as the boundary. See also ``_reach``.
    """

    def project(self, x: Tensor, x0: Tensor, epsilon: Tensor) -> Tensor:
        """Return ``x`` pulled into the box, then into the ball around ``x0``."""
        change = x.clip(0, 1) - x0
        lengths = ep.maximum(flatten(change).norms.l2(axis=-1), 1e-12)
        pulled: Tensor = x0 + change * atleast_kd(ep.minimum(1, _reach(epsilon) / lengths), x.ndim)
        return pulled


class L0FMN(L0FMNAttack):
    """FMN in L0 with a projection onto as many changes as are asked for.

    Foolbox keeps one more, and of equal changes all, such as those from black to white; asked for as many as there are
    values, it raises IndexError for the whole batch. It also spends changes on what the box undoes: here the box
    comes first.
    """

    def project(self, x: Tensor, x0: Tensor, epsilon: Tensor) -> Tensor:
        """Return ``x`` pulled into the box, with its ``epsilon`` largest changes of ``x0``, of equal ones the first."""
        changes = flatten(x.clip(0, 1) - x0).raw
        places = changes.abs().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        kept = changes.where(places < epsilon.raw.unsqueeze(1), torch.zeros_like(changes))
        pulled: Tensor = x0 + astensor(kept).reshape(x0.shape)
        return pulled


def _reach(epsilon: Tensor) -> Tensor:
    """Return the radius of the ball that FMN's next point is pulled into, a little over ``epsilon``.

    Foolbox aims at the boundary itself, by its first-order estimate of each image (the authors' own code takes the
    loss of the whole batch, which is generous). Where that falls short, since the loss bends or the box holds part of
    the gradient, the points come ever nearer and never get across: nothing is found. And where loss and gradient are
    both zero the estimate is not a number, from which no image of the batch would recover.
    """
    reach: Tensor = astensor(epsilon.raw.nan_to_num(0.0) * _OVERSHOOT)
    return reach
