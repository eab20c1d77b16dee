"""Named training recipes; every number of one is in its record and in the weights' key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from dkd_bench.data import Dataset
from dkd_bench.errors import UnknownNameError


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Parameters of training a network with Adam."""

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    """Learning rate of Adam: constant, or the peak of a one-cycle schedule."""
    schedule: Literal["constant", "one-cycle"]


def _paper(dataset: Dataset) -> Recipe:
    """Table 1 of the paper: Adam 1e-4, 100 epochs, batch 64 for MNIST and 128 for CIFAR10."""
    batch_size = 64 if dataset.image_spec.channels == 1 else 128
    return Recipe(name="paper", epochs=100, batch_size=batch_size, learning_rate=1e-4, schedule="constant")


def _fast(dataset: Dataset) -> Recipe:
    """One cycle over as many epochs as show about 240,000 images, but from 4 to 40 of them."""
    epochs = min(40, max(4, round(240_000 / len(dataset.train))))
    batch_size = 32 if len(dataset.train) < 10_000 else 128
    return Recipe(name="fast", epochs=epochs, batch_size=batch_size, learning_rate=2e-3, schedule="one-cycle")


RECIPES: Mapping[str, Callable[[Dataset], Recipe]] = {"fast": _fast, "paper": _paper}
"""Recipes by name; each fits itself to the dataset."""


def recipe_named(name: str, dataset: Dataset) -> Recipe:
    """Return the recipe called ``name`` for ``dataset``.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES, known_as="Recipes")
    return RECIPES[name](dataset)
