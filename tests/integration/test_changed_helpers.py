"""A plugin whose helper module changed is another plugin: nothing that the old one left is taken for its own."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]

DEFENSE = """
import torch
from sklearn.datasets import load_digits
from torch import nn

from dkd_bench.api import Defense, DefenseMeta
from helper import prepared


class NearestMean(nn.Module):
    def __init__(self):
        super().__init__()
        digits = load_digits()
        images, labels = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
        means = torch.stack([images[labels == label].mean(0) for label in range(10)])
        self.linear = nn.Linear(64, 10)
        self.linear.weight.data, self.linear.bias.data = 8 * means, -4 * (means**2).sum(1)

    def forward(self, x):
        return self.linear(prepared(x).flatten(1))


class Helped(Defense):
    meta = DefenseMeta(name="helped", title="Helped")

    def __init__(self, images, settings=None):
        super().__init__(images, settings)
        self.network = NearestMean()

    @property
    def members(self):
        return [self.network]

    def predict(self, x, *, generator):
        return self.network(x).argmax(dim=1)
"""

HELPER = "def prepared(x):\n    return x\n"
WEAKER = "import torch\n\ndef prepared(x):\n    return torch.cat([x[:, :, :4], 0 * x[:, :, 4:]], dim=2)\n"
COMMENTED = '"""Preparation."""\n\n\ndef prepared(x: object) -> object:\n    return x  # as it is\n'


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return a function that writes the helper, and forgets what was imported, as a new process would."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "defense.py").write_text(DEFENSE, encoding="utf-8")

    def forget() -> None:
        importlib.invalidate_caches()
        for name in [*sys.modules]:
            if name == "helper" or name.startswith("dkd_bench_plugin_"):
                del sys.modules[name]

    def write(text: str) -> None:
        (tmp_path / "helper.py").write_text(text, encoding="utf-8")
        forget()

    yield write
    forget()


def test_a_changed_helper_is_computed_anew_and_noticed(
    edit: Callable[[str], None], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DKD_BENCH_CACHE", str(tmp_path / "cache"))

    def run(name: str) -> tuple[float, str]:
        words = (
            "--attack",
            "fgsm",
            "--threat-model",
            "standalone",
            "--eps",
            0.1,
            "--device",
            "cpu",
            "--n-examples",
            60,
        )
        out = tmp_path / name
        status, _, told = command(
            "run", "--defense", f"{tmp_path}/defense.py:Helped", *words, "--dataset", "TINY", "--out", out
        )
        assert status == 0
        (cell,) = json.loads((out / "results.json").read_text())["cells"]
        return cell["robust_accuracy"], told

    def crafts() -> int:
        return len([*(tmp_path / "cache" / "crafts").rglob("*.safetensors")])

    edit(HELPER)
    before, _ = run("first")
    reference = tmp_path / "reference.json"
    assert command("reference", tmp_path / "first", "--out", reference)[0] == 0
    assert crafts() == 1

    edit(COMMENTED)
    assert run("commented")[0] == before
    assert "nothing to compute" in run("first")[1], "a comment makes no run again"
    assert crafts() == 1

    edit(WEAKER)
    after, told = run("first")
    assert "nothing to compute" not in told
    assert crafts() == 2
    assert run("second")[0] == after < before
    status, printed, _ = command("check", "--against", reference, tmp_path / "second")
    assert status == 1, printed
    assert printed.startswith("regressed")

    monkeypatch.setenv("DKD_BENCH_CACHE", str(tmp_path / "empty"))
    assert run("fresh")[0] == after, "what a cache knows nothing of is the truth"
