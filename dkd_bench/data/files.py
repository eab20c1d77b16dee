"""Datasets of a user's own images: one ``.npz`` file, or a folder for each class."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from dkd_bench.data._argument import path_argument
from dkd_bench.data._dataset import Dataset, Split
from dkd_bench.errors import DatasetError

_N_EXAMPLES = 1000
_CHANNELS = (1, 3)
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_N_CHANNELS_OF_MODE = {"L": 1, "RGB": 3}

_Array = npt.NDArray[Any]


def load_npz(*, argument: str | None, root: Path | None) -> Dataset:
    """One .npz file with the arrays x_train, y_train, x_test, y_test: npz:FILE.

    Images are uint8, shape ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)`` with one or three channels;
    labels are integers from 0, shape ``(N,)``. Other arrays in the file are ignored, and so is ``root``.

    Raises:
        DatasetError: if the file is missing or not of this form.
    """
    path = path_argument("npz", argument, what=f"a file with the arrays {', '.join(_ARRAYS)}")
    arrays = _read_npz(path)
    splits = {}
    for part in ("train", "test"):
        images = _as_images(arrays.pop(f"x_{part}"), where=f"x_{part} of {path}")
        labels = _as_labels(arrays.pop(f"y_{part}"), n_images=len(images), where=f"y_{part} of {path}")
        splits[part] = Split(images=images, labels=labels)
    n_classes = 1 + max(int(split.labels.max()) for split in splits.values())
    if n_classes > len(splits["train"]):
        raise DatasetError(
            f"labels of {path} must be 0 to K - 1 for K classes, got {n_classes - 1} with only "
            f"{len(splits['train'])} training images; number the classes from 0 without gaps"
        )
    return _dataset(f"npz:{path.stem}", splits["train"], splits["test"], n_classes)


def load_imagefolder(*, argument: str | None, root: Path | None) -> Dataset:
    """Image folder with train/CLASS/* and test/CLASS/*, PNG or JPEG, all of one size: imagefolder:DIR.

    Classes are numbered in the order of their sorted names. Hidden files and ``root`` are ignored.

    Raises:
        DatasetError: if the folder is missing or not of this form, or an image cannot be read.
    """
    folder = path_argument("imagefolder", argument, what="a folder with train/CLASS/* and test/CLASS/*")
    classes = {part: _class_names(folder / part) for part in ("train", "test")}
    if classes["train"] != classes["test"]:
        odd = sorted(set(classes["train"]) ^ set(classes["test"]))
        raise DatasetError(
            f"{folder} must have the same classes in train and test, got {', '.join(odd)} in only one "
            "of them; add the missing folders or remove these"
        )
    first = _read_image(_image_files(folder / "train" / classes["train"][0])[0])
    train, test = (_read_split(folder / part, classes[part], shape=first.shape) for part in ("train", "test"))
    return _dataset(f"imagefolder:{folder.resolve().name}", train, test, len(classes["train"]))


def _dataset(name: str, train: Split, test: Split, n_classes: int) -> Dataset:
    return Dataset(
        name=name, train=train, test=test, n_classes=n_classes, default_n_examples=min(_N_EXAMPLES, len(test))
    )


def _read_npz(path: Path) -> dict[str, _Array]:
    if not path.is_file():
        raise DatasetError(
            f"no file {str(path)!r}; expected an .npz file with the arrays {', '.join(_ARRAYS)}; correct the path"
        )
    if not zipfile.is_zipfile(path):
        raise DatasetError(f"{path} must be an .npz file, got something else; write it with numpy.savez_compressed")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in _ARRAYS if name not in archive.files]
            if missing:
                raise DatasetError(
                    f"{path} must hold the arrays {', '.join(_ARRAYS)}, got no {', '.join(missing)} "
                    f"but {', '.join(archive.files) or 'nothing'}; add what is missing"
                )
            return {name: _read_member(archive, name, path) for name in _ARRAYS}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{path} must be a whole .npz file, got {type(error).__name__}: {error}; copy or write it again"
        ) from error


def _read_member(archive: Any, name: str, path: Path) -> _Array:
    try:
        array = archive[name]
    except (ValueError, EOFError, OSError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"array {name} of {path} must be a plain array that loads without pickle, got "
            f"{type(error).__name__}: {error}; save it with numpy.savez_compressed, not of dtype object"
        ) from error
    if not isinstance(array, np.ndarray):
        raise DatasetError(
            f"{name} of {path} must be an array, got {type(array).__name__}; write it with numpy.savez_compressed"
        )
    return array


def _as_images(array: _Array, *, where: str) -> Tensor:
    if array.dtype != np.uint8:
        raise DatasetError(
            f"{where} must be uint8 with values from 0 to 255, got {_describe(array)}; "
            "scale to 0..255, round, and save as uint8"
        )
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise DatasetError(
            f"{where} must have the shape (N, H, W), (N, H, W, C) or (N, C, H, W) with no empty side, "
            f"got {array.shape}; reshape it"
        )
    if array.ndim == 3:
        return torch.from_numpy(np.ascontiguousarray(array[:, None]))
    first, last = array.shape[1] in _CHANNELS, array.shape[3] in _CHANNELS
    if first == last:
        which = "either place could be C" if first else "neither place can be C"
        raise DatasetError(
            f"{where} must have the shape (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, "
            f"got {array.shape}, where {which}; save it with 1 or 3 channels in one of the two places"
        )
    return torch.from_numpy(np.ascontiguousarray(array if first else array.transpose(0, 3, 1, 2)))


def _describe(array: _Array) -> str:
    if array.dtype.kind not in "iuf" or not array.size:
        return str(array.dtype)
    with np.errstate(invalid="ignore"):
        return f"{array.dtype} from {array.min():g} to {array.max():g}"


def _as_labels(array: _Array, *, n_images: int, where: str) -> Tensor:
    if not np.issubdtype(array.dtype, np.integer) or array.shape != (n_images,):
        raise DatasetError(
            f"{where} must be integers of shape ({n_images},), one for each image, "
            f"got {array.dtype} {array.shape}; "
            "save class numbers, not one-hot rows or names"
        )
    if array.min() < 0:
        raise DatasetError(f"{where} must be 0 or more, got {array.min()}; number the classes from 0")
    return torch.from_numpy(array.astype(np.int64))


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DatasetError(
            f"no folder {str(folder)!r}; expected train/CLASS/* and test/CLASS/* in {folder.parent}; "
            "correct the path or add it"
        )
    folders = (entry for entry in folder.iterdir() if entry.is_dir())
    names = sorted(entry.name for entry in folders if not entry.name.startswith("."))
    if not names:
        raise DatasetError(f"{folder} must have a folder for each class, got none; put its images into CLASS/*")
    return names


def _image_files(folder: Path) -> list[Path]:
    files = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if not files:
        raise DatasetError(f"class folder {folder} must hold images, got none; add some or remove the class")
    for file in files:
        if file.suffix.lower() not in _SUFFIXES or not file.is_file():
            raise DatasetError(f"{folder} must hold only {', '.join(_SUFFIXES)} files, got {file.name}; move it away")
    return files


def _read_split(folder: Path, classes: list[str], *, shape: tuple[int, ...]) -> Split:
    files = [(file, label) for label, name in enumerate(classes) for file in _image_files(folder / name)]
    images = np.empty((len(files), *shape), dtype=np.uint8)
    for row, (file, _) in enumerate(files):
        image = _read_image(file)
        if image.shape != shape:
            raise DatasetError(
                f"all images must have one size, {_size(shape)} like the first; "
                f"got {_size(image.shape)} in {file}; "
                "resize or convert it"
            )
        images[row] = image
    return Split(images=torch.from_numpy(images), labels=torch.tensor([label for _, label in files]))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[2]} with {shape[0]} channel{'s' if shape[0] > 1 else ''}"


def _read_image(file: Path) -> npt.NDArray[np.uint8]:
    """Return the pixels of one image, uint8, shape ``(C, H, W)``."""
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            mode, pixels = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(
            f"{file} must be a readable PNG or JPEG, got {type(error).__name__}: {error}; replace or remove it"
        ) from error
    if mode not in _N_CHANNELS_OF_MODE:
        raise DatasetError(f"{file} must be 8-bit grey (L) or RGB, got mode {mode}; convert it to RGB")
    return pixels[None] if _N_CHANNELS_OF_MODE[mode] == 1 else pixels.transpose(2, 0, 1)
