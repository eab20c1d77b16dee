"""MNIST, Fashion-MNIST and CIFAR-10, read with torchvision, downloaded only if they are found nowhere.

A data root is only ever read. What has to be unpacked or downloaded goes to the cache folder, through a
temporary folder beside it, so that an interruption leaves nothing half-written behind.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import calculate_md5

from dkd_bench.budget import Norm
from dkd_bench.data._argument import refuse_argument
from dkd_bench.data._dataset import Dataset, Split
from dkd_bench.errors import DatasetError, FieldName
from dkd_bench.store.cache import cache_root

_N_CLASSES = 10
_N_EXAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Files of one dataset, by their paths under a root."""

    name: str
    archives: Mapping[str, str]
    """MD5 digests by path, as torchvision lists them."""
    unpacked: tuple[str, ...]
    fetch: Callable[[Path], object]
    """Function that unpacks the archives under a root, downloading those that are not there."""


def load_mnist(*, argument: str | None, root: Path | None) -> Dataset:
    """MNIST: handwritten digits, 28x28 grey, ten classes; 60,000 train and 10,000 test images.

    Raises:
        DatasetError: if its files are missing and cannot be downloaded, or are corrupt.
    """
    refuse_argument("mnist", argument)
    return _load_idx("mnist", MNIST, root, default_eps={"linf": 0.3, "l2": 2.0})


def load_fashion_mnist(*, argument: str | None, root: Path | None) -> Dataset:
    """Fashion-MNIST: clothes, 28x28 grey, ten classes; 60,000 train and 10,000 test images.

    Raises:
        DatasetError: if its files are missing and cannot be downloaded, or are corrupt.
    """
    refuse_argument("fashion-mnist", argument)
    return _load_idx("fashion-mnist", FashionMNIST, root, default_eps={"linf": 0.1, "l2": 1.5})


def load_cifar10(*, argument: str | None, root: Path | None) -> Dataset:
    """CIFAR-10: photographs, 32x32 colour, ten classes; 50,000 train and 10,000 test images.

    Raises:
        DatasetError: if its files are missing and cannot be downloaded, or are corrupt.
    """
    refuse_argument("cifar10", argument)
    md5s = {f"{CIFAR10.base_folder}/{name}": md5 for name, md5 in (*CIFAR10.train_list, *CIFAR10.test_list)}
    md5s[f"{CIFAR10.base_folder}/{CIFAR10.meta['filename']}"] = CIFAR10.meta["md5"]
    source = _Source(
        name="cifar10",
        archives={CIFAR10.filename: CIFAR10.tgz_md5},
        unpacked=tuple(md5s),
        fetch=lambda folder: _open_cifar10(folder, train=False, download=True),
    )
    folder = _locate(source, root)
    # The batches are pickles: nothing is read before its digest is known to be right.
    for relative, md5 in md5s.items():
        _check_md5(folder / relative, md5)
    test = _read_cifar10(folder, train=False)
    return Dataset(
        name=source.name,
        train=_read_cifar10(folder, train=True),
        test=test,
        n_classes=_N_CLASSES,
        default_n_examples=min(_N_EXAMPLES, len(test)),
        default_eps={"linf": 8 / 255, "l2": 0.5},
    )


def _read_cifar10(folder: Path, *, train: bool) -> Split:
    # torchvision transposes its (N, C, H, W) array to channels last; transposing back copies nothing.
    part = _open_cifar10(folder, train=train, download=False)
    return Split(images=torch.from_numpy(part.data.transpose(0, 3, 1, 2)), labels=torch.tensor(part.targets))


def _open_cifar10(folder: Path, *, train: bool, download: bool) -> CIFAR10:
    with warnings.catch_warnings():
        # The published batches are pickles of an old NumPy, which NumPy 2.4.0 to 2.4.4 warn of but read well.
        warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
        return CIFAR10(folder, train=train, download=download)


def _load_idx(name: str, family: type[MNIST], root: Path | None, *, default_eps: dict[Norm, float]) -> Dataset:
    archives = {f"{family.__name__}/raw/{file_name}": md5 for file_name, md5 in family.resources}
    source = _Source(
        name=name,
        archives=archives,
        unpacked=tuple(path.removesuffix(".gz") for path in archives),
        fetch=lambda folder: family(folder, train=False, download=True),
    )
    raw = _locate(source, root) / family.__name__ / "raw"
    test = _read_idx_split(raw, "t10k")
    return Dataset(
        name=name,
        train=_read_idx_split(raw, "train"),
        test=test,
        n_classes=_N_CLASSES,
        default_n_examples=min(_N_EXAMPLES, len(test)),
        default_eps=default_eps,
    )


def _read_idx_split(raw: Path, prefix: str) -> Split:
    images = _read_idx(read_image_file, raw / f"{prefix}-images-idx3-ubyte")
    labels = _read_idx(read_label_file, raw / f"{prefix}-labels-idx1-ubyte")
    if len(images) != len(labels):
        raise DatasetError(
            f"the {prefix} files in {raw} must hold as many images as labels, got {len(images)} images and "
            f"{len(labels)} labels; delete them and run again to download them"
        )
    return Split(images=images.unsqueeze(1), labels=labels)


def _read_idx(reader: Callable[[str], Tensor], path: Path) -> Tensor:
    try:
        return reader(str(path))
    except (OSError, AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path} must be a whole IDX file of uint8, got {type(error).__name__}: {_one_line(error)}; "
            "delete it and run again to download it"
        ) from error


def _locate(source: _Source, root: Path | None) -> Path:
    """Return the folder under which all of the unpacked files lie, unpacking or downloading if need be."""
    if root is not None and not root.is_dir():
        raise DatasetError(
            FieldName("data_root"),
            f" (or DKD_BENCH_DATA) must be a folder, got {root}; correct it, or leave it out to download",
        )
    archives: dict[str, Path] = {}
    for folder in (root, _store()):
        if folder is None:
            continue
        if all((folder / relative).is_file() for relative in source.unpacked):
            return folder
        for relative, md5 in source.archives.items():
            path = folder / relative
            if relative not in archives and path.is_file():
                _check_md5(path, md5)
                archives[relative] = path
    return _unpack(source, archives, root)


def _unpack(source: _Source, archives: Mapping[str, Path], root: Path | None) -> Path:
    """Unpack copies of ``archives``, download the others, and return the folder in the cache."""
    store = _store()
    try:
        store.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=store, prefix=".unpacking-") as staging:
            for relative, path in archives.items():
                copy = Path(staging, relative)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            with redirect_stdout(sys.stderr):  # older torchvision prints what it does
                source.fetch(Path(staging))
            for relative in source.unpacked:
                (store / relative).parent.mkdir(parents=True, exist_ok=True)
                Path(staging, relative).replace(store / relative)
    except (OSError, RuntimeError, HTTPException) as error:
        missing = [relative for relative in source.archives if relative not in archives]
        if missing:
            raise DatasetError(
                f"dataset {source.name!r}: expected {', '.join(missing)}, or these unpacked, under "
                f"{root or store}, found none of them and could not download them into {store} "
                f"({_one_line(error)}); connect and run again, or name the folder that has them with ",
                FieldName("data_root"),
                " or DKD_BENCH_DATA",
            ) from error
        raise DatasetError(
            f"dataset {source.name!r} could not be unpacked into {store}: {_one_line(error)}; "
            "set DKD_BENCH_CACHE to a folder that can be written, with enough space"
        ) from error
    return store


def _check_md5(path: Path, expected: str) -> None:
    try:
        found = calculate_md5(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}; change its permissions or delete it") from error
    if found != expected:
        raise DatasetError(
            f"{path} is corrupt: expected MD5 {expected}, got {found}; delete it and run again to download it"
        )


def _store() -> Path:
    return cache_root() / "datasets"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
