"""KD, an ensemble by knowledge distillation (Hinton et al. 2015; the paper's Fig. 3, middle)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from dkd_bench.api import ConfigError, DefenseMeta, Objective, Split, TrainingBatch
from dkd_defenses._sequential import DistilledEnsemble, DistilledSettings, FrozenOutputs


@dataclass(frozen=True, slots=True, kw_only=True)
class KDSettings(DistilledSettings):
    """Settings of KD; the paper gives no values."""

    temperature: float = 4.0
    """Temperature that softens teachers and student alike; positive."""
    distillation_weight: float = 0.7
    """Weight of the divergence against cross-entropy, in [0, 1]."""

    def __post_init__(self) -> None:
        DistilledSettings.__post_init__(self)
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be positive, got {self.temperature}")
        if not 0 <= self.distillation_weight <= 1:
            raise ConfigError(f"distillation_weight must be in [0, 1], got {self.distillation_weight}")


@final
class KD(DistilledEnsemble):
    """Knowledge distillation: each student imitates the softened answers of all earlier networks."""

    meta = DefenseMeta(name="kd", title="KD", paper="arXiv:1503.02531, arXiv:2006.15127")
    Settings: ClassVar[type[Any]] = KDSettings
    settings: KDSettings

    def auxiliary_objective(self, earlier: Sequence[nn.Module], split: Split) -> Objective:
        """Return cross-entropy and divergence from the answers of ``earlier``."""
        return Distillation(
            FrozenOutputs(earlier, split),
            temperature=self.settings.temperature,
            weight=self.settings.distillation_weight,
        )


@final
class Distillation(Objective):
    """``(1 - w) CE + w T^2`` times the mean over teachers of KL(teacher || student), both at temperature T.

    T squared keeps the gradients' scale (Hinton et al. 2015, section 2).
    """

    def __init__(self, teachers: FrozenOutputs, *, temperature: float, weight: float) -> None:
        """Take the teachers' logits on the training images, each ``(N, K)``."""
        self._teachers = teachers
        self._temperature = temperature
        self._weight = weight

    def identity(self) -> dict[str, Any]:
        """Return temperature, weight, and the teachers."""
        return {
            "objective": "distillation",
            "temperature": self._temperature,
            "weight": self._weight,
            "teachers": self._teachers.identity(),
        }

    @cached_property
    def _soft_targets(self) -> list[Tensor]:
        return [(logits / self._temperature).log_softmax(dim=1) for logits in self._teachers.tensors]

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Return the loss of a batch."""
        student = (batch.logits / self._temperature).log_softmax(dim=1)
        divergences = [
            nn.functional.kl_div(student, teacher[batch.indices], reduction="batchmean", log_target=True)
            for teacher in self._soft_targets
        ]
        imitation = torch.stack(divergences).mean() * self._temperature**2
        accuracy = nn.functional.cross_entropy(batch.logits, batch.labels)
        return (1 - self._weight) * accuracy + self._weight * imitation
