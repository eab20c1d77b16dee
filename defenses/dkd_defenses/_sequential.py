"""Base class and settings of the paper's ensembles: networks trained in turn, of which the auxiliaries vote."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor, nn

from dkd_bench.api import (
    ConfigError,
    CrossEntropy,
    ImageSpec,
    Objective,
    Progress,
    Recipe,
    Split,
    TrainingSet,
    VotingEnsemble,
    build_network,
    digest_module,
    outputs_on,
    train_network,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSettings:
    """Settings of every ensemble of the paper."""

    n_members: int = 3
    """Number of networks that vote, the main model not counted."""
    top_n: int = 2
    """Number of classes that each member names in the boosted vote."""
    network: str = "auto"
    """A name of ``dkd_bench.training.networks``; ``auto`` is the one of Table 1 that fits the images."""

    def __post_init__(self) -> None:
        if self.n_members < 1:
            raise ConfigError(f"n_members must be at least 1, got {self.n_members}")
        if self.top_n < 1:
            raise ConfigError(f"top_n must be at least 1, got {self.top_n}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilledSettings(EnsembleSettings):
    """Settings of the ensembles that begin with a main model."""

    include_main: bool = False
    """Whether the main model votes too; the paper votes among the auxiliaries."""


class DistilledEnsemble(VotingEnsemble):
    """A main model, then auxiliaries, each trained against all that came before, which are frozen (Fig. 3)."""

    settings: DistilledSettings

    def __init__(self, images: ImageSpec, settings: DistilledSettings | None = None) -> None:
        """Build the main model first, so that under one seed it is the same network for every ensemble."""
        super().__init__(images, settings)
        self.top_n = self.settings.top_n
        self.main = build_network(self.settings.network, images)
        self.auxiliaries = nn.ModuleList(
            build_network(self.settings.network, images) for _ in range(self.settings.n_members)
        )

    @property
    def members(self) -> Sequence[nn.Module]:
        """The auxiliaries, and the main model before them if it is set to vote."""
        return [self.main, *self.auxiliaries] if self.settings.include_main else [*self.auxiliaries]

    @final
    def fit(self, data: TrainingSet, *, recipe: Recipe, generator: torch.Generator, progress: Progress) -> None:
        """Train the main model by cross-entropy (Eq. 1), then each auxiliary by its own objective."""
        earlier: list[nn.Module] = []
        for network in [self.main, *self.auxiliaries]:
            train_network(
                network,
                data,
                recipe=recipe,
                generator=generator,
                objective=self.auxiliary_objective(earlier, data.split) if earlier else CrossEntropy(),
                progress=progress,
                description=f"{self.meta.name}: " + (f"auxiliary {len(earlier)}" if earlier else "main model"),
            )
            earlier.append(network)

    @abstractmethod
    def auxiliary_objective(self, earlier: Sequence[nn.Module], split: Split) -> Objective:
        """Return the objective of the next auxiliary, given the frozen networks trained so far."""


@final
class FrozenOutputs:
    """Outputs of earlier networks on the training images: evaluated once, when first asked for."""

    def __init__(self, networks: Sequence[nn.Module], split: Split, *, latent_layer: str | None = None) -> None:
        """Take the networks, and the layer wanted of them; their logits if none is named."""
        self._networks = tuple(networks)
        self._split = split
        self._latent_layer = latent_layer

    def identity(self) -> list[str]:
        """Return the digests of the networks, in order."""
        return [digest_module(network) for network in self._networks]

    @cached_property
    def tensors(self) -> list[Tensor]:
        """The outputs of each network on all training images, in their order."""
        return [outputs_on(network, self._split, latent_layer=self._latent_layer) for network in self._networks]
