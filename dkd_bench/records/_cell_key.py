"""Which cell is meant: the one spelling of a cell's key."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dkd_bench.budget import Budget, Norm


class CellKey(BaseModel):
    """One defence under one decision rule, threat model, attack and budget."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    defense: str
    decision: str
    dataset: str
    threat_model: str
    attack: str
    norm: Norm
    eps: float | None
    """``None`` for a minimum-norm attack without budget."""

    def __str__(self) -> str:
        return f"{self.defense} {self.decision}, {self.threat_model}, {self.attack} {self.budget}"

    @property
    def budget(self) -> Budget:
        """The budget of the cell."""
        return Budget(norm=self.norm, eps=self.eps)
