"""Digits dataset, which comes with the installation: scikit-learn's 8x8 images."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn import datasets as sklearn_datasets

from dkd_bench.data._argument import refuse_argument
from dkd_bench.data._dataset import Dataset, Split, select_balanced

_WHITE = 16
_N_TEST = 500
_SPLIT_SEED = 0


def load_digits(*, argument: str | None, root: Path | None) -> Dataset:
    """Handwritten digits, 8x8, ten classes: 1297 train and 500 test images; needs no download.

    The split is fixed: 50 test images of each class. ``root`` is not looked at.

    Raises:
        DatasetError: if there is an argument.
    """
    refuse_argument("digits", argument)
    bunch = sklearn_datasets.load_digits()
    images = torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    for_test = torch.zeros(len(labels), dtype=torch.bool)
    for_test[select_balanced(labels, n_examples=_N_TEST, seed=_SPLIT_SEED)] = True
    return Dataset(
        name="digits",
        train=Split(images=images[~for_test], labels=labels[~for_test], white=_WHITE),
        test=Split(images=images[for_test], labels=labels[for_test], white=_WHITE),
        n_classes=10,
        default_n_examples=100,
        default_eps={"linf": 0.1, "l2": 0.5},
    )
