"""Interface of a threat model: which targets an adversary sees, and how the crafts on them become images to score.

Nothing here imports torch, so that a board tells the facts of a threat model at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from dkd_bench.budget import TOLERANCE, Budget, perturbation_norms

if TYPE_CHECKING:
    from torch import Tensor

Sight = Literal["transfer", "part", "whole"]
"""Extent of what an adversary sees: a network of its own, parts of the defence, or the defence as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Names of the targets that a defence offers, one group for each way of seeing it."""

    reference: str
    """Name of the black-box reference: a network of the adversary's own, trained on the same images."""
    members: tuple[str, ...]
    surrogates: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreatModelMeta:
    """Declaration of a threat model about itself: its name, what it sees, and how a board shows it."""

    name: str
    title: str
    sees: Sight
    """Extent of sight: only numbers with sight of the ``whole`` may be trusted; the others flatter ensembles."""
    legend: str
    """Line in a board's legend, ending in a stop: what the examples are made on, and what counts per image."""
    place: int = 50
    """Position in the reading order, from the least sight to the most: the built-in ones have 10, 20, 30 and 40. Equal
    places go by name."""
    mean_over: str = ""
    """Plural of what each candidate is of, where their mean is reported beside the worst; empty for no mean."""

    @property
    def sees_whole(self) -> bool:
        """Whether its examples are made on the whole defence, so that its numbers may be trusted."""
        return self.sees == "whole"


class ThreatModel(ABC):
    """Choice of the targets attacked, and of the images that the defence is then shown; made without arguments."""

    meta: ClassVar[ThreatModelMeta]

    @abstractmethod
    def targets(self, roles: Roles) -> Sequence[str]:
        """Return the names of the targets to craft on, of those in ``roles``; none if the defence offers none."""

    @abstractmethod
    def candidates(self, clean: Tensor, crafted: Mapping[str, Tensor], budget: Budget) -> Iterator[tuple[str, Tensor]]:
        """Yield named candidate images inside ``budget`` and [0, 1], shape ``(N, C, H, W)`` each.

        The adversary succeeds on an image if any candidate does. The names are the same for any images, and
        nothing that is given may be changed.

        Args:
            clean: the clean images.
            crafted: the adversarial images for each of ``targets`` that the attack applies to, at least one, in
                their order; a minimum-norm craft may lie outside ``budget``.
            budget: of the cell that is scored; without ``eps`` for what goes as far as it needs.
        """


class EachTarget(ThreatModel, ABC):
    """Threat model in which every craft is a candidate as it stands."""

    @final
    def candidates(self, clean: Tensor, crafted: Mapping[str, Tensor], budget: Budget) -> Iterator[tuple[str, Tensor]]:
        """Yield each craft; the clean image where a minimum-norm craft needed more than the budget."""
        for name, adversarial in crafted.items():
            yield name, _within(clean, adversarial, budget)


def _within(clean: Tensor, adversarial: Tensor, budget: Budget) -> Tensor:
    if budget.eps is None:
        return adversarial
    inside = perturbation_norms(clean, adversarial, budget.norm) <= budget.eps + TOLERANCE
    return adversarial.where(inside.view(-1, 1, 1, 1), clean)
