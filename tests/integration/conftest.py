"""A small real task with committed weights, and how to run on it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dkd_bench.cli import app
from dkd_bench.pipeline import run
from dkd_bench.records import RunRecord
from dkd_bench.steps.request import RunRequest
from tiny_task import recalled, train_all, write_dataset


@pytest.fixture(scope="session")
def tiny_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 digits to train on and 60 to attack, as a file of one's own."""
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    write_dataset(path)
    return path


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory: pytest.TempPathFactory, tiny_npz: Path) -> Path:
    """A cache in which all that ``tiny_task`` trains has its committed weights, and nothing is crafted."""
    cache = tmp_path_factory.mktemp("warm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DKD_BENCH_CACHE", str(cache))
        train_all(tiny_npz, recalled)
    return cache


@pytest.fixture
def cache(tmp_path: Path, warm_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the warm cache that a test may do with as it likes."""
    copy = tmp_path / "cache"
    shutil.copytree(warm_cache, copy)
    monkeypatch.setenv("DKD_BENCH_CACHE", str(copy))
    return copy


def request(dataset: Path, out: Path, **words: object) -> RunRequest:
    """A run on the tiny task; short names, CPU."""
    defaults: dict[str, object] = {"defenses": ("dkd",), "attacks": ("fgsm", "deepfool"), "eps": (0.1,)}
    return RunRequest(
        dataset=f"npz:{dataset}", out=out, device="cpu", n_examples=words.pop("n_examples", 40), **(defaults | words)
    )


@pytest.fixture
def bench(cache: Path, tiny_npz: Path, tmp_path: Path) -> Callable[..., RunRecord]:
    """Run on the tiny task from a warm cache; returns the record."""

    def carry_out(name: str = "run", **words: object) -> RunRecord:
        return run(request(tiny_npz, tmp_path / name, **words))[0]

    return carry_out


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_npz: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process, ``TINY`` being the tiny task; returns exit status, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        full = [str(word).replace("TINY", f"npz:{tiny_npz}") for word in words]
        monkeypatch.setattr(sys, "argv", ["dkd-bench", *full])
        with pytest.raises(SystemExit) as leave:
            app.main()
        printed = capsys.readouterr()
        return int(leave.value.code or 0), printed.out, printed.err

    return call
