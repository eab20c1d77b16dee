"""No defence: one network, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from dkd_bench.api import (
    Defense,
    DefenseMeta,
    ImageSpec,
    Progress,
    Recipe,
    TrainingSet,
    build_network,
    train_network,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UndefendedSettings:
    """What can be set of the undefended network."""

    network: str = "auto"
    """A name of ``dkd_bench.networks``; ``auto`` is the one of Table 1 that fits the images."""


@final
class Undefended(Defense):
    """No defence: the main model of the paper alone, trained by cross-entropy."""

    meta = DefenseMeta(name="none", title="No defence")
    Settings: ClassVar[type[Any]] = UndefendedSettings
    settings: UndefendedSettings

    def __init__(self, images: ImageSpec, settings: UndefendedSettings | None = None) -> None:
        """Build the network."""
        super().__init__(images, settings)
        self.network = build_network(self.settings.network, images)

    @property
    def members(self) -> Sequence[nn.Module]:
        """The one network."""
        return [self.network]

    def fit(self, data: TrainingSet, *, recipe: Recipe, generator: torch.Generator, progress: Progress) -> None:
        """Train the network by cross-entropy (Eq. 1)."""
        train_network(
            self.network,
            data,
            recipe=recipe,
            generator=generator,
            progress=progress,
            description="none: network",
        )

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the class of the largest logit."""
        labels: Tensor = self.network(x).argmax(dim=1)
        return labels
