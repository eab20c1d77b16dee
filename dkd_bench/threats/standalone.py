"""Standalone: examples are made on one member at a time (paper, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dkd_bench.threats._base import EachTarget, Roles, ThreatModelMeta


@final
class Standalone(EachTarget):
    """Examples made on each member alone, judged by the whole defence; the worst per image counts."""

    meta = ThreatModelMeta(name="standalone", title="standalone")

    def targets(self, roles: Roles) -> Sequence[str]:
        """Return the members."""
        return roles.members
