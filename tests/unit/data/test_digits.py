from pathlib import Path

import pytest
import torch
from sklearn import datasets as sklearn_datasets

from dkd_bench.data.digits import load_digits
from dkd_bench.errors import DatasetError


def test_shapes_and_defaults() -> None:
    digits = load_digits(argument=None, root=None)
    assert digits.name == "digits"
    assert digits.train.images.shape == (1297, 1, 8, 8)
    assert digits.test.images.shape == (500, 1, 8, 8)
    assert digits.train.white == digits.test.white == 16
    assert digits.n_classes == 10
    assert digits.default_n_examples == 100
    assert digits.default_eps == {"linf": 0.1, "l2": 0.5}


def test_test_images_are_balanced() -> None:
    digits = load_digits(argument=None, root=None)
    assert digits.test.labels.bincount().tolist() == [50] * 10


def test_split_partitions_the_original() -> None:
    digits = load_digits(argument=None, root=None)
    original = torch.from_numpy(sklearn_datasets.load_digits().images).flatten(1)
    both = torch.cat([digits.train.images, digits.test.images]).flatten(1).double()
    assert sorted(both.tolist()) == sorted(original.tolist())


def test_batch_reaches_one_and_no_more() -> None:
    digits = load_digits(argument=None, root=None)
    images, _ = digits.test.batch(torch.arange(500))
    assert images.min() == 0
    assert images.max() == 1


def test_split_never_changes() -> None:
    # Known answer: another split would make published results incomparable.
    digits = load_digits(argument=None, root=None)
    assert digits.test.labels[:10].tolist() == [1, 4, 7, 1, 3, 5, 0, 8, 9, 4]
    assert int(digits.test.images.sum()) == 156_001
    assert digits.digest() == load_digits(argument=None, root=None).digest()


def test_root_is_not_looked_at(tmp_path: Path) -> None:
    load_digits(argument=None, root=tmp_path / "missing")


def test_argument_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"'digits' takes no argument, got 'big'; write dataset digits"):
        load_digits(argument="big", root=None)
