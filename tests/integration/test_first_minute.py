"""What a user sees before and while the first command trains."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dkd_bench.cli import app

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
