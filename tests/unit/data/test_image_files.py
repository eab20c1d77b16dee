import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dkd_bench.data import Dataset, ImageSpec
from dkd_bench.data.files import load_imagefolder, load_npz
from dkd_bench.errors import DatasetError

Array = np.ndarray[Any, np.dtype[Any]]
GENERATOR_SEED = 0


def pixels(*shape: int) -> Array:
    return np.random.default_rng(GENERATOR_SEED).integers(0, 256, shape, dtype=np.uint8)


def good_arrays(**changed: Any) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "x_train": pixels(6, 5, 4, 3),
        "y_train": np.arange(6, dtype=np.uint8) % 3,
        "x_test": pixels(3, 5, 4, 3),
        "y_test": np.arange(3),
    }
    return arrays | changed


def load_arrays(folder: Path, **changed: Any) -> Dataset:
    np.savez(folder / "mine.npz", **good_arrays(**changed))
    return load_npz(argument=str(folder / "mine.npz"), root=None)


class TestNpz:
    def test_channels_last(self, tmp_path: Path) -> None:
        dataset = load_arrays(tmp_path)
        assert dataset.name == "npz:mine"
        assert dataset.image_spec == ImageSpec(channels=3, height=5, width=4, n_classes=3)
        assert torch.equal(dataset.train.images, torch.from_numpy(pixels(6, 5, 4, 3)).permute(0, 3, 1, 2))
        assert dataset.train.images.is_contiguous()
        assert dataset.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert dataset.default_n_examples == 3

    def test_channels_first(self, tmp_path: Path) -> None:
        dataset = load_arrays(tmp_path, x_train=pixels(6, 3, 5, 4), x_test=pixels(3, 3, 5, 4))
        assert torch.equal(dataset.test.images, torch.from_numpy(pixels(3, 3, 5, 4)))

    def test_grey(self, tmp_path: Path) -> None:
        dataset = load_arrays(tmp_path, x_train=pixels(6, 5, 4), x_test=pixels(3, 5, 4, 1))
        assert torch.equal(dataset.train.images, torch.from_numpy(pixels(6, 5, 4))[:, None])
        assert dataset.test.images.shape == (3, 1, 5, 4)

    def test_fortran_order_and_byte_order(self, tmp_path: Path) -> None:
        plain = load_arrays(tmp_path)
        odd = load_arrays(tmp_path, x_train=np.asfortranarray(pixels(6, 5, 4, 3)), y_test=np.arange(3, dtype=">i2"))
        assert odd.digest() == plain.digest()

    def test_other_arrays_are_ignored_even_pickled_ones(self, tmp_path: Path) -> None:
        plain = load_arrays(tmp_path)
        extra = load_arrays(tmp_path, idx_train=np.arange(6), notes=np.array([{}, "x"], dtype=object))
        assert extra.digest() == plain.digest()

    @pytest.mark.parametrize("argument", [None, ""])
    def test_no_argument(self, argument: str | None) -> None:
        with pytest.raises(DatasetError, match=r"'npz' needs a file .*, got none; write dataset npz:PATH"):
            load_npz(argument=argument, root=None)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(
            DatasetError, match=r"no file '.*gone\.npz'; expected an \.npz file with the arrays x_train"
        ):
            load_npz(argument=str(tmp_path / "gone.npz"), root=None)

    def test_not_an_npz(self, tmp_path: Path) -> None:
        np.save(tmp_path / "single.npy", pixels(3, 5, 4))
        with pytest.raises(DatasetError, match=r"single\.npy must be an \.npz file, got something else; write it"):
            load_npz(argument=str(tmp_path / "single.npy"), root=None)

    def test_archive_behind_something_else(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "mine.npz", **good_arrays())
        content = (tmp_path / "mine.npz").read_bytes()
        (tmp_path / "mine.npz").write_bytes(b"#!/bin/sh\n" + content)
        with pytest.raises(DatasetError, match=r"must be a whole \.npz file, got ValueError"):
            load_npz(argument=str(tmp_path / "mine.npz"), root=None)

    def test_missing_arrays(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "part.npz", x_train=pixels(2, 4, 4), y_train=np.arange(2))
        with pytest.raises(DatasetError, match=r"got no x_test, y_test but x_train, y_train; add what is missing"):
            load_npz(argument=str(tmp_path / "part.npz"), root=None)

    @pytest.mark.parametrize("name", ["x_test", "y_train"])
    def test_pickled_array_is_never_loaded(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(
            DatasetError, match=rf"array {name} of .* loads without pickle, got ValueError: .*not of dtyp"
        ):
            load_arrays(tmp_path, **{name: np.array([0, None, "x"], dtype=object)})

    def test_bare_pickle(self, tmp_path: Path) -> None:
        (tmp_path / "mine.npz").write_bytes(pickle.dumps(good_arrays()))
        with pytest.raises(DatasetError, match=r"must be an \.npz file, got something else"):
            load_npz(argument=str(tmp_path / "mine.npz"), root=None)

    def test_member_that_is_no_array(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
            for name in good_arrays():
                archive.writestr(f"{name}.npy", b"words")
        with pytest.raises(DatasetError, match=r"x_train of .* must be an array, got bytes; write it with"):
            load_npz(argument=str(tmp_path / "mine.npz"), root=None)

    def test_damaged_member(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "mine.npz", **good_arrays())
        content = bytearray((tmp_path / "mine.npz").read_bytes())
        content[200] ^= 0xFF
        (tmp_path / "mine.npz").write_bytes(content)
        with pytest.raises(DatasetError, match=r"array x_train of .* got BadZipFile: Bad CRC-32"):
            load_npz(argument=str(tmp_path / "mine.npz"), root=None)

    @pytest.mark.parametrize(
        ("images", "described"),
        [
            (pixels(6, 5, 4) / 255, r"float64 from 0\S* to \S+"),
            (pixels(6, 5, 4).astype(np.float32), r"float32 from \d+ to \d+"),
            (np.full((6, 5, 4), np.nan), "float64 from nan to nan"),
            (np.full((6, 5, 4), 300), "int64 from 300 to 300"),
            (pixels(6, 5, 4).astype(np.int16) - 9, r"int16 from -9 to 2\d\d"),
            (np.zeros((6, 5, 4), dtype=bool), "bool"),
            (np.zeros((0, 5, 4)), "float64"),
        ],
        ids=["unit-floats", "byte-floats", "nan", "too-high", "negative", "bool", "empty"],
    )
    def test_images_must_be_uint8(self, tmp_path: Path, images: Array, described: str) -> None:
        with pytest.raises(
            DatasetError,
            match=rf"^x_train of .* must be uint8 with values from 0 to 255, got {described}; scale to",
        ):
            load_arrays(tmp_path, x_train=images)

    @pytest.mark.parametrize("shape", [(6,), (6, 20), (1, 6, 5, 4, 3), (0, 5, 4), (6, 0, 4, 3)])
    def test_image_dimensions(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        with pytest.raises(DatasetError, match=r"^x_train of .* must have the shape \(N, H, W\), .*; reshape it"):
            load_arrays(tmp_path, x_train=pixels(*shape))

    @pytest.mark.parametrize(
        ("shape", "why"),
        [((6, 3, 8, 3), "either place could be C"), ((6, 8, 8, 4), "neither place can be C")],
    )
    def test_place_of_channels(self, tmp_path: Path, shape: tuple[int, ...], why: str) -> None:
        with pytest.raises(DatasetError, match=rf"^x_test of .* 1 or 3 channels, got \(6, .*, where {why}; save it"):
            load_arrays(tmp_path, x_test=pixels(*shape))

    @pytest.mark.parametrize(
        "labels",
        [
            np.arange(5),
            np.zeros((6, 1), dtype=int),
            np.eye(6, dtype=int),
            np.zeros(6),
            np.array(list("abcabc")),
        ],
        ids=["count", "column", "one-hot", "float", "names"],
    )
    def test_labels_must_be_integers_one_for_each(self, tmp_path: Path, labels: Array) -> None:
        with pytest.raises(
            DatasetError, match=r"^y_train of .* must be integers of shape \(6,\), one for .*; save class"
        ):
            load_arrays(tmp_path, y_train=labels)

    def test_negative_labels(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"^y_test of .* must be 0 or more, got -1; number the classes from 0"):
            load_arrays(tmp_path, y_test=np.array([0, -1, 1]))

    def test_labels_that_are_no_class_numbers(self, tmp_path: Path) -> None:
        with pytest.raises(
            DatasetError, match=r"must be 0 to K - 1 for K classes, got 255 with only 6 training images"
        ):
            load_arrays(tmp_path, y_test=np.array([0, 255, 1]))

    def test_train_and_test_of_unlike_size(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"'npz:mine': train images are \(3, 5, 4\), test images \(3, 5, 5\)"):
            load_arrays(tmp_path, x_test=pixels(3, 5, 5, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two training and one test image of each of two classes, 4 wide and 5 high, RGB."""
    for row, name in enumerate(
        [
            "train/dog/1.png",
            "train/cat/2.png",
            "train/cat/1.PNG",
            "train/dog/2.png",
            "test/cat/1.png",
            "test/dog/1.png",
        ]
    ):
        save_image(tmp_path / "pets" / name, pixels(6, 5, 4, 3)[row])
    return tmp_path / "pets"


def save_image(file: Path, array: Array, mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    image.convert(mode).save(file)


class TestImageFolder:
    def test_pixels_and_labels(self, folder: Path) -> None:
        dataset = load_imagefolder(argument=str(folder), root=None)
        assert dataset.name == "imagefolder:pets"
        assert dataset.image_spec == ImageSpec(channels=3, height=5, width=4, n_classes=2)
        expected = torch.from_numpy(pixels(6, 5, 4, 3)).permute(0, 3, 1, 2)
        assert torch.equal(dataset.train.images, expected[[2, 1, 0, 3]])
        assert torch.equal(dataset.test.images, expected[[4, 5]])
        assert dataset.train.labels.tolist() == [0, 0, 1, 1]
        assert dataset.test.labels.tolist() == [0, 1]
        assert dataset.default_n_examples == 2

    def test_grey_jpeg(self, tmp_path: Path) -> None:
        for name in ("train/a/1.jpg", "train/b/1.jpeg", "test/a/1.JPG", "test/b/1.jpg"):
            save_image(tmp_path / name, np.full((8, 8), 200, dtype=np.uint8), "L")
        dataset = load_imagefolder(argument=str(tmp_path), root=None)
        assert dataset.image_spec == ImageSpec(channels=1, height=8, width=8, n_classes=2)
        assert set(dataset.test.images.flatten().tolist()) == {200}

    def test_named_after_the_folder_even_when_it_is_the_present_one(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder)
        assert load_imagefolder(argument=".", root=None).name == "imagefolder:pets"

    def test_hidden_files_are_ignored(self, folder: Path) -> None:
        before = load_imagefolder(argument=str(folder), root=None).digest()
        (folder / "train" / "cat" / ".DS_Store").write_bytes(b"x")
        (folder / "train" / ".cache").mkdir()
        assert load_imagefolder(argument=str(folder), root=None).digest() == before

    def test_no_argument(self) -> None:
        with pytest.raises(
            DatasetError, match=r"'imagefolder' needs a folder .*, got none; write dataset imagefolder:"
        ):
            load_imagefolder(argument=None, root=None)

    @pytest.mark.parametrize("part", ["", "pets"])
    def test_no_folder(self, tmp_path: Path, part: str) -> None:
        with pytest.raises(
            DatasetError, match=r"no folder '.*train'; expected train/CLASS/\* and test/CLASS/\* in .*; c"
        ):
            load_imagefolder(argument=str(tmp_path / part), root=None)

    def test_no_classes(self, tmp_path: Path) -> None:
        (tmp_path / "train").mkdir()
        with pytest.raises(DatasetError, match=r"train must have a folder for each class, got none; put its images"):
            load_imagefolder(argument=str(tmp_path), root=None)

    def test_classes_that_differ(self, folder: Path) -> None:
        save_image(folder / "test" / "fox" / "1.png", pixels(5, 4, 3))
        with pytest.raises(DatasetError, match=r"same classes in train and test, got fox in only one of them; add"):
            load_imagefolder(argument=str(folder), root=None)

    def test_class_without_images(self, folder: Path) -> None:
        (folder / "test" / "dog" / "1.png").unlink()
        with pytest.raises(DatasetError, match=r"class folder .*dog must hold images, got none; add some or remove"):
            load_imagefolder(argument=str(folder), root=None)

    def test_file_of_another_kind(self, folder: Path) -> None:
        (folder / "train" / "dog" / "notes.txt").write_text("x")
        with pytest.raises(DatasetError, match=r"must hold only \.png, \.jpg, \.jpeg files, got notes\.txt; move it"):
            load_imagefolder(argument=str(folder), root=None)

    def test_unequal_sizes(self, folder: Path) -> None:
        save_image(folder / "test" / "dog" / "2.png", pixels(5, 6, 3))
        with pytest.raises(
            DatasetError,
            match=r"one size, 5x4 with 3 channels like the first; got 5x6 with 3 channels in .*2\.png; res",
        ):
            load_imagefolder(argument=str(folder), root=None)

    def test_grey_among_colour(self, folder: Path) -> None:
        save_image(folder / "train" / "cat" / "9.png", pixels(5, 4, 3), "L")
        with pytest.raises(DatasetError, match=r"got 5x4 with 1 channel in .*9\.png; resize or convert it"):
            load_imagefolder(argument=str(folder), root=None)

    @pytest.mark.parametrize("mode", ["RGBA", "P", "1", "LA"])
    def test_other_modes(self, folder: Path, mode: str) -> None:
        save_image(folder / "train" / "cat" / "9.png", pixels(5, 4, 3), mode)
        with pytest.raises(DatasetError, match=rf"9\.png must be 8-bit grey \(L\) or RGB, got mode {mode}; convert it"):
            load_imagefolder(argument=str(folder), root=None)

    def test_unreadable_image(self, folder: Path) -> None:
        (folder / "train" / "dog" / "1.png").write_text("not an image")
        with pytest.raises(DatasetError, match=r"1\.png must be a readable PNG or JPEG, got UnidentifiedImageError"):
            load_imagefolder(argument=str(folder), root=None)

    @pytest.mark.parametrize("suffix", ["png", "jpg"])
    def test_truncated_image(self, folder: Path, suffix: str) -> None:
        file = folder / "test" / "dog" / f"9.{suffix}"
        save_image(file, pixels(64, 64, 3))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(
            DatasetError, match=rf"9\.{suffix} must be a readable PNG or JPEG, got OSError: .*; replace"
        ):
            load_imagefolder(argument=str(folder), root=None)
