"""Joint: examples are made on the differentiable whole; what a competent adversary does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dkd_bench.threats._base import EachTarget, Roles, ThreatModelMeta


@final
class Joint(EachTarget):
    """Examples made on the differentiable whole under several ensemble losses; the worst per image counts."""

    meta = ThreatModelMeta(
        name="joint",
        title="joint",
        sees="whole",
        legend="examples made on the differentiable whole; per image the worst over surrogates.",
        place=40,
    )

    def targets(self, roles: Roles) -> Sequence[str]:
        """Return the defence's surrogates; none if it is not differentiable and brings none."""
        return roles.surrogates
