"""``dkd-bench probe`` from training to exit status: honest, masked, detecting, without surrogates, not admitted."""

from __future__ import annotations

import json

import pytest

from dkd_bench.records.flags import FLAGS

pytestmark = pytest.mark.usefixtures("cache")


PROBE = ("probe", "--dataset", "TINY", "--device", "cpu", "--eps", "0.1", "--n-examples", "20")

MASKED = """
import torch
from torch import nn
from dkd_bench.api import BPDA, Defense, DefenseMeta, build_network, train_network

class Step(nn.Module):
    def forward(self, x):
        return STEP

class Network(nn.Module):
    def __init__(self, images):
        super().__init__()
        self.step, self.network = Step(), build_network("small", images)

    def forward(self, x):
        return self.network(self.step(x))

class Masked(Defense):
    meta = DefenseMeta(name="masked", title="Masked", META)

    def __init__(self, images, settings=None):
        super().__init__(images, settings)
        self.whole = Network(images)

    @property
    def members(self):
        return [self.whole]

    def fit(self, data, *, recipe, generator, progress):
        train_network(self.whole.network, data, recipe=recipe, generator=generator)

    def predict(self, x, *, generator):
        return self.whole(x).argmax(dim=1)

class Adapted(Masked):
    def surrogates(self):
        return {"blind": self.whole, "bpda": BPDA(self.whole.step, self.whole.network)}
"""


@pytest.fixture
def masked(tmp_path):
    """Return a function that writes a defence with a step before its network, and returns how to name it."""

    def write(step, meta=""):
        path = tmp_path / "masked.py"
        path.write_text(MASKED.replace("STEP", step).replace("META", meta))
        return f"{path}:Masked"

    return write


def outcomes(out):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("|")]
    return {row[0]: row[1] for row in rows[2:]}


def test_an_honest_ensemble_raises_no_flag_and_says_what_was_looked_for(command):
    status, out, err = command(*PROBE, "--defense", "dkd")
    assert status == 0
    assert out.startswith("dkd on npz:")
    assert set(outcomes(out).values()) == {"ok"}
    assert outcomes(out).keys() <= FLAGS.keys()
    assert "fails the binarisation test" in outcomes(out)
    assert out.count("% of the planted examples found (95.0 % are required)") == 3
    assert "No flag." in out
    assert "binarisation test of pgd: 20/20" in err


def test_rounding_before_the_network_is_found_out_three_times(command, masked):
    status, out, _ = command(*PROBE, "--defense", masked("(x * 16).round() / 16"))
    raised = {flag for flag, outcome in outcomes(out).items() if outcome == "FLAG"}
    assert (status, raised) == (1, {"zero gradients", "unbounded attack fails", "fails the binarisation test"})
    assert "- zero gradients: no surrogate has a gradient on 16 of 16 clean images." in out
    assert "'dkd-bench explain FLAG' says what a flag means" in out


def test_the_surrogate_that_the_attack_does_best_on_counts(command, masked):
    adapted = masked("(x * 16).round() / 16").replace(":Masked", ":Adapted")
    status, out, _ = command(*PROBE, "--defense", adapted)
    assert (status, set(outcomes(out).values())) == (0, {"ok"})
    assert "Surrogate bpda: 100.0 % of the planted examples found" in out
    assert out.index("Surrogate bpda: ") < out.index("Surrogate blind: ")


def test_json_holds_every_check_with_its_number(command, masked):
    status, out, _ = command(*PROBE, "--defense", masked("(x * 16).round() / 16"), "--format", "json")
    found = json.loads(out)
    (test,) = (check for check in found["checks"] if check["flag"] == "fails the binarisation test")
    assert status == 1
    assert found["flags"] == ["zero gradients", "unbounded attack fails", "fails the binarisation test"]
    assert (found["defense"], found["attack"], found["n_images"]) == ("masked", "pgd", 20)
    assert found["budget"] == {"norm": "linf", "eps": 0.1}
    assert test["passed"] is False
    assert test["share"] < 0.95


def test_an_attack_too_weak_for_an_honest_network_raises_the_flag(command):
    weak = ("--set", "pgd.steps=1", "--set", "pgd.rel_stepsize=0.01")
    status, out, _ = command(*PROBE, "--defense", "none", *weak)
    raised = {flag for flag, outcome in outcomes(out).items() if outcome == "FLAG"}
    assert (status, raised) == (1, {"unbounded attack fails", "fails the binarisation test"})


def test_a_defence_without_surrogates_cannot_be_tested(command, masked):
    status, out, _ = command(*PROBE, "--defense", masked("(x * 16).round() / 16", "non_differentiable=True"))
    assert outcomes(out)["fails the binarisation test"] == outcomes(out)["zero gradients"] == "says nothing"
    assert "it has no surrogates to plant examples in." in out
    assert status == (1 if "FLAG" in outcomes(out).values() else 0)


def test_what_is_declared_is_not_looked_for(command, masked):
    noisy = masked("x + 0.05 * torch.randn_like(x)", "randomized=True")
    quick = ("--n-examples", "4", "--set", "pgd.steps=5")
    _, out, _ = command(*PROBE, *quick, "--defense", noisy)
    assert outcomes(out)["random without saying so"] == "says nothing"
    assert "- random without saying so: it says that it is random." in out


def test_a_defence_that_is_not_admitted_has_status_3_and_a_reason(command, masked):
    status, out, err = command(*PROBE, "--defense", masked("x * float('nan')"))
    assert (status, out) == (3, "")
    assert "returns logits that are not finite" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--defense", "none", "--norm", "l0"), "probe takes --norm linf or l2, got 'l0'"),
        (("--defense", "none", "--attack", "deepfool"), "attack 'deepfool' works in l2, not in linf"),
        (("--defense", "none", "--attack", "all"), "probe takes one --attack, got"),
        (("--defense", "nonee"), "Did you mean 'none'?"),
        (("--defense", "none", "--n-examples", "0"), "--n-examples must be at least 1, got 0"),
        (("--defense", "none", "--set", "stepz=3"), "no setting named 'stepz'"),
    ],
)
def test_wrong_words_get_one_sentence_and_status_2(command, words, sentence):
    status, out, err = command(*PROBE, *words)
    assert (status, out) == (2, "")
    assert sentence in err
