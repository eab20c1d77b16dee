"""Cell key: the identity of one cell of a run, spelled in one way."""

from __future__ import annotations

from dkd_bench.budget import Budget, Norm
from dkd_bench.records._base import Record


class CellKey(Record):
    """Identity of a cell: defence, decision rule, threat model, attack and budget; hashable, and a name as text.

    The text is ``dkd majority, joint, pgd linf 0.1``: it leaves out the dataset, which is the whole run's.
    """

    defense: str
    decision: str
    dataset: str
    """Name of the dataset; two files of the same images have unlike names."""
    threat_model: str
    attack: str
    norm: Norm
    eps: float | None
    """Budget in [0, 1] pixel units, in l0 a number of values; ``None`` for a minimum-norm attack without budget."""

    def __str__(self) -> str:
        return f"{self.defense} {self.decision}, {self.threat_model}, {self.attack} {self.budget}"

    @property
    def budget(self) -> Budget:
        """The budget of the cell."""
        return Budget(norm=self.norm, eps=self.eps)

    def with_dataset(self, name: str) -> CellKey:
        """Return the key of the same cell where its images are called ``name``."""
        return self.model_copy(update={"dataset": name})
