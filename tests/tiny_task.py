"""The small real task of the tests, and what is trained on it: committed, so that it is the same on every machine.

    python tests/tiny_task.py          # trains it all and writes tests/weights

Other kernels round otherwise, and after 500 steps the weights are others: of a few images that survive here, none may
there. So tests that say what becomes of images work on the committed weights; what is to hold for any weights is in
``benchmarks/training_seeds.py``, and ``tests/integration/test_real_training.py`` trains.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from platform import processor
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from dkd_bench.data import Split
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.prepare import prepare
from dkd_bench.steps.request import RunRequest, TrainRequest
from dkd_bench.steps.resolve import resolve
from dkd_bench.steps.train import train
from dkd_bench.store.files import TensorStore
from dkd_bench.training import Recipe, _fit

WEIGHTS = Path(__file__).parent / "weights"
KNOWN = Path(__file__).parent / "known_defenses.py"
REFERENCE = "reference"


def known(defense: str) -> str:
    """Return how to name a class in ``known_defenses.py``."""
    return f"{KNOWN}:{defense}"


TRAINED = {
    "none": ("none", 0),
    "none-1": ("none", 1),
    REFERENCE: ("none", 0),
    "dkd": ("dkd", 0),
    "at": ("at", 0),
    "linear": (known("Linear"), 0),
    "preprocessed": (known("Preprocessed"), 0),
    "smooth": (known("Smooth"), 0),
}
"""File of weights to the defence that it is of, and the training seed, in the order in which they are trained.

A network that another defence trained before is not trained again: the main model of DKD is that of ``none``, and so
are all the networks of ``known_defenses.py`` that are not here.
"""

LONGER = {"dkd": 5}
"""Epochs of a training in units of the recipe's: 400 digits are few, and DKD gives a tenth of its loss to them."""


def write_dataset(path: Path) -> None:
    """Write 400 digits to train on and 60 to attack."""
    digits = load_digits()
    images = np.round(digits.images * 15).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    np.savez(path, x_train=images[:400], y_train=labels[:400], x_test=images[400:460], y_test=labels[400:460])


def train_all(dataset: Path, each: Callable[[str], Any]) -> None:
    """Train all of ``TRAINED`` into the user's cache, inside the context that ``each`` gives for a file's name."""
    for name, (defense, seed) in TRAINED.items():
        words: dict[str, Any] = {"defenses": (defense,), "dataset": f"npz:{dataset}", "training_seed": seed}
        with each(name):
            if name == REFERENCE:
                attacked = {"attacks": ("fgsm",), "threat_models": ("black-box",), "eps": (0.1,), "n_examples": 1}
                prepare(RunRequest(**words, **attacked, device="cpu"), SilentProgress())
            else:
                failures = train(resolve(TrainRequest(**words, device="cpu")), SilentProgress()).failures
                assert not failures, failures


@contextmanager
def recalled(name: str) -> Iterator[None]:
    """Give each network that is to be trained its committed weights instead, in the order of the training."""
    left = _by_network(TensorStore(WEIGHTS).get(name) or {})

    def recall(network: nn.Module, *_: object) -> None:
        assert left, f"{name} trains more networks than tests/weights has; make it again: python tests/tiny_task.py"
        network.load_state_dict(left.pop(0))

    with patch.object(_fit, "_optimise", recall):
        yield
    assert not left, f"{name} trains fewer networks than tests/weights has; make it again: python tests/tiny_task.py"


@contextmanager
def recorded(name: str) -> Iterator[None]:
    """Train, and write what was trained in half precision."""
    optimise, tensors = _fit._optimise, {}

    def record(network: nn.Module, split: Split, recipe: Recipe, *rest: Any) -> None:
        optimise(network, split, replace(recipe, epochs=LONGER.get(name, 1) * recipe.epochs), *rest)
        number = len(_by_network(tensors))
        tensors.update({f"{number}.{called}": tensor.half() for called, tensor in network.state_dict().items()})

    with patch.object(_fit, "_optimise", record):
        yield
    made = {"torch": torch.__version__, "kernels": torch.backends.cpu.get_cpu_capability(), "cpu": processor()}
    TensorStore(WEIGHTS).put(name, tensors, made | {"command": "python tests/tiny_task.py"})


def _by_network(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    networks: dict[int, dict[str, Tensor]] = {}
    for called, tensor in tensors.items():
        number, _, parameter = called.partition(".")
        networks.setdefault(int(number), {})[parameter] = tensor
    return [networks[number] for number in sorted(networks)]


def main() -> None:
    """Train and write."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, patch.dict("os.environ", {"DKD_BENCH_CACHE": f"{folder}/cache"}):
        write_dataset(Path(folder) / "tiny.npz")
        train_all(Path(folder) / "tiny.npz", recorded)
    files = sorted(WEIGHTS.glob("*.safetensors"))
    sys.stdout.writelines(f"{file.stat().st_size:8} {file.name}\n" for file in files)
    sys.stdout.write(f"{sum(file.stat().st_size for file in files):8} in all\n")


if __name__ == "__main__":
    main()
