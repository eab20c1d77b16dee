"""Datasets in memory, whatever file they came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from dkd_bench.budget import Norm
from dkd_bench.errors import ConfigError, DatasetError, FieldName
from dkd_bench.store.digests import digest_json, digest_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """Shape of a dataset's images and number of its classes: all a network needs to be built."""

    channels: int
    height: int
    width: int
    n_classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Images as they are stored, uint8, with their labels; floats are made batch by batch."""

    images: Tensor
    """uint8, shape ``(N, C, H, W)``, values 0 to ``white``."""
    labels: Tensor
    """int64, shape ``(N,)``, values 0 to K - 1."""
    white: int = 255
    """Stored value that becomes 1.0."""

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DatasetError(
                f"images must be uint8 of shape (N, C, H, W), got {self.images.dtype} {tuple(self.images.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise DatasetError(
                f"labels must be int64 of shape ({len(self.images)},), "
                f"got {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if len(self.images) and int(self.images.max()) > self.white:
            raise DatasetError(f"images must be at most {self.white}, got {int(self.images.max())}")

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images of ``indices`` as float32 in [0, 1], shape ``(n, C, H, W)``, and their labels."""
        return self.images[indices].float() / self.white, self.labels[indices]

    def digest(self) -> str:
        """Return the SHA-256 of images, labels and scale."""
        return digest_json(
            {"tensors": digest_tensors({"images": self.images, "labels": self.labels}), "white": self.white}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Train and test images of one classification task."""

    name: str
    train: Split
    test: Split
    n_classes: int
    default_n_examples: int = 1000
    """Number of test images that a run takes unless it says otherwise."""
    default_eps: dict[Norm, float] = field(default_factory=lambda: {"linf": 8 / 255, "l2": 0.5})
    """Budget of a run that names none, by norm, in [0, 1] pixel units."""

    def __post_init__(self) -> None:
        for split_name, split in (("train", self.train), ("test", self.test)):
            if not len(split):
                raise DatasetError(f"dataset {self.name!r} has no {split_name} images")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= self.n_classes:
                raise DatasetError(
                    f"dataset {self.name!r}: {split_name} labels must be in [0, {self.n_classes - 1}], "
                    f"got {low} to {high}"
                )
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise DatasetError(
                f"dataset {self.name!r}: train images are {tuple(self.train.images.shape[1:])}, "
                f"test images {tuple(self.test.images.shape[1:])}; they must have one shape"
            )

    @property
    def image_spec(self) -> ImageSpec:
        """The shape of the images and the number of classes."""
        channels, height, width = self.train.images.shape[1:]
        return ImageSpec(channels=channels, height=height, width=width, n_classes=self.n_classes)

    def digest(self) -> str:
        """Return the SHA-256 of both splits and the number of classes."""
        return digest_json({"train": self.train.digest(), "test": self.test.digest(), "n_classes": self.n_classes})


DatasetLoader = Callable[..., Dataset]
"""Signature of a dataset plugin: ``loader(*, argument: str | None, root: Path | None) -> Dataset``.

``argument`` is what follows the colon in ``--dataset npz:FILE``; ``root`` is ``--data-root``.
"""


def select_balanced(labels: Tensor, *, n_examples: int, seed: int) -> Tensor:
    """Return the indices of ``n_examples`` images, the classes taken in turn, in seeded order.

    The order depends on the labels and the seed alone, so a smaller selection begins a larger one, and
    crafts on its first chunks are found again.

    Raises:
        ConfigError: if ``n_examples`` is not in [1, N].
    """
    if not 1 <= n_examples <= len(labels):
        raise ConfigError(
            FieldName("n_examples"), f" must be from 1 to {len(labels)}, the test images there are; got {n_examples}"
        )
    generator = torch.Generator().manual_seed(seed)
    ranked: list[tuple[int, int, int]] = []
    classes = sorted(set(labels.tolist()))
    turns = torch.randperm(len(classes), generator=generator).tolist()
    for position, turn in enumerate(turns):
        members = (labels == classes[turn]).nonzero().flatten()
        shuffled = members[torch.randperm(len(members), generator=generator)]
        ranked.extend((rank, position, index) for rank, index in enumerate(shuffled.tolist()))
    return torch.tensor([index for _, _, index in sorted(ranked)[:n_examples]], dtype=torch.int64)


def data_root(root: Path | None) -> Path | None:
    """Return ``--data-root``, else ``DKD_BENCH_DATA``, else ``None``."""
    from os import environ

    if root is not None:
        return root
    return Path(environ["DKD_BENCH_DATA"]) if environ.get("DKD_BENCH_DATA") else None
