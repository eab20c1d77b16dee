"""Training: named recipes, and the loop that trains every network of the harness."""

from dkd_bench.training._fit import (
    CrossEntropy,
    Objective,
    TrainingBatch,
    TrainingSet,
    TrainingStep,
    captured_latent,
    outputs_on,
    train_network,
)
from dkd_bench.training._recipes import RECIPES, Recipe, recipe_named

__all__ = [
    "RECIPES",
    "CrossEntropy",
    "Objective",
    "Recipe",
    "TrainingBatch",
    "TrainingSet",
    "TrainingStep",
    "captured_latent",
    "outputs_on",
    "recipe_named",
    "train_network",
]
