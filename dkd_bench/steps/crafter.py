"""Crafter: one attack on one target and one chunk of images gives evidence in a content-addressed file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import final

import torch
from torch import Tensor

from dkd_bench.attacks import Attack
from dkd_bench.budget import check_images
from dkd_bench.data import Chunk
from dkd_bench.errors import StoreError
from dkd_bench.records.evidence import CraftCost, read_evidence, write_evidence
from dkd_bench.steps.plan import Craft, Trial
from dkd_bench.store.cache import cache_root
from dkd_bench.store.files import TensorStore
from dkd_bench.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Adversarial images of one chunk, with what it cost to make them."""

    images: Tensor
    """Adversarial images, float32, shape ``(n, C, H, W)``, in the order of the chunk."""
    sha256: str
    broken: int
    """Number of images that the target itself misclassifies."""
    forward_passes: int
    backward_passes: int
    wall_time_s: float
    fresh: bool
    """Whether it was made just now, rather than found."""


def crafts_store() -> TensorStore:
    """Return where crafts are kept for every run of this user."""
    return TensorStore(cache_root() / "crafts")


@final
class Crafter:
    """Maker of evidence, which finds what was made before under the same key."""

    def __init__(self, store: TensorStore) -> None:
        """Keep evidence in ``store``."""
        self.store = store

    def evidence(self, craft: Craft, attack: Attack, target: Target, chunk: Chunk) -> Evidence:
        """Return the checked evidence of one chunk of ``craft``.

        Raises:
            AttackError: if the attack fails.
            EvidenceError: if its images break budget or box, whoever made them.
            StoreError: if the file cannot be written, or is damaged.
        """
        key = craft.keys[chunk.number]
        found = self.find(key)
        if found is None:
            self._make(craft, attack, target, chunk)
            made = self.find(key)
            if made is None:
                raise StoreError(f"{self.store.path(key)} was written and is gone; is another process deleting it?")
            found = replace(made, fresh=True)
        source = f"attack {attack.meta.name!r} on {target.name}, chunk {chunk.number}"
        check_images(chunk.images.cpu(), found.images, craft.budget, source=source)
        return found

    def has_all(self, trial: Trial) -> bool:
        """Return whether every craft of ``trial`` is kept."""
        return all(self.store.path(key).is_file() for craft in trial.crafts.values() for key in craft.keys)

    def find(self, key: str) -> Evidence | None:
        """Return the evidence kept under ``key``, or ``None``; raise StoreError if its file is damaged."""
        kept = read_evidence(self.store, key)
        if kept is None:
            return None
        if kept.cost is None:
            raise StoreError(f"{self.store.path(key)} does not tell what its making took; delete it and run again")
        return Evidence(images=kept.images, sha256=kept.sha256, **asdict(kept.cost), fresh=False)

    def _make(self, craft: Craft, attack: Attack, target: Target, chunk: Chunk) -> None:
        forward, backward, start = target.forward_passes, target.backward_passes, perf_counter()
        seed = craft.seeds[chunk.number]
        adversarial = attack.run(target, chunk.images, chunk.labels, craft.budget, seed=seed)
        wall_time_s = perf_counter() - start
        forward, backward = target.forward_passes - forward, target.backward_passes - backward
        source = f"attack {attack.meta.name!r} on {target.name}, chunk {chunk.number}"
        check_images(chunk.images, adversarial, craft.budget, source=source)
        with torch.no_grad():
            broken = int((target(adversarial).argmax(dim=1) != chunk.labels).sum())
        cost = CraftCost(forward_passes=forward, backward_passes=backward, wall_time_s=wall_time_s, broken=broken)
        write_evidence(self.store, craft.keys[chunk.number], adversarial, attack=attack.meta.name, cost=cost)
