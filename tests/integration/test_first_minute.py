"""What a user sees before and while the first command trains."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dkd_bench.cli import app
from dkd_bench.pipeline import run
from dkd_bench.plugins import registry
from dkd_bench.steps.request import RunRequest
from dkd_bench.training import speed

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch is asked for", file=sys.stderr, flush=True)
            raise ImportError("no torch here")
        return None
sys.meta_path.insert(0, Blocked())
from dkd_bench.cli.app import main
main()
"""
"""The command line, where torch cannot be imported and tells of it."""

COMMANDS = [
    ("run", "--defense", "dkd"),
    ("train", "--defense", "dkd"),
    ("sweep", "--defense", "dkd", "--vary", "zeta=0,0.5"),
    ("reproduce", "table2"),
    ("lss", "--defense", "dkd"),
    ("probe", "--defense", "dkd"),
    ("plot", "runs/one"),
    ("verify", "runs/one"),
    ("check", "runs/one", "--against", "reference.json"),
    ("reference", "runs/one", "--out", "reference.json"),
    ("publish", "leaderboard"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=[words[0] for words in COMMANDS])
def test_something_is_said_before_torch_is_imported(words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    lines = done.stderr.splitlines()
    assert lines[:2] == [
        "dkd-bench: loading torch (seconds; the first time after an installation up to half a minute)",
        "torch is asked for",
    ]
    assert "no torch here" in lines[2]
    assert done.stdout == ""


def test_every_command_that_imports_torch_is_asked_above():
    light = {"list", "leaderboard", "explain"}
    every = {each.name or each.callback.__name__ for each in app.app.registered_commands}
    every |= registry.installed("commands").keys()
    assert every - light == {words[0] for words in COMMANDS}


def test_a_terminal_shows_it_before_torch_is_imported(tmp_path):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", BLOCKED, "run", "--defense", "dkd"],
        stdin=slave,
        stdout=subprocess.DEVNULL,
        stderr=slave,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    ):
        os.close(slave)
        seen = read_all(master)
    assert "loading torch" in seen.partition("torch is asked for")[0]
    assert "no torch here" in seen


def read_all(descriptor):
    """Return what is written to a terminal until nobody writes any more."""
    seen = b""
    while True:
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # what Linux says when the other end is closed
            piece = b""
        if not piece:
            os.close(descriptor)
            return seen.decode()
        seen += piece


@pytest.fixture
def measured(monkeypatch):
    """Make this a slow machine, and count how often it is measured."""
    calls = []
    monkeypatch.setattr(speed, "gradients_per_second", lambda: calls.append(1) or speed.README_GRADIENTS_PER_SECOND / 2)
    speed._log_slowness.cache_clear()
    yield calls
    speed._log_slowness.cache_clear()


def test_training_is_announced_before_its_first_network(command, measured, tmp_path, monkeypatch):
    monkeypatch.setenv("DKD_BENCH_CACHE", str(tmp_path / "empty"))
    words = ("train", "--dataset", "TINY", "--defense", "ri", "--set", "n_members=2", "--defense", "none")
    status, _, err = command(*words, "--device", "cpu")
    assert status == 0
    lines = [line.replace(":tiny: ", ": ") for line in err.splitlines() if "left" not in line]
    assert [line.partition(":")[0] if "40/40" in line else line for line in lines] == [
        "dkd-bench: training 'ri' on npz: 2 members, recipe fast, 40 epochs",
        f"dkd-bench: {speed.slowness(speed.README_GRADIENTS_PER_SECOND / 2)}",
        "ri",
        "ri",
        "dkd-bench: training 'none' on npz: recipe fast, 40 epochs",
        "No defence",
    ]
    assert measured == [1]
    status, _, err = command(*words, "--device", "cpu")
    assert (status, err) == (0, "")
    assert measured == [1]


def test_defence_that_trains_nothing_is_not_announced(command, measured, tmp_path):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from dkd_bench.api import DefenseMeta, SingleNetwork, build_network\n"
        "class Mine(SingleNetwork):\n"
        "    meta = DefenseMeta(name='mine', title='Mine')\n"
        "    def __init__(self, images, settings=None):\n"
        "        super().__init__(images, settings)\n"
        "        self.network = build_network('small', images)\n"
        "    def fit(self, data, *, recipe, generator, progress):\n"
        "        pass\n"
    )
    _, _, err = command("train", "--dataset", "TINY", "--defense", f"{plugin}:Mine", "--device", "cpu")
    assert "training 'mine'" not in err
    assert measured == []


def test_run_found_in_the_cache_measures_nothing(command, measured, cache, tmp_path):
    words = ("run", "--dataset", "TINY", "--n-examples", "40", "--eps", "0.1", "--device", "cpu", "--attack", "fgsm")
    for _ in range(2):
        status, _, err = command(*words, "--defense", "dkd", "--out", tmp_path / "r")
        assert status == 0
        assert "training" not in err
    assert measured == []


class Recorder:
    """Progress that keeps what each task was told of the time left."""

    def __init__(self):
        self.left = {}

    def start(self, description, total):
        self.left[description] = []
        return Told(self.left[description])


class Told:
    def __init__(self, left):
        self.left = left

    def advance(self, steps=1, note="", seconds_left=None):
        self.left.append(seconds_left)


@pytest.fixture
def left(cache, tiny_npz, tmp_path):
    """Run FGSM and PGD on the tiny task; returns the seconds left that were told after each craft."""

    def carry_out(*threat_models):
        request = RunRequest(
            defenses=("dkd",),
            attacks=("fgsm", "pgd"),
            threat_models=threat_models,
            dataset=f"npz:{tiny_npz}",
            n_examples=20,
            eps=(0.1,),
            device="cpu",
            out=tmp_path / "-".join(threat_models),
        )
        recorder = Recorder()
        run(request, progress=recorder)
        return recorder.left["crafts"]

    return carry_out


def test_crafts_say_how_long_they_take_once_each_attack_was_seen(left):
    told = left("standalone")
    # One thread crafts in the order of the plan: FGSM on three members, then PGD.
    assert told[:3] == [None] * 3
    assert all(seconds > 0 for seconds in told[3:5])
    assert told[5:] == [0]


def test_crafts_that_are_there_count_for_nothing(left):
    left("standalone")
    assert left("standalone", "joint")[:6] == [None] * 6
