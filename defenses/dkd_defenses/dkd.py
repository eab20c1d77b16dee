"""DKD, diverse knowledge distillation (Mirzaeian et al., arXiv 2006.15127)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from dkd_bench.api import ConfigError, DefenseMeta, Objective, Split, TrainingBatch
from dkd_defenses._sequential import DistilledEnsemble, DistilledSettings, FrozenOutputs

PAPER_ZETA_GRAY = 0.9
PAPER_ZETA_COLOUR = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DKDSettings(DistilledSettings):
    """Settings of DKD."""

    zeta: float | None = None
    """Weight of diversity against accuracy, in [0, 1) (Eq. 3); unset, the paper's: 0.9 gray, 0.5 colour."""
    latent_layer: str = "latent"
    """Name of the layer whose outputs are driven apart."""

    def __post_init__(self) -> None:
        DistilledSettings.__post_init__(self)
        if self.zeta is not None and not 0 <= self.zeta < 1:
            raise ConfigError(f"zeta must be in [0, 1), since 1 - zeta weighs the accuracy; got {self.zeta}")


@final
class DKD(DistilledEnsemble):
    """Diverse knowledge distillation: each auxiliary's latents are driven away from all earlier ones."""

    meta = DefenseMeta(name="dkd", title="DKD", paper="arXiv:2006.15127")
    Settings: ClassVar[type[Any]] = DKDSettings
    settings: DKDSettings

    @property
    def zeta(self) -> float:
        """The weight of diversity in use: the setting, or the paper's for these images."""
        if self.settings.zeta is not None:
            return self.settings.zeta
        return PAPER_ZETA_GRAY if self.images.channels == 1 else PAPER_ZETA_COLOUR

    def auxiliary_objective(self, earlier: Sequence[nn.Module], split: Split) -> Objective:
        """Return Eq. 4 against the latents of ``earlier``."""
        layer = self.settings.latent_layer
        return Diversity(FrozenOutputs(earlier, split, latent_layer=layer), zeta=self.zeta, latent_layer=layer)


@final
class Diversity(Objective):
    """Eq. 4: ``(1 - zeta) CE + (zeta / i) * sum`` of the cosine similarities to the i earlier networks' latents."""

    def __init__(self, earlier: FrozenOutputs, *, zeta: float, latent_layer: str) -> None:
        """Take the frozen latents on the training images, each ``(N, D)``."""
        self.latent_layer = latent_layer
        self._zeta = zeta
        self._earlier = earlier

    def identity(self) -> dict[str, Any]:
        """Return the weight of the terms, the layer, and the networks driven away from."""
        return {
            "objective": "diversity",
            "zeta": self._zeta,
            "latent_layer": self.latent_layer,
            "earlier": self._earlier.identity(),
        }

    @cached_property
    def _directions(self) -> list[Tensor]:
        return [nn.functional.normalize(latents, dim=1) for latents in self._earlier.tensors]

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Return the loss of a batch: similarity per sample, averaged over the batch (Eq. 2)."""
        assert batch.latent is not None, "the training loop captures the latent layer"
        own = nn.functional.normalize(batch.latent, dim=1)
        similarities = [(own * direction[batch.indices]).sum(dim=1).mean() for direction in self._directions]
        accuracy = nn.functional.cross_entropy(batch.logits, batch.labels)
        return (1 - self._zeta) * accuracy + self._zeta * torch.stack(similarities).mean()
