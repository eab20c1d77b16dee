"""RI, an ensemble of networks that differ by their random initialisation alone (the paper's Fig. 3, right)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from torch import nn

from dkd_bench.api import (
    DefenseMeta,
    ImageSpec,
    Progress,
    Recipe,
    TrainingSet,
    VotingEnsemble,
    build_network,
    train_network,
)
from dkd_defenses._sequential import EnsembleSettings


@final
class RI(VotingEnsemble):
    """Random initialisation: independent networks trained by cross-entropy."""

    meta = DefenseMeta(name="ri", title="RI", paper="arXiv:2006.15127")
    Settings: ClassVar[type[Any]] = EnsembleSettings
    settings: EnsembleSettings

    def __init__(self, images: ImageSpec, settings: EnsembleSettings | None = None) -> None:
        """Build the networks, each with its own initial weights."""
        super().__init__(images, settings)
        self.top_n = self.settings.top_n
        self.networks = nn.ModuleList(
            build_network(self.settings.network, images) for _ in range(self.settings.n_members)
        )

    @property
    def members(self) -> Sequence[nn.Module]:
        """The networks, all of which vote."""
        return [*self.networks]

    def fit(self, data: TrainingSet, *, recipe: Recipe, generator: torch.Generator, progress: Progress) -> None:
        """Train each network by itself (Eq. 1)."""
        for position, network in enumerate(self.networks, start=1):
            train_network(
                network,
                data,
                recipe=recipe,
                generator=generator,
                progress=progress,
                description=f"ri: network {position}",
            )
