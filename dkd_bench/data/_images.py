"""Images of a run: a seeded choice of test images, cut into canonical chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dkd_bench.data._dataset import Dataset
from dkd_bench.store.digests import digest_tensors

CHUNK_SIZE = 250
"""Number of images in a canonical chunk: the grain of resume and of memory. Another one changes every craft's key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Clean images of one chunk, float32 in [0, 1], shape ``(n, C, H, W)``, and their labels."""

    number: int
    images: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class RunImages:
    """Test images that a run attacks, in their order."""

    dataset: Dataset
    indices: Tensor
    """Positions in the test set, int64, shape ``(N,)``."""
    device: torch.device

    def __len__(self) -> int:
        return len(self.indices)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the images chunk by chunk, on the device."""
        for number in range(-(-len(self.indices) // CHUNK_SIZE)):
            yield self.chunk(number)

    def chunk(self, number: int) -> Chunk:
        """Return one chunk, on the device."""
        images, labels = self.dataset.test.batch(self.indices[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE])
        return Chunk(number=number, images=images.to(self.device), labels=labels.to(self.device))

    def at(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the images in these rows of the run's order, and their labels, on the device."""
        images, labels = self.dataset.test.batch(self.indices[torch.tensor(rows, dtype=torch.int64)])
        return images.to(self.device), labels.to(self.device)

    def digests(self) -> tuple[str, ...]:
        """Return a digest of images and labels, chunk by chunk."""
        batches = (self.dataset.test.batch(indices) for indices in self.indices.split(CHUNK_SIZE))
        return tuple(digest_tensors({"images": images, "labels": labels}) for images, labels in batches)
