"""Evidence of a run, loaded by its key, and refused if it is not the run's."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from dkd_bench.data import Chunk
from dkd_bench.errors import AttackError, EvidenceError, StoreError
from dkd_bench.records import EvidenceRecord, RunRecord
from dkd_bench.records.evidence import KeptEvidence, PlacedEvidence, read_evidence
from dkd_bench.steps.plan import Craft
from dkd_bench.steps.prepare import Prepared
from dkd_bench.store.files import TensorStore
from dkd_bench.verify._images import fault_of


@final
class EvidenceReader:
    """Reader of evidence that checks it; each thing that is wrong is found once."""

    def __init__(self, record: RunRecord, prepared: Prepared, store: TensorStore) -> None:
        """Read what ``record`` names from ``store``; make again on ``prepared`` what is not there."""
        self.findings: list[str] = []
        self.read: set[str] = set()
        self.made_again: set[str] = set()
        self.in_part: dict[str, frozenset[int]] = {}
        """The rows that are there, of evidence kept for the broken images only."""
        self._record = record
        self._prepared = prepared
        self._store = store
        self._refused: set[str] = set()

    def kept(self, craft: Craft, chunk: Chunk) -> PlacedEvidence | None:
        """Return the evidence of one chunk, or ``None`` after finding what is wrong with it."""
        key = craft.keys[chunk.number]
        if key in self._refused:
            return None
        try:
            kept = self._load(key, craft, chunk)
        except (EvidenceError, StoreError, AttackError) as error:
            self._refused.add(key)
            self.findings.append(str(error))
            return None
        self.read.add(key)
        return kept

    def _load(self, key: str, craft: Craft, chunk: Chunk) -> PlacedEvidence:
        recorded = self._record.evidence.get(key)
        if recorded is None:
            raise EvidenceError(
                f"evidence {key} is wanted by the plan but not in the record; the run was made otherwise"
            )
        source = f"evidence {key} ({recorded.attack} on {recorded.target}, chunk {chunk.number})"
        kept = read_evidence(self._store, key, source=source) or self._made(key, craft, chunk)
        difference = kept.difference_from(recorded)
        if difference is not None:
            raise EvidenceError(f"{source}: {difference}; the images are not the run's")
        clean = chunk.images.cpu()
        placed = kept.placed(clean, source=source)
        if kept.rows is not None:
            self.in_part[key] = frozenset(kept.rows.tolist())
        fault = fault_of(clean, placed.images, craft.budget)
        if fault is not None:
            raise EvidenceError(f"{source}: {fault}")
        if kept.rows is None:
            self._count_broken(recorded, craft, chunk, placed.images, source)
        return placed

    def _count_broken(self, recorded: EvidenceRecord, craft: Craft, chunk: Chunk, images: Tensor, source: str) -> None:
        """Find whether the target itself gets as many images wrong as recorded; one that draws is not asked."""
        if recorded.broken is None or craft.randomized:
            return
        with torch.no_grad():
            answers = self._prepared.targets.target(craft)(images.to(chunk.images.device)).argmax(dim=1)
        broken = int((answers != chunk.labels).sum())
        if broken != recorded.broken:
            self.findings.append(
                f"{source}: {recorded.broken} images are recorded as broken on the target itself, here it is {broken}"
            )

    def _made(self, key: str, craft: Craft, chunk: Chunk) -> KeptEvidence:
        """Return evidence that is not there, made again."""
        self.made_again.add(key)
        attack, target, seed = (
            self._prepared.attacks[craft.attack],
            self._prepared.targets.target(craft),
            craft.seeds[chunk.number],
        )
        return KeptEvidence.whole(attack.run(target, chunk.images, chunk.labels, craft.budget, seed=seed).cpu())
