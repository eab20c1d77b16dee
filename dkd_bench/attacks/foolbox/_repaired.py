"""Classes of Foolbox 3.3.4 where they had to be repaired; a test fails without each repair."""

from __future__ import annotations

from typing import Any

import torch
from foolbox.attacks.carlini_wagner import L2CarliniWagnerAttack
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
