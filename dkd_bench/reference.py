"""The black-box reference: the adversary's own network, trained on the same images (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from dkd_bench.data import ImageSpec
from dkd_bench.defense import Defense, DefenseMeta
from dkd_bench.networks import build_network, reference_network_name
from dkd_bench.progress import Progress
from dkd_bench.training import Recipe, TrainingSet, train_network

SEED_OFFSET = 1_000_003
"""Added to a run's seed, so that the adversary's network shares no random number with the defences."""


@final
class Reference(Defense):
    """LeNet for gray images, VGG16 for colour ones; nobody defends it."""

    meta = DefenseMeta(name="reference", title="Black-box reference")

    def __init__(self, images: ImageSpec, settings: object = None) -> None:
        """Build the network that fits the images."""
        super().__init__(images, settings)
        self.network = build_network(reference_network_name(images), images)

    @property
    def members(self) -> Sequence[nn.Module]:
        """The one network."""
        return [self.network]

    def fit(self, data: TrainingSet, *, recipe: Recipe, generator: torch.Generator, progress: Progress) -> None:
        """Train by cross-entropy."""
        train_network(
            self.network,
            data,
            recipe=recipe,
            generator=generator,
            progress=progress,
            description="black-box reference",
        )

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the class of the largest logit."""
        labels: Tensor = self.network(x).argmax(dim=1)
        return labels
