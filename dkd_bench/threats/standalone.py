"""Standalone: examples are made on one member at a time (paper, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dkd_bench.threats._base import EachTarget, Roles, ThreatModelMeta


@final
class Standalone(EachTarget):
    """Examples made on each member alone, judged by the whole defence; the worst per image counts."""

    meta = ThreatModelMeta(
        name="standalone",
        title="standalone",
        sees="part",
        legend="examples made on one member alone; per image the worst over the members.",
        place=20,
        mean_over="members",
    )

    def targets(self, roles: Roles) -> Sequence[str]:
        """Return the members."""
        return roles.members
