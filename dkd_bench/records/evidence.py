"""Evidence file: the adversarial images of one craft on one chunk, whole or only those that broke something.

Only this module knows what such a file holds: the tensor ``adversarial``, with ``rows`` where it is a part; in the
header what its making took, or the digest of the whole that it is a part of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, final

import torch
from torch import Tensor

from dkd_bench.errors import EvidenceError
from dkd_bench.records import EvidenceRecord
from dkd_bench.store.digests import digest_tensors
from dkd_bench.store.files import TensorStore

_IMAGES, _ROWS, _DIGEST, _DIGEST_OF_WHOLE = "adversarial", "rows", "sha256", "of_sha256"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CraftCost:
    """Cost of making the evidence of one chunk, and the number of images broken."""

    forward_passes: int
    backward_passes: int
    wall_time_s: float
    broken: int
    """Number of images that the target itself misclassifies."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedEvidence:
    """Evidence of one chunk in the places of its clean images."""

    images: Tensor
    """Shape ``(n, C, H, W)`` for the whole chunk; rows not covered hold the clean image."""
    covered: Tensor
    """Rows whose adversarial image is kept: bool, shape ``(n,)``, on the CPU."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeptEvidence:
    """Evidence as a file holds it."""

    images: Tensor
    """Shape ``(n, C, H, W)``; as many as there are ``rows``, or the whole chunk."""
    sha256: str
    """Digest of the whole chunk: computed where it is here; where there are ``rows``, as the file states it."""
    rows: Tensor | None = None
    """Places of the images in the chunk; ``None`` for the whole."""
    cost: CraftCost | None = None
    """Cost of making it; ``None`` for a part, and where the file does not tell."""

    @classmethod
    def whole(cls, images: Tensor) -> KeptEvidence:
        """Return images of a whole chunk, with their digest, as if they had been read from a file."""
        return cls(images=images, sha256=digest_tensors({_IMAGES: images}))

    def difference_from(self, recorded: EvidenceRecord) -> str | None:
        """Return the difference of the digest of the whole from the one recorded; ``None`` if there is none."""
        if self.sha256 == recorded.sha256:
            return None
        return f"expected digest {recorded.sha256}, got {self.sha256}"

    def placed(self, clean: Tensor, *, source: str) -> PlacedEvidence:
        """Return the images in the places of their clean ones, on the device of those.

        A whole is not looked at; whether it has the shape of ``clean`` is for the caller to check.

        Args:
            clean: the images of the chunk, shape ``(n, C, H, W)``.
            source: name of the evidence, for messages.

        Raises:
            EvidenceError: if the rows are no places in the chunk, in order, one for each image.
        """
        if self.rows is None:
            return PlacedEvidence(images=self.images.to(clean.device), covered=torch.ones(len(clean), dtype=torch.bool))
        _check_rows(self.rows, self.images, clean, source)
        covered = torch.zeros(len(clean), dtype=torch.bool).index_fill(0, self.rows, value=True)
        images = clean.index_copy(0, self.rows.to(clean.device), self.images.to(clean.device))
        return PlacedEvidence(images=images, covered=covered)


def read_evidence(store: TensorStore, key: str, *, source: str | None = None) -> KeptEvidence | None:
    """Return the evidence kept under ``key``, or ``None`` if there is none.

    Args:
        store: to look in.
        key: of the craft and chunk.
        source: name of the evidence for messages; its path without.

    Raises:
        StoreError: if the file is damaged or its digest is wrong.
        EvidenceError: if it holds no adversarial images.
    """
    found = store.get_with_metadata(key)
    if found is None:
        return None
    tensors, metadata = found
    if _IMAGES not in tensors:
        name = source or store.path(key)
        raise EvidenceError(f"{name}: expected a tensor {_IMAGES!r}, the file has {', '.join(tensors)}")
    images = tensors[_IMAGES]
    if _ROWS in tensors:
        return KeptEvidence(images=images, rows=tensors[_ROWS], sha256=str(metadata.get(_DIGEST_OF_WHOLE)))
    # The store has compared the digest of all tensors in the file with the one stated.
    digest = metadata[_DIGEST] if len(tensors) == 1 else digest_tensors({_IMAGES: images})
    return KeptEvidence(images=images, sha256=digest, cost=_cost(metadata))


def find_evidence(stores: Sequence[TensorStore], key: str) -> KeptEvidence | None:
    """Return the evidence of ``key`` from the first store that has it whole, else from the first that has part of it.

    Raises:
        StoreError, EvidenceError: as ``read_evidence``.
    """
    found = [kept for kept in (read_evidence(store, key) for store in stores) if kept is not None]
    return min(found, key=lambda kept: kept.rows is not None, default=None)


def write_evidence(store: TensorStore, key: str, images: Tensor, *, attack: str, cost: CraftCost) -> None:
    """Keep the images that ``attack`` made of a whole chunk; raise StoreError if they cannot be written."""
    store.put(key, {_IMAGES: images}, {**asdict(cost), "attack": attack})


def write_part(store: TensorStore, key: str, whole: KeptEvidence, rows: Sequence[int]) -> None:
    """Keep of ``whole`` the images in ``rows``, in rising order; raise StoreError if they cannot be written."""
    index = torch.tensor(rows)
    store.put(key, {_IMAGES: whole.images[index], _ROWS: index}, {_DIGEST_OF_WHOLE: whole.sha256})


def _cost(metadata: Mapping[str, Any]) -> CraftCost | None:
    names = [field.name for field in fields(CraftCost)]
    return CraftCost(**{name: metadata[name] for name in names}) if metadata.keys() >= set(names) else None


def _check_rows(rows: Tensor, images: Tensor, clean: Tensor, source: str) -> None:
    """Refuse images whose places in the chunk make no sense."""
    places = rows.tolist() if rows.dtype == torch.int64 and rows.dim() == 1 else []
    in_order = places == sorted(set(places)) and all(0 <= place < len(clean) for place in places)
    if not places or not in_order or images.shape != (len(places), *clean.shape[1:]) or images.dtype != clean.dtype:
        raise EvidenceError(
            f"{source}: expected as many {clean.dtype} images as rows, in order, from 0 to {len(clean) - 1}, "
            f"got {images.dtype} images {tuple(images.shape)} and rows {rows.dtype} {tuple(rows.shape)}"
        )
