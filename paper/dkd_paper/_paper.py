"""Numbers of the paper (arXiv 2006.15127, Tables 2 and 4): the authors', copied, not measured here.

Table 3 is scrambled in the text at hand, so none of its numbers stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

PaperDataset = Literal["MNIST", "CIFAR10"]

BLACK_BOX_SETTINGS = (
    "DeepFool 1",
    "DeepFool 200",
    "C&W 1",
    "C&W 200",
    "JSMA 1",
    "JSMA 200",
    "FGSM .04",
    "FGSM .08",
    "FGSM .1",
)
"""Rows of Table 2: attack and iterations, or attack and eps."""

_TABLE_2_COLUMNS = ("KD", "KD*", "DKD", "DKD*", "RI", "RI*")
_TABLE_2: Mapping[PaperDataset, tuple[tuple[int, ...], ...]] = {
    "MNIST": (
        (4, 0, 15, 0, 16, 0),
        (7, 1, 93, 0, 61, 0),
        (188, 3, 172, 0, 225, 6),
        (560, 5, 794, 2, 921, 16),
        (0, 0, 15, 0, 16, 6),
        (4, 1, 52, 0, 42, 8),
        (190, 5, 342, 16, 235, 20),
        (239, 6, 589, 27, 349, 34),
        (349, 3, 844, 36, 504, 46),
    ),
    "CIFAR10": (
        (576, 6, 1234, 51, 891, 33),
        (628, 5, 1319, 52, 959, 32),
        (584, 1, 1201, 2, 859, 13),
        (630, 2, 1322, 2, 942, 12),
        (584, 8, 1201, 51, 859, 31),
        (654, 8, 1410, 56, 999, 35),
        (821, 3, 1801, 106, 1560, 66),
        (924, 9, 1842, 71, 1872, 77),
        (950, 12, 1829, 79, 2053, 105),
    ),
}
PAPER_TEST_IMAGES = 10_000

FAMILIES = ("DeepFool", "C&W", "JSMA", "FGSM")
"""Attacks of Table 2 whatever their iterations or eps."""

_GAIN_COLUMNS = ("KD", "DKD", "RI")
_GAINS: Mapping[PaperDataset, tuple[tuple[float, ...], ...]] = {
    "MNIST": ((0.02, 0.12, 0.35), (0.01, 0.33, 0.22), (0.01, 0.26, 0.15), (0.03, 0.21, 0.12)),
    "CIFAR10": ((1.36, 2.88, 7.16), (13.97, 1.47, 2.79), (1.39, 2.94, 4.18), (1.33, 3.74, 2.94)),
}
"""Accuracy gained by boosting, in percent, family by family."""

WHITE_BOX_SETTINGS = ("FGSM .04", "FGSM .08", "JSMA", "C&W", "DeepFool")
"""Columns of Table 4 after the clean one."""

_TABLE_4: Mapping[PaperDataset, Mapping[str, tuple[float, ...]]] = {
    "MNIST": {
        "none": (0.9661, 0.9171, 0.8249, 0.2421, 0.4409, 0.0),
        "DKD* standalone": (0.9884, 0.9835, 0.9681, 0.8849, 0.9594, 0.8991),
        "DKD* aggregated": (0.9884, 0.9756, 0.9329, 0.9725, 0.9808, 0.9605),
        "MagNet": (0.9031, 0.6519, 0.6141, 0.8014, 0.4821, 0.6518),
        "PixelDefend": (0.8266, 0.7335, 0.6711, 0.9191, 0.7560, 0.7394),
        "Defense-GAN": (0.9640, 0.9450, 0.8221, 0.9465, 0.8012, 0.7921),
    },
    "CIFAR10": {
        "none": (0.9304, 0.2033, 0.1846, 0.2525, 0.2548, 0.1441),
        "DKD* standalone": (0.9604, 0.7377, 0.7188, 0.7788, 0.8878, 0.7934),
        "DKD* aggregated": (0.9604, 0.8923, 0.8623, 0.9221, 0.9538, 0.8751),
        "MagNet": (0.9421, 0.7881, 0.7041, 0.8134, 0.7743, 0.7679),
        "PixelDefend": (0.9491, 0.7094, 0.6911, 0.8411, 0.8101, 0.7816),
        "Defense-GAN": (0.9219, 0.7551, 0.7101, 0.8712, 0.8020, 0.7651),
    },
}


def paper_dataset(channels: int) -> PaperDataset:
    """Return the dataset of the paper with which images of so many channels are compared."""
    return "MNIST" if channels == 1 else "CIFAR10"


def failed_majorities(dataset: PaperDataset, setting: str, column: str) -> float:
    """Return Table 2's failed majorities as a fraction of the test images."""
    row = _TABLE_2[dataset][BLACK_BOX_SETTINGS.index(setting)]
    return row[_TABLE_2_COLUMNS.index(column)] / PAPER_TEST_IMAGES


def boosting_gain(dataset: PaperDataset, family: str, column: str) -> float:
    """Return the accuracy that boosting gains under a family of attacks, as a fraction."""
    return _GAINS[dataset][FAMILIES.index(family)][_GAIN_COLUMNS.index(column)] / 100


def white_box_accuracy(dataset: PaperDataset, row: str, column: str) -> float | None:
    """Return Table 4's accuracy, as a fraction; ``None`` for a row that the paper does not have."""
    accuracies = _TABLE_4[dataset].get(row)
    return None if accuracies is None else accuracies[("clean", *WHITE_BOX_SETTINGS).index(column)]
