"""The authors' numbers, a few of each table against the text."""

from __future__ import annotations

import pytest

from dkd_paper import _paper


@pytest.mark.parametrize(
    ("dataset", "setting", "column", "count"),
    [
        ("MNIST", "DeepFool 1", "KD", 4),
        ("MNIST", "C&W 200", "RI*", 16),
        ("MNIST", "FGSM .1", "DKD", 844),
        ("CIFAR10", "DeepFool 1", "KD*", 6),
        ("CIFAR10", "JSMA 200", "DKD", 1410),
        ("CIFAR10", "FGSM .1", "RI", 2053),
    ],
)
def test_table2_counts_are_out_of_ten_thousand(dataset, setting, column, count):
    assert _paper.failed_majorities(dataset, setting, column) == count / 10_000


@pytest.mark.parametrize("dataset", ["MNIST", "CIFAR10"])
def test_in_table2_boosting_lowers_every_count_that_is_not_zero(dataset):
    for setting in _paper.BLACK_BOX_SETTINGS:
        for column in ("KD", "DKD", "RI"):
            regular = _paper.failed_majorities(dataset, setting, column)
            boosted = _paper.failed_majorities(dataset, setting, column + "*")
            assert boosted < regular or regular == 0


def test_gains_are_fractions():
    assert _paper.boosting_gain("MNIST", "C&W", "DKD") == pytest.approx(0.0033)
    assert _paper.boosting_gain("CIFAR10", "C&W", "KD") == pytest.approx(0.1397)


@pytest.mark.parametrize(
    ("dataset", "row", "column", "accuracy"),
    [
        ("MNIST", "none", "clean", 0.9661),
        ("MNIST", "none", "DeepFool", 0.0),
        ("MNIST", "DKD* standalone", "JSMA", 0.8849),
        ("CIFAR10", "DKD* aggregated", "C&W", 0.9538),
        ("CIFAR10", "Defense-GAN", "FGSM .08", 0.7101),
        ("MNIST", "KD* joint", "C&W", None),
    ],
)
def test_table4(dataset, row, column, accuracy):
    assert _paper.white_box_accuracy(dataset, row, column) == accuracy


@pytest.mark.parametrize(("channels", "dataset"), [(1, "MNIST"), (3, "CIFAR10")])
def test_gray_images_are_compared_with_mnist(channels, dataset):
    assert _paper.paper_dataset(channels) == dataset
