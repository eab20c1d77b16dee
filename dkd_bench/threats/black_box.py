"""Black-box: examples are made on a reference model and transferred (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dkd_bench.threats._base import EachTarget, Roles, ThreatModelMeta


@final
class BlackBox(EachTarget):
    """Examples made on a reference network trained on the same images, judged by the whole defence."""

    meta = ThreatModelMeta(
        name="black-box",
        title="black-box transfer",
        sees="transfer",
        legend="examples made on a reference network of the adversary's own, trained on the same data.",
        place=10,
    )

    def targets(self, roles: Roles) -> Sequence[str]:
        """Return the reference alone: one craft serves every defence."""
        return (roles.reference,)
