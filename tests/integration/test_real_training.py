"""All that ``tiny_task`` has committed weights of, really trained: what is asserted holds for any training seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from dkd_bench.data import load_dataset
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.prepare import prepare
from dkd_bench.steps.request import RunRequest, TrainRequest
from dkd_bench.steps.resolve import resolve
from dkd_bench.steps.train import train
from dkd_bench.store.digests import digest_module
from dkd_bench.training import _fit, outputs_on
from tiny_task import REFERENCE, TRAINED, WEIGHTS, known

LEARNT = 0.2
"""Clean accuracy; chance is 0.1."""
TRAININGS: list[tuple[str, tuple[str, ...]]] = [
    ("none", ()),
    ("dkd", ()),
    ("kd", ()),
    ("ri", ()),
    ("at", ("at.steps=2", "at.epochs_ratio=0.5")),
    ("trades", ("trades.steps=2", "trades.epochs_ratio=0.5")),
    (known("Linear"), ()),
    (known("Preprocessed"), ()),
    (known("Smooth"), ()),
]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DKD_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("defense", "settings"), TRAININGS, ids=[defense.rpartition(":")[2] for defense, _ in TRAININGS]
)
def test_training_learns_and_is_remembered(
    tiny_npz: Path, defense: str, settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = TrainRequest(defenses=(defense,), dataset=f"npz:{tiny_npz}", settings=settings, device="cpu")
    (first,) = train(resolve(asked), SilentProgress()).defenses.values()
    assert max(first.clean_accuracy.values()) > LEARNT
    monkeypatch.setattr(_fit, "_optimise", None)
    (second,) = train(resolve(asked), SilentProgress()).defenses.values()
    assert (second.key, second.sha256, second.clean_accuracy) == (first.key, first.sha256, first.clean_accuracy)


def test_the_adversarys_own_network_is_trained_and_remembered(tiny_npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"attacks": ("fgsm",), "threat_models": ("black-box",), "eps": (0.1,), "n_examples": 20}
    asked = RunRequest(defenses=("none",), dataset=f"npz:{tiny_npz}", device="cpu", **words)

    def reference() -> nn.Module:
        made = prepare(asked, SilentProgress()).targets.networks.values()
        networks = {network.called: network.module for network in made}
        return networks[REFERENCE]

    first = reference()
    test = load_dataset(f"npz:{tiny_npz}", root=None).test
    right = (outputs_on(first, test).argmax(dim=1) == test.labels).double().mean()
    assert right > LEARNT
    monkeypatch.setattr(_fit, "_optimise", None)
    assert digest_module(reference()) == digest_module(first)


def test_committed_weights_are_small_and_of_networks_that_learnt(warm_cache: Path) -> None:
    """Made by ``python tests/tiny_task.py``."""
    manifests = [json.loads(file.read_text()) for file in (warm_cache / "weights").glob("*.json")]
    assert {file.stem for file in WEIGHTS.iterdir()} == set(TRAINED)
    assert len(manifests) == len(TRAINED)
    assert all(max(each["clean_accuracy"].values()) > 0.6 for each in manifests), manifests
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) < 300_000
