"""A network of one's own through the command line: a factory, a file of weights, a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from dkd_bench.cli import app
from dkd_bench.executors.local import crafted_ahead

Command = Callable[..., tuple[int, str, str]]

FACTORY = """
from torch import nn

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def command(
    tmp_path: Path, tiny_npz: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Run the command line in a folder with ``my_nets.py`` and ``weights.safetensors``; its cache is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DKD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("my_nets.py").write_text(FACTORY, encoding="utf-8")
    save_file(nearest_mean(), "weights.safetensors")

    def call(*words: object) -> tuple[int, str, str]:
        on_the_task = ("--dataset", f"npz:{tiny_npz}", "--device", "cpu")
        monkeypatch.setattr(sys, "argv", ["dkd-bench", *map(str, words), *on_the_task])
        with pytest.raises(SystemExit) as leave:
            app.main()
        printed = capsys.readouterr()
        return int(leave.value.code or 0), printed.out, printed.err

    yield call
    sys.modules.pop("my_nets", None)


def nearest_mean() -> dict[str, torch.Tensor]:
    """Return the weights of a linear network that answers with the class of the nearest mean."""
    digits = load_digits()
    images, labels = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
    means = torch.stack([images[labels == label].mean(dim=0) for label in range(10)])
    return {"1.weight": 8 * means, "1.bias": -4 * (means**2).sum(dim=1)}


MINE = ("--defense", "torch:my_nets:linear")
ATTACKED = ("--attack", "fgsm", "--threat-model", "standalone", "--eps", "0.1", "--n-examples", "40")


def test_a_run_from_factory_to_leaderboard(command: Command) -> None:
    status, out, _ = command("run", *MINE, "--weights", "weights.safetensors", *ATTACKED)
    assert status == 0
    assert "torch-my_nets-linear" in out
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("torch-my_nets-linear-npz-tiny-")
    record = json.loads((folder / "results.json").read_text())
    (cell,) = record["cells"]
    assert 0.8 < cell["clean_accuracy"] <= 1
    assert cell["robust_accuracy"] < cell["clean_accuracy"]
    assert record["manifest"]["request"]["settings"] == ["weights=weights.safetensors"]
    assert record["manifest"]["defenses"]["torch-my_nets-linear"]["settings"]["weights"] == "weights.safetensors"


def test_the_option_is_short_for_a_setting(command: Command) -> None:
    by_option = command("train", *MINE, "--weights", "weights.safetensors")
    by_setting = command("train", *MINE, "--set", "weights=weights.safetensors")
    by_name = command("train", *MINE, "--set", "torch-my_nets-linear.weights=weights.safetensors")
    assert by_option == by_setting == by_name
    assert by_option[0] == 0
    assert by_option[1].startswith("torch-my_nets-linear: clean accuracy deployed 0.")


def test_new_weights_under_the_old_name_are_seen(command: Command) -> None:
    before = command("train", *MINE, "--weights", "weights.safetensors")
    save_file({name: -tensor for name, tensor in nearest_mean().items()}, "weights.safetensors")
    after = command("train", *MINE, "--weights", "weights.safetensors")
    assert before[0] == after[0] == 0
    assert before[1] != after[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--defense", "torch"), "expected torch:package.module:factory, a function without arguments that returns a"),
        (("--defense", "torch:my_nets:liner"), "no function in my_nets named 'liner'. Did you mean 'linear'?"),
        (("--defense", "torch:no_nets:linear"), "no module 'no_nets', neither installed nor in "),
        (("--defense", "none:x"), "defence 'none' takes no argument, got 'x'; write --defense none"),
        ((*MINE, "--weights", "no.pt"), "no file 'no.pt'; --weights takes a state dict, .pt or .safetensors"),
        ((*MINE, "--weights", "a.pt", "--set", "weights=b.pt"), "--set gives 'weights' twice; give it once"),
        (("--defense", "none", "--weights", "weights.safetensors"), "no setting named 'weights'"),
        ((*MINE, "--zoo-root", "zoo"), "no setting named 'zoo_root'"),
    ],
)
def test_wrong_words_get_one_sentence_and_status_2(command: Command, words: tuple[str, ...], sentence: str) -> None:
    for start in (("train",), ("run", *ATTACKED)):
        status, out, err = command(*start, *words)
        assert (status, out) == (2, "")
        assert err.startswith("dkd-bench: error: ")
        assert sentence in err
        assert err.count("\n") == 1


def test_what_is_no_weights_is_named_and_the_rest_goes_on(command: Command) -> None:
    Path("page.pt").write_text("<!DOCTYPE html><html>", encoding="utf-8")
    Path("other_nets.py").write_text(FACTORY, encoding="utf-8")
    page = ("--set", "torch-my_nets-linear.weights=page.pt")
    good = ("--set", "torch-other_nets-linear.weights=weights.safetensors")
    status, out, err = command("train", *MINE, "--defense", "torch:other_nets:linear", *page, *good)
    sys.modules.pop("other_nets")
    assert status == 3
    assert out.startswith("torch-other_nets-linear: clean accuracy")
    assert "page.pt is an HTML page, not weights" in err


@pytest.mark.slow
def test_workers_find_the_factory_too(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def watched(bench, crafter):
        made.extend(crafted_ahead(bench, crafter))
        return iter(())

    monkeypatch.setattr("dkd_bench.pipeline.crafted_ahead", watched)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        status, _, _ = command("run", *MINE, "--weights", "weights.safetensors", "--attack", "pgd", *ATTACKED)
    finally:
        torch.set_num_threads(threads)
    assert status == 0
    assert {craft.attack for craft, _ in made} == {"fgsm", "pgd"}
