from pathlib import Path

import pytest
import torch

from dkd_bench.data import Dataset, ImageSpec, Split, data_root, load_dataset, select_balanced
from dkd_bench.errors import ConfigError, DatasetError, PluginError


def make_split(labels: list[int], *, side: int = 2, fill: int = 7, white: int = 255) -> Split:
    images = torch.full((len(labels), 1, side, side), fill, dtype=torch.uint8)
    return Split(images=images, labels=torch.tensor(labels, dtype=torch.int64), white=white)


def make_dataset(train: Split, test: Split, *, n_classes: int = 2) -> Dataset:
    return Dataset(name="toy", train=train, test=test, n_classes=n_classes)


class TestSplit:
    def test_batch_scales_by_white(self) -> None:
        images, labels = make_split([3, 1, 2], fill=4, white=16).batch(torch.tensor([2, 0]))
        assert images.dtype == torch.float32
        assert images.shape == (2, 1, 2, 2)
        assert set(images.flatten().tolist()) == {0.25}
        assert labels.tolist() == [2, 3]

    def test_length(self) -> None:
        assert len(make_split([0, 1, 1])) == 3

    @pytest.mark.parametrize(
        "images", [torch.zeros(2, 1, 2, 2), torch.zeros(2, 2, 2, dtype=torch.uint8)], ids=["float", "3d"]
    )
    def test_images_must_be_uint8_nchw(self, images: torch.Tensor) -> None:
        with pytest.raises(DatasetError, match=r"images must be uint8 of shape \(N, C, H, W\), got torch\."):
            Split(images=images, labels=torch.zeros(2, dtype=torch.int64))

    @pytest.mark.parametrize(
        "labels",
        [torch.zeros(2, dtype=torch.int32), torch.zeros(3, dtype=torch.int64)],
        ids=["type", "count"],
    )
    def test_labels_must_be_int64_and_as_many(self, labels: torch.Tensor) -> None:
        with pytest.raises(DatasetError, match=r"labels must be int64 of shape \(2,\), got torch\.int"):
            Split(images=torch.zeros(2, 1, 2, 2, dtype=torch.uint8), labels=labels)

    def test_images_must_not_exceed_white(self) -> None:
        with pytest.raises(DatasetError, match="images must be at most 16, got 17"):
            make_split([0], fill=17, white=16)


class TestDataset:
    def test_image_spec(self) -> None:
        dataset = make_dataset(make_split([0, 1]), make_split([1]))
        assert dataset.image_spec == ImageSpec(channels=1, height=2, width=2, n_classes=2)

    @pytest.mark.parametrize("part", ["train", "test"])
    def test_empty_part(self, part: str) -> None:
        splits = {"train": make_split([0]), "test": make_split([0])} | {part: make_split([])}
        with pytest.raises(DatasetError, match=f"'toy' has no {part} images"):
            make_dataset(splits["train"], splits["test"])

    @pytest.mark.parametrize("labels", [[0, 2], [-1, 1]], ids=["high", "low"])
    def test_labels_outside_classes(self, labels: list[int]) -> None:
        with pytest.raises(DatasetError, match=rf"test labels must be in \[0, 1\], got {min(labels)} to"):
            make_dataset(make_split([0, 1]), make_split(labels))

    def test_parts_of_unlike_shape(self) -> None:
        with pytest.raises(DatasetError, match="they must have one shape"):
            make_dataset(make_split([0]), make_split([0], side=3))


class TestDigest:
    def test_same_content_same_digest(self) -> None:
        assert make_split([0, 1]).digest() == make_split([0, 1]).digest()

    @pytest.mark.parametrize(
        "other",
        [
            make_split([1, 0]),
            make_split([0, 1], fill=8),
            make_split([0, 1], white=254),
            make_split([0, 1], side=3),
        ],
        ids=["labels", "pixels", "white", "shape"],
    )
    def test_any_change_shows(self, other: Split) -> None:
        assert make_split([0, 1]).digest() != other.digest()

    def test_memory_layout_does_not_matter(self) -> None:
        images = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
        labels = torch.tensor([0, 1])
        channels_last = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        assert Split(images=images, labels=labels).digest() == Split(images=channels_last, labels=labels).digest()

    def test_dataset_digest_covers_both_parts_and_classes_but_no_presentation(self) -> None:
        one, two = make_split([0, 1]), make_split([1])
        digest = make_dataset(one, two).digest()
        assert digest != make_dataset(two, one).digest()
        assert digest != make_dataset(one, two, n_classes=3).digest()
        assert digest == Dataset(name="other", train=one, test=two, n_classes=2, default_n_examples=5).digest()


class TestSelectBalanced:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)

    def test_fixed_for_a_seed(self) -> None:
        first = select_balanced(self.labels, n_examples=40, seed=3)
        assert first.dtype == torch.int64
        assert torch.equal(first, select_balanced(self.labels, n_examples=40, seed=3))

    def test_known_answer(self) -> None:
        # Known answer: another order would orphan every craft on disk.
        assert select_balanced(torch.arange(12) % 3, n_examples=7, seed=0).tolist() == [5, 9, 4, 2, 6, 1, 11]

    def test_another_seed_selects_others(self) -> None:
        assert not torch.equal(
            select_balanced(self.labels, n_examples=40, seed=3),
            select_balanced(self.labels, n_examples=40, seed=4),
        )

    def test_global_generator_is_neither_read_nor_moved(self) -> None:
        state = torch.random.get_rng_state()
        select_balanced(self.labels, n_examples=40, seed=3)
        assert torch.equal(state, torch.random.get_rng_state())

    @pytest.mark.parametrize(("n_examples", "most"), [(3, 1), (4, 2), (60, 20)])
    def test_balanced_while_every_class_has_images_left(self, n_examples: int, most: int) -> None:
        counts = self.labels[select_balanced(self.labels, n_examples=n_examples, seed=0)].bincount(minlength=3)
        assert counts.sum() == n_examples
        assert counts.max() == most
        assert counts.max() - counts.min() <= 1

    def test_exhausted_class_leaves_its_turns_to_the_others(self) -> None:
        counts = self.labels[select_balanced(self.labels, n_examples=90, seed=0)].bincount()
        assert counts.tolist() == [40, 30, 20]

    def test_smaller_selection_begins_a_larger_one(self) -> None:
        whole = select_balanced(self.labels, n_examples=100, seed=7)
        for n_examples in (1, 2, 13, 64, 99):
            assert torch.equal(select_balanced(self.labels, n_examples=n_examples, seed=7), whole[:n_examples])

    def test_all_images_once_when_all_are_asked_for(self) -> None:
        assert select_balanced(self.labels, n_examples=100, seed=1).sort().values.tolist() == list(range(100))

    def test_class_numbers_need_not_be_consecutive(self) -> None:
        selected = select_balanced(torch.tensor([9, 4, 9, 4]), n_examples=2, seed=0)
        assert sorted(torch.tensor([9, 4, 9, 4])[selected].tolist()) == [4, 9]

    @pytest.mark.parametrize("n_examples", [0, -1, 101])
    def test_impossible_number(self, n_examples: int) -> None:
        with pytest.raises(ConfigError, match=f"n_examples must be from 1 to 100, .*; got {n_examples}"):
            select_balanced(self.labels, n_examples=n_examples, seed=0)


class TestDataRoot:
    def test_argument_before_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DKD_BENCH_DATA", "from-environment")
        assert data_root(Path("given")) == Path("given")
        assert data_root(None) == Path("from-environment")

    @pytest.mark.parametrize("value", [None, ""])
    def test_nothing_said(self, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
        monkeypatch.delenv("DKD_BENCH_DATA", raising=False)
        if value is not None:
            monkeypatch.setenv("DKD_BENCH_DATA", value)
        assert data_root(None) is None


class TestLoadDataset:
    def test_loader_in_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.py"
        file.write_text(
            "from dkd_bench.data.digits import load_digits\n"
            "def load(*, argument, root):\n"
            "    assert argument is None\n"
            "    return load_digits(argument=None, root=root)\n"
        )
        assert load_dataset(f"{file}:load").name == "digits"

    def test_loader_that_returns_something_else(self, tmp_path: Path) -> None:
        file = tmp_path / "wrong.py"
        file.write_text("def load(*, argument, root):\n    return [1, 2]\n")
        with pytest.raises(PluginError, match=r"wrong\.py:load' must return a Dataset, got list"):
            load_dataset(f"{file}:load")
