"""Base class of defences that are one network."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dkd_bench.defense import Defense
from dkd_bench.progress import Progress
from dkd_bench.training import Recipe, TrainingSet, train_network


class SingleNetwork(Defense, ABC):
    """One network trained by cross-entropy, which answers with the class of its largest logit.

    Authors set ``self.network``.
    """

    network: nn.Module

    @property
    def members(self) -> Sequence[nn.Module]:
        """The one network."""
        return [self.network]

    def fit(self, data: TrainingSet, *, recipe: Recipe, generator: torch.Generator, progress: Progress) -> None:
        """Train the network by cross-entropy (paper, Eq. 1)."""
        train_network(
            self.network, data, recipe=recipe, generator=generator, progress=progress, description=self.meta.title
        )

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the class of the largest logit."""
        labels: Tensor = self.network(x).argmax(dim=1)
        return labels
