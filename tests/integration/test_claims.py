"""Evidence of strangers: claims that hold, claims that do not, and files that are no claims."""

from __future__ import annotations

import json
import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dkd_bench.cli import app
from dkd_bench.data import load_dataset, select_balanced
from dkd_bench.errors import ConfigError, DkdBenchError
from dkd_bench.pipeline import run
from dkd_bench.progress import SilentProgress
from dkd_bench.records.rundir import evidence_store
from dkd_bench.steps.request import RunRequest
from dkd_bench.verify import check_claim, read_claim

N = 40


@pytest.fixture(scope="module")
def made(warm_cache, tiny_npz, tmp_path_factory):
    """The joint FGSM images of a run, and what the run measured with them under each rule."""
    folder = tmp_path_factory.mktemp("made")
    words = {"defenses": ("dkd",), "attacks": ("fgsm",), "threat_models": ("joint",), "eps": (0.1,), "n_examples": N}
    with pytest.MonkeyPatch.context() as patch:
        shutil.copytree(warm_cache, folder / "cache")
        patch.setenv("DKD_BENCH_CACHE", str(folder / "cache"))
        record, _ = run(RunRequest(dataset=f"npz:{tiny_npz}", out=folder / "run", device="cpu", **words))
    cell = next(cell for cell in record.cells if cell.decision == "majority")
    best = min(cell.candidates, key=lambda candidate: candidate.robust_accuracy)
    key = cell.evidence[[candidate.name for candidate in cell.candidates].index(best.name)]
    return evidence_store(folder / "run").get(key)["adversarial"], best, cell.clean_accuracy


@pytest.fixture
def claim(made, cache, tiny_npz, tmp_path):
    """Write a claim; returns its file."""

    def write(*, tensor=None, leave_out=(), labels=None, **changes):
        tensors = {"adversarial": made[0] if tensor is None else tensor}
        if labels is not None:
            tensors["labels"] = labels
        # What other programs write into the header is not JSON, and no matter.
        save_file(tensors, tmp_path / "adv.safetensors", metadata={"format": "pt"})
        words = {
            "images": "adv.safetensors",
            "defense": "dkd",
            "dataset": f"npz:{tiny_npz}",
            "norm": "linf",
            "eps": 0.1,
            "robust_accuracy": made[1].robust_accuracy,
            "decision": "majority",
        }
        file = tmp_path / "adv.json"
        file.write_text(json.dumps({name: word for name, word in (words | changes).items() if name not in leave_out}))
        return file

    return write


@pytest.fixture
def truth(tiny_npz):
    """The clean images that a claim is about, and their labels."""
    test = load_dataset(f"npz:{tiny_npz}", root=None).test
    return test.batch(select_balanced(test.labels, n_examples=N, seed=0))


def checked(file, **words):
    return check_claim(file, device="cpu", data_root=None, progress=SilentProgress(), **words)


@pytest.fixture
def command(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["dkd-bench", "verify", *map(str, words), "--device", "cpu"])
        with pytest.raises(SystemExit) as leave:
            app.main()
        printed = capsys.readouterr()
        return int(leave.value.code or 0), printed.out, printed.err

    return call


def test_an_honest_claim_holds(claim, made, truth):
    report = checked(claim(labels=truth[1], n_examples=N))
    _, best, clean_accuracy = made
    assert report.findings == ()
    assert (report.n, report.claimed, report.measured) == (N, best.robust_accuracy, best.robust_accuracy)
    assert report.ci95 == pytest.approx(best.ci95)
    assert report.broken == round((clean_accuracy - best.robust_accuracy) * N)
    assert report.broken > 0
    assert abs(report.rounded - report.measured) <= 0.1


def test_clean_images_have_clean_accuracy(claim, made, truth):
    report = checked(claim(tensor=truth[0], robust_accuracy=made[2]))
    assert (report.findings, report.broken) == ((), 0)


def test_one_image_more_than_measured_is_found(claim, made):
    claimed = made[1].robust_accuracy + 1 / N
    (finding,) = checked(claim(robust_accuracy=claimed)).findings
    assert finding == (
        f"robust accuracy is claimed as {claimed:.6g}, measured it is {made[1].robust_accuracy:.6g} (40 images)"
    )
    # A number that was rounded to whole percent is the same number: half an image is 1.25 points.
    assert checked(claim(robust_accuracy=round(made[1].robust_accuracy, 2))).findings == ()


def test_images_over_budget_are_named_and_not_scored(claim, truth):
    images = truth[0].clone()
    for image in (7, 9):
        pixel = images[image, 0, 0, 0]
        images[image, 0, 0, 0] = pixel + (0.1001 if pixel < 0.5 else -0.1001)
    report = checked(claim(tensor=images))
    (finding,) = report.findings
    assert "image 7 must be within linf 0.1 of the clean one (tolerance 1e-05), is 0.1001 away" in finding
    assert "(2 such images)" in finding
    assert report.measured is None
    assert report.summary.endswith("not measured, since the images are not what they claim to be")
    assert checked(claim(tensor=images, eps=None)).measured is not None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda images: images.index_fill(0, torch.tensor([5]), float("inf")),
            "image 5 has values that are not finite",
        ),
        (lambda images: images.index_fill(0, torch.tensor([5]), -0.01), "image 5 must have pixels in [0, 1]"),
        (lambda images: images.flip(0), "must be within linf 0.1 of the clean one"),
    ],
)
def test_images_that_are_none_of_this_task_are_findings(claim, made, change, sentence):
    (finding,) = checked(claim(tensor=change(made[0]).contiguous())).findings
    assert sentence in finding


def test_labels_tell_of_another_order(claim, truth):
    labels = truth[1].clone()
    labels[4] += 1
    (finding,) = checked(claim(labels=labels)).findings
    assert "the labels are not those of the images from image 4 on; the order is another" in finding
    (finding,) = checked(claim(labels=truth[1][:-1])).findings
    assert "from image 39 on" in finding


def test_fewer_images_begin_the_same_order(claim, made):
    report = checked(claim(tensor=made[0][:10].contiguous(), robust_accuracy=0.0))
    assert report.n == 10
    assert report.measured is not None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"leave_out": ("norm",)}, "adv.json is not a claim: norm: Field required"),
        ({"author": "me"}, "adv.json is not a claim: author: Extra inputs are not permitted"),
        ({"robust_accuracy": 47.1}, r"robust_accuracy must be a fraction in \[0, 1\], got 47.1; did you mean 0.471\?"),
        ({"robust_accuracy": -0.1}, "robust_accuracy: Input should be greater than or equal to 0"),
        ({"robust_accuracy": float("nan")}, "robust_accuracy: Input should be"),
        ({"robust_accuracy": "0.5"}, "robust_accuracy: Input should be a valid number"),
        ({"norm": "l1"}, "norm: Input should be 'linf', 'l2' or 'l0'"),
        ({"eps": 8}, r"linf eps must be in \(0, 1\]"),
        ({"n_examples": 41}, "expected 41 images, as the claim's n_examples says, got 40"),
        ({"seed": -1}, "seed must be from 0"),
        ({"images": "gone.safetensors"}, "no images at .*gone.safetensors"),
        ({"defense": "dkdd"}, "no defence named 'dkdd'. Did you mean 'dkd'"),
        ({"decision": "boasted"}, "no decision rule named 'boasted'. Did you mean 'boosted'"),
        ({"leave_out": ("decision",)}, "dkd has the decision rules .*; name one as 'decision'"),
        ({"recipe": "slow"}, "recipe"),
        ({"settings": ["nonsense=1"]}, "no setting named 'nonsense'"),
        ({"images": "."}, "no images at"),
    ],
)
def test_words_that_make_no_claim(claim, change, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        checked(claim(**change))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (
            torch.rand(N, 1, 28, 28),
            r"expected float32 images of shape \(N, 1, 8, 8\), .* got float32 \(40, 1, 28, 28\)",
        ),
        (torch.rand(N, 64), r"got float32 \(40, 64\)"),
        (torch.zeros(N, 1, 8, 8, dtype=torch.uint8), r"got uint8 \(40, 1, 8, 8\)"),
        (torch.rand(61, 1, 8, 8), "expected from 1 to 60 images, the test images of .*, got 61"),
        (torch.rand(0, 1, 8, 8), "expected from 1 to 60 images"),
    ],
)
def test_images_of_another_form(claim, images, sentence):
    with pytest.raises(ConfigError, match=sentence):
        checked(claim(tensor=images))


class Bomb:
    def __reduce__(self):
        return (exec, ("raise RuntimeError('a claim was unpickled')",))


@pytest.mark.parametrize("form", ["pickle", "torch", "npz", "text", "truncated", "empty"])
def test_nothing_but_safetensors_is_opened(claim, tmp_path, form):
    file = claim()
    whole = (tmp_path / "adv.safetensors").read_bytes()
    with (tmp_path / "adv.safetensors").open("wb") as stream:
        if form == "pickle":
            pickle.dump(Bomb(), stream)
        elif form == "torch":
            torch.save({"adversarial": torch.rand(N, 1, 8, 8)}, stream)
        elif form == "npz":
            np.savez(stream, adversarial=np.zeros((N, 1, 8, 8), dtype=np.float32))
        else:
            stream.write({"text": b"not images at all", "truncated": whole[:-100], "empty": b""}[form])
    with pytest.raises(ConfigError, match=r"is not a whole safetensors file .* a pickle can run what it likes"):
        checked(file)


def test_the_tensor_must_have_its_name(claim, tmp_path, made):
    file = claim()
    save_file({"x_adv": made[0]}, tmp_path / "adv.safetensors")
    with pytest.raises(ConfigError, match="should have a tensor 'adversarial', has x_adv; rename it"):
        checked(file)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"images": 3}', "\x00"])
def test_json_that_is_no_claim(tmp_path, text):
    file = tmp_path / "c.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.json is not a claim: "):
        read_claim(file)


def test_the_images_find_the_json_beside_them(claim, tmp_path):
    file = claim()
    assert read_claim(tmp_path / "adv.safetensors") == read_claim(file)
    (tmp_path / "other.json").write_text(file.read_text())
    (tmp_path / "other.safetensors").write_bytes((tmp_path / "adv.safetensors").read_bytes())
    with pytest.raises(ConfigError, match=r"is a claim about .*adv\.safetensors, not about .*other\.safetensors"):
        read_claim(tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="no claim at"):
        read_claim(tmp_path / "gone.safetensors")


def test_a_defence_from_a_file_that_is_not_there(claim, tmp_path):
    with pytest.raises(DkdBenchError, match=r"gone\.py"):
        checked(claim(decision="deployed"), defense=f"{tmp_path / 'gone.py'}:Mine")


TRAP = """
from pathlib import Path
Path(__file__).with_name("sprung").touch()
from dkd_baselines.undefended import Undefended as Mine
"""


@pytest.fixture
def trap(tmp_path):
    """A defence whose file leaves a trace where it is run."""
    file = tmp_path / "trap.py"
    file.write_text(TRAP)
    return file


@pytest.mark.parametrize("form", ["{}:Mine", "{}", "torch:trap:Mine", "trap.py:Mine"])
def test_a_claim_runs_no_code_of_its_own(claim, trap, monkeypatch, form):
    monkeypatch.chdir(trap.parent)
    monkeypatch.syspath_prepend(trap.parent)
    with pytest.raises(ConfigError, match=r"a claim's own code is not run: if you trust it, name it .* defense"):
        checked(claim(defense=form.format(trap)))
    assert not trap.with_name("sprung").exists()


def test_a_claims_dataset_is_no_code_either(claim, trap):
    with pytest.raises(ConfigError, match=r"the dataset must be an installed one.*a claim's own code is not run"):
        checked(claim(dataset=f"{trap}:Mine"), defense="dkd")
    assert not trap.with_name("sprung").exists()


def test_the_user_may_name_the_defence(claim, trap, made, command):
    file = claim(defense="gone.py:Other", leave_out=("decision",))
    status, out, _ = command("--claim", file, "--defense", f"{trap}:Mine")
    assert trap.with_name("sprung").exists()
    assert out.startswith(f"claimed robust accuracy {100 * made[1].robust_accuracy:.2f} % of 40 images, measured ")
    assert status == int("does not hold" in out)
    status, out, _ = command("--claim", claim(defense="gone.py:Other"), "--defense", "dkd")
    assert (status, out.endswith("the claim holds\n")) == (0, True)


def test_a_claim_is_about_one_defence(claim):
    with pytest.raises(ConfigError, match="no defence named 'all'"):
        checked(claim(defense="all"))
    with pytest.raises(ConfigError, match="a claim is about one defence; name it with defense"):
        checked(claim(), defense="all")


def test_the_command_prints_claimed_and_measured(claim, made, command):
    measured = 100 * made[1].robust_accuracy
    status, out, err = command("--claim", claim())
    assert status == 0
    assert out.startswith(f"claimed robust accuracy {measured:.2f} % of 40 images, measured {measured:.2f} % [")
    assert "after 8-bit rounding" in out
    assert out.endswith("images broken: the claim holds\n")
    assert "error" not in err
    status, out, err = command("--claim", claim(robust_accuracy=1.0), "--format", "json")
    assert status == 1
    assert "dkd-bench: error: robust accuracy is claimed as 1, measured it is" in err
    assert json.loads(out)["measured"] == made[1].robust_accuracy
    status, _, err = command("--claim", claim(tensor=torch.rand(3, 3)))
    assert status == 2
    assert err.count("\n") == 1
