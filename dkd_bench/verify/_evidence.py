"""The evidence of a run, loaded by its key, and refused if it is not the run's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from dkd_bench.data import Chunk
from dkd_bench.errors import AttackError, EvidenceError, StoreError
from dkd_bench.records import EvidenceRecord, RunRecord
from dkd_bench.steps.plan import Craft
from dkd_bench.steps.prepare import Prepared
from dkd_bench.store.digests import digest_tensors
from dkd_bench.store.files import TensorStore
from dkd_bench.verify._images import fault_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Evidence of one chunk, and the rows of the chunk it covers."""

    images: Tensor
    """Shape ``(n, C, H, W)`` for the whole chunk; rows not covered hold the clean image."""
    covered: Tensor
    """bool, shape ``(n,)``."""


@final
class EvidenceReader:
    """Reads evidence and checks it; each thing that is wrong is found once."""

    def __init__(self, record: RunRecord, bench: Prepared, store: TensorStore) -> None:
        """Read what ``record`` names from ``store``; make again on ``bench`` what is not there."""
        self.findings: list[str] = []
        self.read: set[str] = set()
        self.made_again: set[str] = set()
        self.in_part: dict[str, frozenset[int]] = {}
        """The rows that are there, of evidence kept for the broken images only."""
        self._record = record
        self._bench = bench
        self._store = store
        self._refused: set[str] = set()

    def kept(self, craft: Craft, chunk: Chunk) -> Kept | None:
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

    def _load(self, key: str, craft: Craft, chunk: Chunk) -> Kept:
        recorded = self._record.evidence.get(key)
        if recorded is None:
            raise EvidenceError(
                f"evidence {key} is wanted by the plan but not in the record; the run was made otherwise"
            )
        source = f"evidence {key} ({recorded.attack} on {recorded.target}, chunk {chunk.number})"
        images, rows, digest = self._found_or_made(key, craft, chunk, source)
        if digest != recorded.sha256:
            raise EvidenceError(
                f"{source}: expected digest {recorded.sha256}, got {digest}; the images are not the run's"
            )
        clean = chunk.images.cpu()
        covered = torch.ones(len(clean), dtype=torch.bool)
        if rows is not None:
            _check_rows(rows, images, clean, source)
            self.in_part[key] = frozenset(rows.tolist())
            covered = torch.zeros(len(clean), dtype=torch.bool).index_fill(0, rows, value=True)
            images = clean.index_copy(0, rows, images)
        fault = fault_of(clean, images, craft.budget)
        if fault is not None:
            raise EvidenceError(f"{source}: {fault}")
        if rows is None:
            self._count_broken(recorded, craft, chunk, images, source)
        return Kept(images=images, covered=covered)

    def _count_broken(self, recorded: EvidenceRecord, craft: Craft, chunk: Chunk, images: Tensor, source: str) -> None:
        """Find whether the target itself gets as many images wrong as recorded; one that draws is not asked."""
        if recorded.broken is None or craft.randomized:
            return
        with torch.no_grad():
            answers = self._bench.targets.target(craft)(images.to(chunk.images.device)).argmax(dim=1)
        broken = int((answers != chunk.labels).sum())
        if broken != recorded.broken:
            self.findings.append(
                f"{source}: {recorded.broken} images are recorded as broken on the target itself, here it is {broken}"
            )

    def _found_or_made(self, key: str, craft: Craft, chunk: Chunk, source: str) -> tuple[Tensor, Tensor | None, str]:
        """Return images, the rows they stand for if not all, and the digest of the whole."""
        found = self._store.get_with_metadata(key)
        if found is None:
            self.made_again.add(key)
            attack, target = self._bench.attacks[craft.attack], self._bench.targets.target(craft)
            seed = craft.seeds[chunk.number]
            images = attack.run(target, chunk.images, chunk.labels, craft.budget, seed=seed).cpu()
            return images, None, digest_tensors({"adversarial": images})
        tensors, metadata = found
        if "adversarial" not in tensors:
            raise EvidenceError(f"{source}: expected a tensor 'adversarial', the file has {', '.join(tensors)}")
        images, rows = tensors["adversarial"], tensors.get("rows")
        if rows is None:
            return images, None, digest_tensors({"adversarial": images})
        return images, rows, str(metadata.get("of_sha256"))


def _check_rows(rows: Tensor, images: Tensor, clean: Tensor, source: str) -> None:
    """Refuse images whose places in the chunk make no sense."""
    places = rows.tolist() if rows.dtype == torch.int64 and rows.dim() == 1 else []
    in_order = places == sorted(set(places)) and all(0 <= place < len(clean) for place in places)
    if not places or not in_order or images.shape != (len(places), *clean.shape[1:]) or images.dtype != clean.dtype:
        raise EvidenceError(
            f"{source}: expected as many {clean.dtype} images as rows, in order, from 0 to {len(clean) - 1}, "
            f"got {images.dtype} images {tuple(images.shape)} and rows {rows.dtype} {tuple(rows.shape)}"
        )
