"""``dkd-bench lss`` from training to text: a number, no number, too few images, and what it remembers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dkd_bench.separation import latents
from dkd_bench.separation.records import SeparationReport

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def more_images(tmp_path):
    path = tmp_path / "more.npz"
    write_more_images(path)
    return f"npz:{path}"


def write_more_images(path):
    """Few digits to train on, and more test images than the latents have dimensions."""
    digits = load_digits()
    images, labels = np.round(digits.images * 15).astype(np.uint8), digits.target.astype(np.int64)
    np.savez(path, x_train=images[:200], y_train=labels[:200], x_test=images[200:500], y_test=labels[200:500])


LSS = ("lss", "--device", "cpu", "--defense", "dkd")
SEPARABLE = ("--set", "n_members=2", "--null-draws", "5")
"""Two members, whose latents a plane separates; over ten training seeds in ``benchmarks/training_seeds.py``."""


def test_members_that_separate_get_both_numbers_and_a_null(command, more_images):
    words = (*LSS, "--dataset", more_images, *SEPARABLE)
    status, out, _ = command(*words)
    assert status == 0
    assert "LSS raw | LSS scale-free | radius | null separable" in out
    assert "- dkd, member 2 against the others: raw " in out
    assert "do not compare raw numbers" in out
    status, out, _ = command(*words, "--format", "json")
    (found,) = json.loads(out)
    derived = {name: found.pop(name) for name in ("lss", "scaled_lss", "reason", "null_share_separable")}
    found.pop("null_quartiles")
    report = SeparationReport.model_validate(found)
    assert (status, report.n_examples, report.layer, len(report.null.margins)) == (0, 300, "latent", 5)
    assert derived["lss"] == report.separation.lss > 0
    assert derived["scaled_lss"] == pytest.approx(report.separation.lss / report.separation.members[0].rms_radius)
    assert derived["reason"] is None


def test_fewer_images_than_dimensions_are_said_to_be_too_few(command):
    status, out, _ = command(*LSS, "--dataset", "TINY", "--null-draws", "0")
    assert status == 0
    cells = [cell.strip() for cell in out.splitlines()[2].strip("|").split("|")]
    assert (cells[0], cells[3:8], cells[-1]) == ("dkd", ["3", "60", "64", "-", "-"], "-")
    assert "60 points on a side in 64 dimensions are too few" in out
    assert "null:" not in out


TWINS = """
from torch import nn
from dkd_bench.api import DefenseMeta, VotingEnsemble, build_network, train_network

class Twins(VotingEnsemble):
    meta = DefenseMeta(name="twins", title="One network twice")

    def __init__(self, images, settings=None):
        super().__init__(images, settings)
        self.networks = nn.ModuleList(build_network("small", images) for _ in range(2))

    @property
    def members(self):
        return self.networks

    def fit(self, data, *, recipe, generator, progress):
        train_network(self.networks[0], data, recipe=recipe, generator=generator)
        self.networks[1].load_state_dict(self.networks[0].state_dict())
"""


def test_members_that_overlap_have_a_training_error_and_no_number(command, tmp_path):
    plugin = tmp_path / "twins.py"
    plugin.write_text(TWINS)
    words = ("--defense", f"{plugin}:Twins", "--layer", "logits", "--null-draws", "3")
    status, out, _ = command("lss", "--dataset", "TINY", "--device", "cpu", *words)
    cells = [cell.strip() for cell in out.splitlines()[2].strip("|").split("|")]
    assert (status, cells[0], cells[6:8], cells[-3:]) == (0, "twins", ["-", "-"], ["0.0 %", "-", "-"])
    assert "- twins, member 2 against the others: no number: no plane separates the latents" in out
    assert "(training error " in out


def test_a_defence_that_fails_does_not_hide_the_others(command, tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text("raise OSError('no weights here')")
    status, out, err = command(*LSS, "--dataset", "TINY", "--defense", f"{plugin}:Mine", "--null-draws", "0")
    assert status == 3
    assert "| dkd " in out
    assert "no weights here" in err


def test_what_was_measured_is_found_again(command, monkeypatch, cache):
    words = (*LSS, "--dataset", "TINY", "--layer", "logits", "--n-examples", "50")
    others = set((cache / "separations").glob("*"))
    _, first, _ = command(*words)
    kept = sorted((cache / "separations").iterdir())
    monkeypatch.setattr(latents, "outputs_on", None)
    assert command(*words)[:2] == (0, first)
    assert sorted((cache / "separations").iterdir()) == kept
    for measured in set(kept) - others:
        measured.write_text("{}")
    status, _, err = command(*words)
    assert status == 3
    assert "is damaged" in err
    assert "delete it and run again" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--defense", "none"), "an ensemble of one has nothing to separate"),
        (("--defense", "dkd", "--layer", "latnet"), "member 1 of defence 'dkd': the network has no layer 'latnet'"),
        (("--defense", "dkd", "--n-examples", "61"), "--n-examples must be from 1 to 60"),
        (("--defense", "dkd", "--null-draws", "-1"), "--null-draws must be at least 0, got -1"),
        (("--defense", "dkdd"), "Did you mean 'dkd'?"),
        (("--defense", "dkd", "--format", "text"), "'text' is not one of"),
    ],
)
def test_wrong_words_get_one_sentence_and_status_2(command, words, sentence):
    status, out, err = command("lss", "--dataset", "TINY", "--device", "cpu", *words)
    assert (status, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


SILENT = """
import torch
from torch import nn
from dkd_bench.api import DefenseMeta, VotingEnsemble, train_network

class Bypassing(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.latent = nn.ReLU()
        self.logits = nn.Linear(values, 10)

    def forward(self, x):
        return self.logits(torch.relu(x.flatten(1)))

class Silent(VotingEnsemble):
    meta = DefenseMeta(name="silent", title="Has a latent layer and never uses it")

    def __init__(self, images, settings=None):
        super().__init__(images, settings)
        values = images.channels * images.height * images.width
        self.networks = nn.ModuleList(Bypassing(values) for _ in range(2))

    @property
    def members(self):
        return self.networks

    def fit(self, data, *, recipe, generator, progress):
        for network in self.networks:
            train_network(network, data, recipe=recipe, generator=generator)
"""


def test_an_unusable_latent_layer_costs_the_number_and_not_the_run(command, tmp_path):
    (tmp_path / "silent.py").write_text(SILENT)
    defense = f"{tmp_path / 'silent.py'}:Silent"
    words = ("--defense", defense, "--dataset", "TINY", "--device", "cpu")

    status, out, err = command("run", *words, "--attack", "fgsm", "--n-examples", 20, "--out", tmp_path / "run")
    assert status == 0
    assert "silent" in out
    assert "no LSS of silent: member 1 of defence 'silent': layer 'latent' must give one tensor" in err

    status, out, err = command("lss", *words)
    assert (status, out) == (2, "")
    assert "must give one tensor in each evaluation" in err


def test_single_networks_do_not_cost_the_ensembles_their_numbers(command):
    status, out, err = command(*LSS, "--defense", "none", "--dataset", "TINY", "--null-draws", "0")
    assert status == 2
    assert "| dkd " in out
    assert "defence 'none' has one member, and an ensemble of one has nothing to separate" in err


def test_wrong_words_are_refused_before_anything_is_trained(command):
    status, _, err = command(*LSS, "--dataset", "TINY", "--null-draws", -1, "--seed", 5)
    assert status == 2
    assert err == "dkd-bench: error: --null-draws must be at least 0, got -1\n"
