"""Aggregated: perturbations found on each member, added up, and followed along their sum (section 4.3, Fig. 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, final

from dkd_bench.budget import Budget, project
from dkd_bench.threats._base import Roles, ThreatModel, ThreatModelMeta

if TYPE_CHECKING:
    from torch import Tensor

MAGNITUDES = (0.25, 0.5, 0.75, 1.0)
"""Fractions of the summed perturbation that are tried; 1 is the sum itself."""

ROUNDING = 1e-6
"""Sum of a pixel, below which it is what float32 leaves of perturbations that cancel out: no direction to follow."""


@final
class Aggregated(ThreatModel):
    """The members' perturbations summed, at several magnitudes, inside the budget; the worst per image counts."""

    meta = ThreatModelMeta(
        name="aggregated",
        title="aggregated",
        sees="part",
        legend="the members' examples summed into one direction; per image the worst over magnitudes.",
        place=30,
    )

    def targets(self, roles: Roles) -> Sequence[str]:
        """Return the members: the crafts of the standalone threat model serve here too."""
        return roles.members

    def candidates(self, clean: Tensor, crafted: Mapping[str, Tensor], budget: Budget) -> Iterator[tuple[str, Tensor]]:
        """Yield the sum at each magnitude, projected, and with a budget also the sum stretched to its edge."""
        import torch  # here, since whoever asks for the facts of a threat model needs no torch

        total = torch.stack([adversarial - clean for adversarial in crafted.values()]).sum(dim=0)
        for magnitude in MAGNITUDES:
            yield f"{magnitude:g} of the sum", project(clean, clean + magnitude * total, budget)
        if budget.eps is not None:
            yield "to the edge", project(clean, clean + _stretched(total, budget), budget)


def _stretched(total: Tensor, budget: Budget) -> Tensor:
    """Return the direction of ``total`` with the budget's whole length: ``eps * sign`` in Linf.

    In L0 that is the sum as it is: how far a value goes is no matter there, and the projection keeps ``eps`` of them.
    """
    assert budget.eps is not None, "only a budget has an edge"
    total = total.masked_fill(total.abs() < ROUNDING, 0)
    if budget.norm == "linf":
        return budget.eps * total.sign()
    if budget.norm == "l0":
        return total
    length = total.flatten(1).square().sum(dim=1).sqrt().view(-1, 1, 1, 1)
    return (total * budget.eps / length.clamp_min(1e-12)).where(length > 0, total)
