"""``dkd-bench leaderboard`` and RobustBench's files, from the command line: a row out, published rows in."""

from __future__ import annotations

import json

import pytest

from dkd_bench.attacks.autoattack import AutoAttackSettings
from dkd_bench.plugins.settings import settings_as_json
from dkd_bench.records import DatasetRecord
from dkd_bench.steps.save import save_run

# github.com/RobustBench/robustbench, README.md of release 1.1.1: model_info/cifar10/Linf/Rice2020Overfitting.json
RICE = {
    "link": "https://arxiv.org/abs/2002.11569",
    "name": "Overfitting in adversarially robust deep learning",
    "authors": "Leslie Rice, Eric Wong, J. Zico Kolter",
    "additional_data": False,
    "number_forward_passes": 1,
    "dataset": "cifar10",
    "venue": "ICML 2020",
    "architecture": "WideResNet-34-20",
    "eps": "8/255",
    "clean_acc": "85.34",
    "reported": "58",
    "autoattack_acc": "53.42",
}
N = 10_000
FIELDS = [
    word
    for name in ("link", "name", "authors", "additional_data", "venue", "architecture", "reported")
    for word in ("--field", f"{name}={str(RICE[name]).lower() if name == 'additional_data' else RICE[name]}")
]


@pytest.fixture
def theirs(tmp_path):
    """A folder laid out as RobustBench's ``model_info``."""
    folder = tmp_path / "model_info" / "cifar10" / "Linf"
    folder.mkdir(parents=True)
    (folder / "Rice2020Overfitting.json").write_text(json.dumps(RICE))
    return tmp_path / "model_info"


@pytest.fixture
def digits_run(bench, tmp_path):
    bench(defenses=("none",), attacks=("fgsm",), threat_models=("joint",))
    return tmp_path / "run"


@pytest.fixture
def cifar_run(bench, tmp_path):
    """A real run whose record is rewritten to tell of CIFAR-10's 10,000 images, each outcome 250 times."""
    record = bench(defenses=("none",), attacks=("fgsm",), threat_models=("joint",))
    (cell,) = record.cells
    outcomes = cell.outcomes * (N // len(cell.outcomes))
    told = {"dataset": "cifar10", "attack": "autoattack", "eps": 8 / 255, "n": N, "outcomes": outcomes, "flags": ()}
    dataset = DatasetRecord(name="cifar10", digest="d1" * 32, n=N, n_test=N, indices=tuple(range(N)))
    defenses = {name: each.model_copy(update={"flags": ()}) for name, each in record.manifest.defenses.items()}
    manifest = record.manifest.model_copy(update={"dataset": dataset, "defenses": defenses})
    attack = {
        "name": "autoattack",
        "parameters": settings_as_json(AutoAttackSettings()),
        "variant": ["apgd-ce", "apgd-t", "fab-t", "square"],
    }
    whole = record.model_copy(
        update={"cells": (cell.model_copy(update=told),), "manifest": manifest, "suite": {"attacks": [attack]}}
    )
    folder = tmp_path / "cifar"
    save_run(whole, folder)
    return folder, whole.cells[0]


def test_a_row_goes_out_and_comes_back_beside_the_board(command, cifar_run, tmp_path):
    folder, cell = cifar_run
    status, out, err = command("leaderboard", folder, "--format", "robustbench", *FIELDS)
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["clean_acc"] == f"{100 * cell.clean_accuracy:.2f}"
    assert found["autoattack_acc"] == f"{100 * cell.robust_accuracy:.2f}"
    assert {name: found[name] for name in found if name not in ("clean_acc", "autoattack_acc", "footnote")} == {
        name: value for name, value in RICE.items() if name not in ("clean_acc", "autoattack_acc")
    }
    (tmp_path / "Ours.json").write_text(out)
    status, out, _ = command("leaderboard", folder, "--robustbench", tmp_path / "Ours.json")
    assert status == 0
    assert RICE["name"] in out.partition("## Published elsewhere, not measured here")[2]


def test_a_run_on_other_images_is_refused_with_the_reason(command, digits_run):
    status, out, err = command("leaderboard", digits_run, "--format", "robustbench", *FIELDS)
    assert (status, out) == (2, "")
    assert err.startswith("dkd-bench: error: RobustBench has no row on 'npz:")
    assert err.count("\n") == 1


def test_what_a_run_does_not_know_is_asked_for(command, cifar_run):
    status, out, err = command("leaderboard", cifar_run[0], "--format", "robustbench", *FIELDS[2:])
    assert (status, out) == (2, "")
    assert "RobustBench also wants link, which the run does not know; give each as --field NAME=VALUE" in err


def test_published_rows_stand_below_the_board_without_rank(command, digits_run, theirs):
    _, alone, _ = command("leaderboard", digits_run)
    status, out, err = command("leaderboard", digits_run, "--robustbench", theirs)
    assert (status, err) == (0, "")
    board, heading, section = out.partition("## Published elsewhere, not measured here")
    assert heading not in alone
    assert RICE["name"] not in board
    (line,) = [line for line in section.splitlines() if RICE["name"] in line]
    assert [cell.strip() for cell in line.strip("| ").split("|")] == [
        RICE["name"],
        "cifar10",
        "Linf",
        "8/255",
        "ICML 2020",
        "https://arxiv.org/abs/2002.11569",
        "85.34",
        "53.42",
    ]


def test_published_rows_in_json_once_each(command, digits_run, theirs):
    file = theirs / "cifar10" / "Linf" / "Rice2020Overfitting.json"
    words = ("leaderboard", digits_run, "--robustbench", theirs, "--robustbench", file, "--format", "json")
    status, out, _ = command(*words)
    board = json.loads(out)
    (row,) = board["published"]
    assert (status, row["source"], row["measured_by"]) == (0, "Rice2020Overfitting", "autoattack")
    assert row["robust_accuracy"] == pytest.approx(0.5342)
    assert all(row["defense"] == "none" for group in board["groups"] for row in group["rows"])


def test_a_damaged_file_is_named(command, digits_run, theirs):
    file = theirs / "cifar10" / "Linf" / "Worse.json"
    file.write_text(json.dumps(RICE | {"autoattack_acc": "many"}))
    status, out, err = command("leaderboard", digits_run, "--robustbench", theirs)
    assert (status, out) == (2, "")
    assert f"{file} is not a row in RobustBench's format: autoattack_acc: expected a percentage" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("RUN", "RUN", "--format", "robustbench"), "prints one row of one run, got 2 runs"),
        (("RUN", "--format", "robustbench", "--robustbench", "x"), "got --robustbench, which adds rows to a board"),
        (("RUN", "--row", "none/deployed"), "--row and --field belong to --format robustbench, got --format markdown"),
        (("RUN", "--field", "venue=x", "--format", "json"), "belong to --format robustbench, got --format json"),
    ],
)
def test_words_that_do_not_go_together(command, tmp_path, words, sentence):
    status, out, err = command("leaderboard", *(tmp_path if word == "RUN" else word for word in words))
    assert (status, out) == (2, "")
    assert sentence in err


def test_help_lists_the_formats(command):
    status, out, _ = command("leaderboard", "--help")
    assert status == 0
    assert "robustbench" in out
    assert "--field" in out
