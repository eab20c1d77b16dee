"""The interface of a threat model: which targets an adversary sees, and what becomes of the crafts on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from dkd_bench.budget import TOLERANCE, Budget, perturbation_norms


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The names of the targets that a defence offers, one group for each way of seeing it."""

    reference: str
    """The black-box reference: a network of the adversary's own, trained on the same images."""
    members: tuple[str, ...]
    surrogates: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreatModelMeta:
    """What a threat model is called."""

    name: str
    title: str


class ThreatModel(ABC):
    """Which targets are attacked, and which images the defence is then shown."""

    meta: ClassVar[ThreatModelMeta]

    @abstractmethod
    def targets(self, roles: Roles) -> Sequence[str]:
        """Return the names of the targets to craft on; none if the defence offers none."""

    @abstractmethod
    def candidates(self, clean: Tensor, crafted: Mapping[str, Tensor], budget: Budget) -> Iterator[tuple[str, Tensor]]:
        """Yield named candidate images inside ``budget``, shape ``(N, C, H, W)`` each.

        The adversary succeeds on an image if any candidate does.

        Args:
            clean: the clean images.
            crafted: the adversarial images for each of ``targets``, in their order; a minimum-norm craft may
                lie outside ``budget``.
            budget: of the cell that is scored.
        """


class EachTarget(ThreatModel, ABC):
    """A threat model in which every craft is a candidate as it stands."""

    @final
    def candidates(self, clean: Tensor, crafted: Mapping[str, Tensor], budget: Budget) -> Iterator[tuple[str, Tensor]]:
        """Yield each craft; the clean image where a minimum-norm craft needed more than the budget."""
        for name, adversarial in crafted.items():
            yield name, _within(clean, adversarial, budget)


def _within(clean: Tensor, adversarial: Tensor, budget: Budget) -> Tensor:
    if budget.eps is None:
        return adversarial
    inside = perturbation_norms(clean, adversarial, budget.norm) <= budget.eps + TOLERANCE
    return torch.where(inside.view(-1, 1, 1, 1), adversarial, clean)
