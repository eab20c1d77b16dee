from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dkd_bench.cli import app
from dkd_bench.records.flags import FLAGS

pytestmark = pytest.mark.usefixtures("cache")


RUN = ("run", "--dataset", "TINY", "--n-examples", "40", "--eps", "0.1", "--device", "cpu")


def test_run_prints_the_board_alone_on_stdout(command, tmp_path):
    status, out, err = command(*RUN, "--defense", "dkd", "--attack", "fgsm", "--out", tmp_path / "r")
    assert status == 0
    assert out == (tmp_path / "r" / "leaderboard.md").read_text()
    assert "fgsm linf 0.1 on reference: 1/1; " in err
    assert "'dkd-bench verify" in err


def test_json_is_the_product_and_nothing_else(command, tmp_path):
    status, out, _ = command(*RUN, "--defense", "none", "--attack", "fgsm", "--out", tmp_path / "r", "--format", "json")
    assert status == 0
    assert json.loads(out)


def test_train_then_run_then_leaderboard_of_both_runs(command, tmp_path):
    status, out, _ = command("train", "--defense", "none", "--dataset", "TINY", "--device", "cpu")
    assert (status, out.startswith("none: clean accuracy deployed 0.")) == (0, True)
    for name in ("none", "dkd"):
        status, _, _ = command(*RUN, "--defense", name, "--attack", "fgsm", "--out", tmp_path / name)
        assert status == 0
    status, out, _ = command("leaderboard", tmp_path / "none", tmp_path / "dkd")
    assert status == 0
    assert out.count("Linf, eps = 0.1\n\n") >= 1
    board = [line.split("|") for line in out.split("\n### ")[0].splitlines() if line.startswith("| ")][2:]
    assert sorted(cells[3].strip() for cells in board) == ["dkd", "dkd*", "none"]
    assert board[0][1].strip() == "1"


def test_list_names_what_is_installed(command):
    assert "Diverse knowledge distillation" in command("list", "defenses")[1]
    assert "aggregated" in command("list", "threat-models")[1]


def test_explain_says_what_a_flag_means(command):
    status, out, _ = command("explain", "zero gradients")
    assert status == 0
    assert out.startswith("zero gradients (suspicious)\n  On a share of clean images no surrogate has any gradient")
    assert command("explain")[1].count("What to do:") == len(FLAGS)
    status, _, err = command("explain", "zero gradient")
    assert status == 2
    assert "no flag named 'zero gradient'. Did you mean 'zero gradients'?" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run", "--defense", "dkdd"), "no defence named 'dkdd'"),
        (("run", "--defense", "dkdd"), "Did you mean 'dkd'? Installed: at, defense-gan, dkd, kd, magnet"),
        (("run", "--defense", "dkd", "--attack", "pdg"), "no attack named 'pdg'. Did you mean 'pgd'?"),
        (("run", "--defense", "dkd", "--dataset", "mnits"), "no dataset named 'mnits'. Did you mean 'mnist'?"),
        (
            ("run", "--defense", "dkd", "--threat-model", "joined"),
            "no threat model named 'joined'. Did you mean 'joint'?",
        ),
        (("run", "--defense", "dkd", "--eps", "8"), "got 8. Did you mean 8/255, that is --eps 0.0313725?"),
        (("run", "--defense", "dkd", "--eps", "0"), "eps must be positive and finite"),
        (("run", "--defense", "dkd", "--eps", "nan"), "eps must be positive and finite"),
        (("run", "--defense", "dkd", "--norm", "l1"), "'l1' is not one of 'linf', 'l2'"),
        (("run", "--defense", "dkd", "--n-examples", "501"), "--n-examples must be from 1 to 500"),
        (("run", "--defense", "dkd", "--n-examples", "0"), "--n-examples must be"),
        (("run", "--defense", "dkd", "--seed", "-1"), "--seed must be from 0"),
        (("run", "--defense", "dkd", "--set", "zeta=1"), "zeta must be in [0, 1)"),
        (("run", "--defense", "dkd", "--set", "zita=.5"), "no setting named 'zita'. Did you mean 'zeta'?"),
        (("train", "--defense", "dkd", "--set", "zita=.5"), "no setting named 'zita'. Did you mean 'zeta'?"),
        (("run", "--defense", "dkd", "--set", "zeta"), "--set takes NAME=VALUE"),
        (("run", "--defense", "dkd", "--set", "pgd.steps=many"), "setting 'steps' of pgd must be int, got 'many'"),
        (("run", "--defense", "dkd", "--batch-size", "lots"), "--batch-size must be a number or auto"),
        (("run", "--defense", "dkd", "--device", "tpu"), "'tpu' is not one of"),
        (("run", "--defense", "none.py:None"), "no file 'none.py'"),
        (("run", "--defense", "dkd", "--dataset", "npz:none.npz"), "none.npz"),
        (("run",), "Missing option"),
        (("list", "plugins"), "no kind of plugin named 'plugins'"),
        (("leaderboard", "no-run"), "no run at no-run"),
        (("verify", "no-run"), "no run at no-run"),
    ],
)
def test_wrong_words_get_one_sentence_and_status_2(command, words, sentence):
    status, out, err = command(*words)
    assert status == 2
    assert out == ""
    assert sentence in err
    assert err.startswith("dkd-bench: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dkd-bench", "--debug", "list", "plugins"])
    with pytest.raises(Exception, match="no kind of plugin"):
        app.main()


def test_incomplete_run_leaves_with_3(command, tmp_path):
    plugin = tmp_path / "plugin.py"
    plugin.write_text("raise OSError('no weights here')")
    status, out, err = command(
        *RUN, "--defense", f"{plugin}:Mine", "--defense", "none", "--attack", "fgsm", "--out", tmp_path / "r"
    )
    assert status == 3
    assert "OSError: no weights here" in err
    assert "INCOMPLETE" in out
    assert json.loads((tmp_path / "r" / "results.json").read_text())["complete"] is False


def test_full_disk_leaves_nothing_half_written(command, tmp_path, monkeypatch, cache):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = command(*RUN, "--defense", "none", "--attack", "fgsm", "--out", tmp_path / "r")
    assert status == 3
    assert "no space left to write" in err
    assert not (tmp_path / "r" / "results.json").exists()
    assert not list(cache.rglob("*.part"))
    assert not list(cache.glob("crafts/*.safetensors"))


def test_damaged_weights_are_named(command, tmp_path, cache):
    for file in (cache / "weights").glob("*.safetensors"):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    status, _, err = command(*RUN, "--defense", "none", "--attack", "fgsm", "--out", tmp_path / "r")
    assert status == 3
    assert "should have digest" in err
    assert "delete it and run again" in err


def test_help_and_list_do_not_import_torch():
    code = (
        "import sys; from typer.main import get_command; from dkd_bench.cli.app import app; "
        "names = list(get_command(app).commands); assert {'run', 'reproduce', 'publish'} <= set(names); "
        "[app([name, '--help'], standalone_mode=False) for name in names]; "
        "app(['--help'], standalone_mode=False); app(['list', 'defenses'], standalone_mode=False); "
        "heavy = {'torch', 'numpy', 'scipy', 'sklearn', 'foolbox'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["dkd_bench", "defenses/dkd_defenses", "baselines/dkd_baselines", "paper/dkd_paper"])
def test_only_the_command_line_prints(folder):
    root = Path(__file__).parents[2]
    printing = [
        str(file.relative_to(root))
        for file in (root / folder).rglob("*.py")
        if re.search(r"(?<![\w.])print\(", file.read_text()) and "cli" not in file.parts
    ]
    assert printing == []
