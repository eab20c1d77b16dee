from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from dkd_bench.data import load_dataset, select_balanced
from dkd_bench.errors import AttackError, ConfigError, DatasetError, StoreError
from dkd_bench.leaderboard import rank_runs
from dkd_bench.pipeline import run
from dkd_bench.progress import SilentProgress
from dkd_bench.records import Outcome
from dkd_bench.records.flags import MORE_STEPS, NOISE, PROBABILITIES, SINGLE_STEP, UNBOUNDED, UNVERIFIED
from dkd_bench.records.rundir import LoadedRun, load_run, load_with_doubt
from dkd_bench.records.statistics import wilson_interval
from dkd_bench.steps.request import RunRequest
from dkd_bench.steps.save import save_run
from dkd_bench.store.digests import digest_tensors
from dkd_bench.store.files import TensorStore
from dkd_bench.verify import _keep as keep
from dkd_bench.verify import audit


@pytest.fixture(scope="module")
def honest_run(warm_cache, tiny_npz, tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest")
    shutil.copytree(warm_cache, folder / "cache")
    words = {"defenses": ("dkd",), "attacks": ("fgsm", "deepfool"), "eps": (0.1,), "n_examples": 40}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DKD_BENCH_CACHE", str(folder / "cache"))
        run(RunRequest(dataset=f"npz:{tiny_npz}", out=folder / "run", device="cpu", **words))
    return folder / "run"


@pytest.fixture
def run_folder(honest_run, cache, tmp_path):
    """A copy of one run, to tamper with."""
    return Path(shutil.copytree(honest_run, tmp_path / "run"))


def audited(folder: Path):
    return audit(folder, device="cpu", data_root=None, progress=SilentProgress())


def edit_results(folder: Path, change) -> None:
    file = folder / "results.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def joint_fgsm(record):
    """The first cell of the joint FGSM that fooled the defence: not every image lost its majority alone."""
    cells = [c for c in record["cells"] if (c["threat_model"], c["attack"]) == ("joint", "fgsm")]
    return next(c for c in cells if "fooled" in c["outcomes"])


def plant(folder: Path, images, *, key=None) -> str:
    """Replace the images of an FGSM craft by ``images(old)``, with file and record agreeing on the new digest."""
    store = TensorStore(folder / "evidence")
    key = key or joint_fgsm(json.loads((folder / "results.json").read_text()))["evidence"][0]
    tensors, metadata = store.get_with_metadata(key)
    changed = {"adversarial": images(tensors["adversarial"].clone())}
    (folder / "evidence" / f"{key}.safetensors").unlink()
    store.put(key, changed, {name: value for name, value in metadata.items() if name != "sha256"})
    edit_results(folder, lambda record: record["evidence"][key].update(sha256=digest_tensors(changed)))
    return key


def test_honest_run_verifies_in_every_cell(run_folder):
    report = audited(run_folder)
    assert report.findings == ()
    # Four threat models, two attacks, two rules.
    assert report.summary.startswith("re-scored 16 of 16 cells, 640 images")
    assert (report.checked.evidence, report.checked.evidence_made_again, report.checked.evidence_in_part) == (
        len(load_run(run_folder).evidence),
        0,
        0,
    )
    assert report.results_sha256 == sha256((run_folder / "results.json").read_bytes()).hexdigest()


def test_tampered_pixel_is_found_although_the_file_states_its_own_digest(run_folder):
    store = TensorStore(run_folder / "evidence")
    key = next((run_folder / "evidence").iterdir()).stem
    tensors, metadata = store.get_with_metadata(key)
    changed = tensors["adversarial"].clone()
    changed[0, 0, 0, 0] = 0.5 if changed[0, 0, 0, 0] != 0.5 else 0.25
    (run_folder / "evidence" / f"{key}.safetensors").unlink()
    store.put(key, {"adversarial": changed}, {n: v for n, v in metadata.items() if n != "sha256"})
    findings = audited(run_folder).findings
    assert len(findings) == 1
    assert f"evidence {key}" in findings[0]
    assert "the images are not the run's" in findings[0]


def test_damaged_file_is_found(run_folder):
    file = next((run_folder / "evidence").iterdir())
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.unlink()
    file.write_bytes(data)
    assert any("should have digest" in finding for finding in audited(run_folder).findings)


def test_changed_outcome_is_found_and_named(run_folder):
    def lie(record):
        outcomes = joint_fgsm(record)["outcomes"]
        outcomes[outcomes.index("fooled")] = "robust"

    before = json.loads((run_folder / "results.json").read_text())
    image = joint_fgsm(before)["outcomes"].index("fooled")
    number = before["manifest"]["dataset"]["indices"][image]
    edit_results(run_folder, lie)
    findings = audited(run_folder).findings
    told = f"image {image} (number {number} of the test set) is recorded as robust, re-scored it is fooled (one image"
    assert any(told in finding for finding in findings)
    assert any("robust accuracy is recorded as" in finding for finding in findings)


def _other_word(record):
    outcomes = joint_fgsm(record)["outcomes"]
    outcomes[outcomes.index("fooled")] = "failed_majority"


def _evidence_of(record):
    return next(iter(record["evidence"].values()))


def _swap(values):
    values[0], values[1] = values[1], values[0]


DETECTOR = {
    "detector": "distance",
    "candidate": "reference",
    "n_clean": 40,
    "n_adversarial": 40,
    "false_positive_rate": 0.0,
    "true_positive_rate": 1.0,
    "auc": 1.0,
    "roc": [[0.0, 1.0]],
}
"""Of a defence that has none."""

LIES = {
    "headline": (
        lambda record: record["cells"][0].update(robust_accuracy=0.975),
        "robust accuracy is recorded as 0.975, its outcomes count",
    ),
    "word that survives no more": (_other_word, "is recorded as failed_majority, re-scored it is fooled"),
    "interval": (lambda record: record["cells"][0].update(ci95=[0.9, 0.99]), "the interval is recorded as [0.9, 0.99]"),
    "mean": (
        lambda record: record["cells"][0].update(mean_robust_accuracy=0.9875),
        "mean robust accuracy is recorded as 0.9875",
    ),
    "failed majorities": (
        lambda record: record["cells"][0].update(failed_majorities=39),
        "39 failed majorities are recorded, re-scored there are",
    ),
    "rejected": (
        lambda record: record["cells"][0].update(abstained=7),
        "7 rejected images are recorded, re-scored there are 0",
    ),
    "candidate": (
        lambda record: record["cells"][0]["candidates"][0].update(robust_accuracy=0.0125),
        "robust accuracy under candidate 'reference' is recorded as 0.0125",
    ),
    "candidate's count": (
        lambda record: record["cells"][0]["candidates"][0].update(abstained=7),
        "candidate 'reference': 7 rejected images are recorded, there are 0",
    ),
    "candidate's name": (
        lambda record: record["cells"][0]["candidates"][0].update(name="ours"),
        "the record has the candidates ours, the threat model makes reference",
    ),
    "clean accuracy of a cell": (
        lambda record: record["cells"][0].update(clean_accuracy=0.9875),
        "clean accuracy is recorded as 0.9875, the manifest says otherwise",
    ),
    "clean accuracy of a defence": (
        lambda record: record["manifest"]["defenses"]["dkd"]["clean_accuracy"]["majority"].update(value=0.0125),
        "clean accuracy of 'dkd' (majority) is recorded as 0.0125, here it is",
    ),
    "one outcome less": (lambda record: record["cells"][0]["outcomes"].pop(), "the record has 39"),
    "n": (lambda record: record["cells"][0].update(n=41), "the record has 40 and n = 41"),
    "weights digest": (
        lambda record: record["manifest"]["defenses"]["dkd"].update(weights_sha256="0" * 64),
        "weights digest of 'dkd'",
    ),
    "declared": (
        lambda record: record["manifest"]["defenses"]["dkd"].update(abstains=True),
        "'abstains' of 'dkd': the record says True, here it is False",
    ),
    "dataset digest": (lambda record: record["manifest"]["dataset"].update(digest="0" * 64), "dataset digest"),
    "order": (lambda record: _swap(record["manifest"]["dataset"]["indices"]), "positions of the images"),
    "seed": (lambda record: record["manifest"].update(seed=1), "seeds and recipe: the record says (1, None, 'fast')"),
    "attacks": (lambda record: record.update(suite_fingerprint="0" * 64), "fingerprint of the attacks"),
    "evidence digest": (lambda record: _evidence_of(record).update(sha256="0" * 64), "expected digest 000000"),
    "evidence count": (lambda record: _evidence_of(record).update(n=39), "number of images of evidence"),
    "evidence target": (
        lambda record: _evidence_of(record).update(target="ours"),
        "target, attack, budget and chunk of evidence",
    ),
    "evidence of no cell": (
        lambda record: record["evidence"].update({"0" * 64: dict(_evidence_of(record))}),
        f"evidence {'0' * 64} (fgsm on reference) is in the record, and no cell uses it",
    ),
    "other evidence in a cell": (
        lambda record: record["cells"][0].update(evidence=record["cells"][-1]["evidence"]),
        "is none of this cell's",
    ),
    "less evidence in a cell": (
        lambda record: joint_fgsm(record)["evidence"].pop(),
        "the evidence is not all that the plan wants",
    ),
    "missing cell": (
        lambda record: record["cells"].pop(0),
        "dkd majority, black-box, fgsm linf 0.1: the plan wants this cell, the record does not have it",
    ),
    "cell twice": (
        lambda record: record["cells"].append(record["cells"][0]),
        "dkd majority, black-box, fgsm linf 0.1: the record has this cell 2 times",
    ),
    "cell of another attack": (lambda record: record["cells"][0].update(attack="pgd"), "the plan has no such cell"),
    "cell left out": (
        lambda record: record["cells"][0].update(status="not_run"),
        "it is not_run in a record that says it is complete",
    ),
    "parameter in the suite": (
        lambda record: record["suite"]["attacks"][0].update(parameters={"steps": 1000}),
        "'parameters' of attack 'fgsm' in the suite: the record says {'steps': 1000}, here it is ",
    ),
    "attack in the suite": (
        lambda record: record["suite"]["attacks"].pop(),
        "attacks of the suite: the record says ['fgsm'], here it is ['fgsm', 'deepfool']",
    ),
    "draws in the suite": (
        lambda record: record["suite"].update(eot_draws=99),
        "'eot_draws' of the suite: the record says 99, here it is 16",
    ),
    "title": (
        lambda record: record["manifest"]["defenses"]["dkd"].update(title="Unbreakable"),
        "'title' of 'dkd': the record says Unbreakable, here it is",
    ),
    "settings": (
        lambda record: record["manifest"]["defenses"]["dkd"]["settings"].update(spell=3),
        "'spell' of the settings of 'dkd': the record says 3, here it is nothing",
    ),
    "reason": (
        lambda record: record["cells"][0].update(reason="the referee was late"),
        "it has a number, and a reason why there is none: the referee was late",
    ),
    "distances within a budget": (
        lambda record: joint_fgsm(record).update(fooling_distances=[0.01] * 40),
        "joint, fgsm linf 0.1: it is within a budget, and has fooling distances",
    ),
    "detectors": (
        lambda record: record["cells"][0].update(detectors=[DETECTOR]),
        "it has detectors, and the defence never rejects an image",
    ),
    "broken on the target": (
        lambda record: _evidence_of(record).update(broken=41),
        "41 images are recorded as broken on the target itself, here it is",
    ),
    "draws": (
        lambda record: record["cells"][0].update(survival=[1.0] * 40),
        "expected no shares of draws survived, the record has 40",
    ),
}


@pytest.mark.parametrize(("lie", "sentence"), LIES.values(), ids=LIES.keys())
def test_a_lie_in_the_record_is_found_and_named(run_folder, lie, sentence):
    edit_results(run_folder, lie)
    findings = audited(run_folder).findings
    assert any(sentence in finding for finding in findings), findings


def test_an_interrupted_run_verifies_as_far_as_it_went(run_folder):
    nothing = dict.fromkeys(
        ("robust_accuracy", "mean_robust_accuracy", "ci95", "failed_majorities", "abstained", "fooling_norms")
    )
    empty = {
        "status": "not_run",
        "outcomes": [],
        "candidates": [],
        "evidence": [],
        "fooling_distances": [],
        "flags": [],
    }

    def interrupt(record):
        record["complete"] = False
        for cell in record["cells"]:
            if (cell["threat_model"], cell["attack"]) == ("joint", "deepfool"):
                cell.update(empty | nothing)

    edit_results(run_folder, interrupt)
    report = audited(run_folder)
    assert report.findings == ()
    assert report.summary.startswith("re-scored 14 of 16 cells")


def test_a_norm_without_budget_that_was_changed_is_found(run_folder):
    def lie(record):
        cell = next(c for c in record["cells"] if c["eps"] is None and any(c["fooling_distances"]))
        position = next(i for i, norm in enumerate(cell["fooling_distances"]) if norm)
        cell["fooling_distances"][position] *= 2
        cell["fooling_norms"]["median"] *= 2

    edit_results(run_folder, lie)
    findings = audited(run_folder).findings
    assert any("is recorded as lost at norm" in finding for finding in findings)
    assert any("quartiles of the norms" in finding for finding in findings)


def test_a_changed_label_is_found(cache, tiny_npz, tmp_path):
    dataset = shutil.copy(tiny_npz, tmp_path / "mine.npz")
    words = {"attacks": ("fgsm",), "threat_models": ("black-box",), "eps": (0.1,), "n_examples": 10}
    run(RunRequest(defenses=("none",), dataset=f"npz:{dataset}", out=tmp_path / "run", device="cpu", **words))
    assert audited(tmp_path / "run").findings == ()
    arrays = dict(np.load(dataset))
    arrays["y_test"][0] = (arrays["y_test"][0] + 1) % 10
    np.savez(dataset, **arrays)
    assert any("dataset digest" in finding for finding in audited(tmp_path / "run").findings)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        pytest.param(lambda old: (old + 0.2).clamp(0, 1), "must be within linf 0.1 of the clean one", id="budget"),
        pytest.param(lambda old: old.index_fill(0, torch.tensor([3]), 1.5), "image 3 must have pixels in", id="box"),
        pytest.param(
            lambda old: old.index_fill(0, torch.tensor([3]), float("nan")),
            "image 3 has values that are not finite",
            id="finite",
        ),
        pytest.param(lambda old: old[:-1], "expected float32 images of shape (40, 1, 8, 8)", id="count"),
        pytest.param(lambda old: old.double(), "got float64 (40, 1, 8, 8)", id="type"),
        pytest.param(
            lambda old: old[[1, 0, *range(2, 40)]],
            "it is that near to clean image 1: the order is wrong (2 such images)",
            id="order",
        ),
    ],
)
def test_planted_images_are_found_whatever_the_runs_own_checks_say(run_folder, monkeypatch, images, sentence):
    for module in ("budget", "steps.crafter", "steps.scoring"):
        monkeypatch.setattr(f"dkd_bench.{module}.check_images", lambda *_, **__: None)
    key = plant(run_folder, images)
    findings = audited(run_folder).findings
    assert any(f"evidence {key}" in finding and sentence in finding for finding in findings), findings


def test_a_tenth_of_a_thousandth_over_budget_is_found(run_folder, tiny_npz):
    dataset = load_dataset(f"npz:{tiny_npz}", root=None)
    (first,) = select_balanced(dataset.test.labels, n_examples=1, seed=0)
    clean = dataset.test.batch(torch.tensor([first]))[0][0]

    def further(old):
        old[0, 0, 0, 0] = clean[0, 0, 0] + (0.1001 if clean[0, 0, 0] < 0.5 else -0.1001)
        return old

    key = plant(run_folder, further)
    told = "image 0 must be within linf 0.1 of the clean one (tolerance 1e-05), is 0.1001 away"
    assert any(f"evidence {key}" in finding and told in finding for finding in audited(run_folder).findings)


def test_a_wrong_norm_does_not_confirm_itself(bench, tmp_path, monkeypatch):
    for module in ("budget", "steps.scoring", "threats._base"):
        monkeypatch.setattr(
            f"dkd_bench.{module}.perturbation_norms", lambda clean, *_: torch.zeros(len(clean), dtype=torch.float64)
        )
    bench(attacks=("deepfool",), threat_models=("joint",), norm="l2", eps=(0.05,))
    findings = audited(tmp_path / "run").findings
    assert any("candidate" in finding and "must be within l2 0.05 of the clean one" in finding for finding in findings)


@pytest.mark.parametrize(
    ("broken", "wrong", "sentence"),
    [
        pytest.param(
            "steps.scoring._outcome", lambda *_, **__: Outcome.ROBUST, "recorded as robust, re-scored it", id="word"
        ),
        pytest.param(
            "records.statistics.wilson_interval", lambda *_: (0.0, 1.0), "the interval is recorded as [0, 1]", id="ci"
        ),
        pytest.param(
            "steps.scoring._count_any",
            lambda columns: 39,
            "39 failed majorities are recorded, re-scored there are",
            id="count",
        ),
        pytest.param(
            "steps.scoring.worst_of",
            lambda several: several[-1],
            "robust accuracy is recorded as",
            id="worst",
        ),
    ],
)
def test_wrong_scoring_does_not_confirm_itself(bench, tmp_path, monkeypatch, broken, wrong, sentence):
    monkeypatch.setattr(f"dkd_bench.{broken}", wrong)
    bench(attacks=("fgsm",), threat_models=("standalone",))
    findings = audited(tmp_path / "run").findings
    assert any(sentence in finding for finding in findings), findings


NOISY = """
import torch
from torch import nn
from dkd_bench.api import Defense, DefenseMeta, build_network, train_network


class Noise(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((x + 0.1 * torch.randn_like(x)).clamp(0, 1))


class Noisy(Defense):
    meta = DefenseMeta(name="noisy", title="Noisy", randomized=True)

    def __init__(self, images, settings=None):
        super().__init__(images, settings)
        self.net = build_network("auto", images)

    @property
    def members(self):
        return [self.net]

    def fit(self, data, *, recipe, generator, progress):
        train_network(self.net, data, recipe=recipe, generator=generator, progress=progress)

    def predict(self, x, *, generator):
        return self.net((x + 0.1 * torch.randn(x.shape, generator=generator)).clamp(0, 1)).argmax(dim=1)

    def surrogates(self):
        return {"noisy": Noise(self.net)}
"""


def test_a_randomised_defence_holds_on_fresh_draws_and_a_lie_does_not(bench, tmp_path):
    (tmp_path / "noisy.py").write_text(NOISY)
    bench(defenses=(f"{tmp_path / 'noisy.py'}:Noisy",), attacks=("fgsm",), threat_models=("joint",))
    assert audited(tmp_path / "run").findings == ()

    def flatter(record):
        (cell,) = record["cells"]
        cell["survival"] = [1.0] * 40
        cell["outcomes"] = ["robust"] * 40
        low, high = wilson_interval(40, 40)
        whole = {"robust_accuracy": 1.0, "ci95": [low, high]}
        cell.update(whole, mean_robust_accuracy=1.0)
        cell["candidates"][0].update(whole)

    edit_results(tmp_path / "run", flatter)
    findings = audited(tmp_path / "run").findings
    assert any("robust accuracy is recorded as 1, on fresh draws it is" in finding for finding in findings)
    assert any("is recorded to survive 100% of the draws, of fresh ones" in finding for finding in findings)
    edit_results(tmp_path / "run", lambda record: record["cells"][0].update(outcomes=["fooled"] * 40))
    told = "image 0 is recorded as fooled, and to survive 100% of the draws"
    assert any(told in finding for finding in audited(tmp_path / "run").findings)


def test_a_flag_that_was_left_out_is_found(bench, tmp_path):
    (tmp_path / "naive.py").write_text(NOISY.replace("randomized=True", "abstains=True").replace("0.1 *", "0.0 *"))
    bench(defenses=(f"{tmp_path / 'naive.py'}:Noisy",), attacks=("fgsm",), threat_models=("joint",))
    assert audited(tmp_path / "run").findings == ()
    edit_results(tmp_path / "run", lambda record: record["manifest"]["defenses"]["noisy"].update(flags=[]))
    (finding,) = audited(tmp_path / "run").findings
    assert finding == (
        "the flag 'not adaptively evaluated' of defence 'noisy' is raised here, the record leaves it out"
    )


def test_a_flag_of_a_cell_that_was_left_out_is_found(bench, tmp_path):
    plugin = tmp_path / "hard.py"
    hard = NOISY.replace("randomized=True", "non_differentiable=True").replace("0.1 *", "0.0 *")
    plugin.write_text(hard[: hard.index("    def surrogates")])
    bench(defenses=(f"{plugin}:Noisy",), attacks=("fgsm",), threat_models=("joint",))
    assert audited(tmp_path / "run").findings == ()
    edit_results(tmp_path / "run", lambda record: record["cells"][0].update(flags=[]))
    assert any("could be run, and no flag says so" in finding for finding in audited(tmp_path / "run").findings)


SLOW_PGD = ("pgd.random_start=false", "pgd.steps=1")


@pytest.mark.parametrize(
    ("words", "flag", "sentence"),
    [
        pytest.param(
            {"attacks": ("pgd",), "settings": (*SLOW_PGD, "pgd.rel_stepsize=0.3")},
            MORE_STEPS,
            "none deployed, joint, pgd linf 0.1: challenges raise the flag 'more steps still help', "
            "the record leaves it out: ",
            id="challenge",
        ),
        pytest.param(
            {"attacks": ("pgd",), "settings": (*SLOW_PGD, "pgd.rel_stepsize=0.01"), "eps": (0.2,)},
            NOISE,
            "none deployed, joint, pgd linf 0.2: challenges raise the flag 'noise beats the attack', "
            "the record leaves it out: ",
            id="noise",
        ),
        pytest.param(
            {"attacks": ("pgd",), "settings": (*SLOW_PGD, "pgd.rel_stepsize=0.01"), "eps": (0.2,)},
            UNBOUNDED,
            "challenges of defence 'none' raise a flag here, the record leaves out 'unbounded attack fails': ",
            id="whole box",
        ),
        pytest.param(
            {"attacks": ("pgd", "fgsm"), "settings": (*SLOW_PGD, "pgd.rel_stepsize=0.1")},
            SINGLE_STEP,
            "none deployed, joint, pgd linf 0.1: its numbers raise the flag 'single step beats iterative', "
            "the record leaves it out",
            id="diagnosis",
        ),
        pytest.param(
            {"attacks": ("fgsm",), "defenses": ("sure.py:Noisy",)},
            PROBABILITIES,
            "the flag 'probabilities instead of logits' of defence 'noisy' is raised here, the record leaves it out",
            id="probe",
        ),
    ],
)
def test_a_flag_that_was_taken_out_by_hand_is_found(bench, tmp_path, monkeypatch, words, flag, sentence):
    monkeypatch.chdir(tmp_path)
    sure = NOISY.replace("randomized=True", "").replace("0.1 *", "0.0 *")
    (tmp_path / "sure.py").write_text(sure.replace("Noise(self.net)", "nn.Sequential(self.net, nn.Softmax(dim=1))"))
    bench(**({"defenses": ("none",), "threat_models": ("joint",)} | words))
    assert audited(tmp_path / "run").findings == ()

    def take_out(record):
        for each in (*record["cells"], *record["manifest"]["defenses"].values()):
            each["flags"] = [raised for raised in each["flags"] if raised["name"] != flag]

    edit_results(tmp_path / "run", take_out)
    (finding,) = audited(tmp_path / "run").findings
    assert finding.startswith(sentence)


def test_challenges_that_fail_here_and_not_in_the_record_are_found(bench, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AttackError("no noise today")

    bench(defenses=("none",), attacks=("fgsm",), threat_models=("joint",))
    monkeypatch.setattr("dkd_bench.doubts.challenges.noise_within", fail)
    (finding,) = audited(tmp_path / "run").findings
    assert finding == (
        "challenges of defence 'none' cannot be carried out here, the record leaves out 'attack error': "
        "when it was challenged: no noise today"
    )
    # An interrupted run may have had no challenges.
    edit_results(tmp_path / "run", lambda record: record.update(complete=False))
    assert audited(tmp_path / "run").findings == ()


def test_evidence_that_was_not_kept_is_made_again(bench, tmp_path):
    bench(attacks=("fgsm",), evidence="none")
    report = audited(tmp_path / "run")
    assert report.findings == ()
    assert "re-scored 8 of 8 cells, 320 images" in report.summary
    assert report.checked.evidence_made_again == report.checked.evidence > 1
    told = f"{report.checked.evidence} pieces of evidence were not in the run and were made again from their keys"
    assert report.summary.endswith(f"all of it as recorded; {told}")


def test_of_broken_evidence_the_broken_images_are_scored(bench, tmp_path):
    record = bench(attacks=("fgsm",), evidence="broken")
    report = audited(tmp_path / "run")
    assert report.findings == ()
    broken = sum(outcome.value in ("fooled", "failed_majority") for cell in record.cells for outcome in cell.outcomes)
    compared = int(report.summary.split(", ")[1].split()[0])
    assert broken <= compared < 320
    assert report.checked.evidence_in_part > 0
    told = f"{320 - compared} of 320 outcomes could not be checked, since only broken images were kept"
    assert report.summary.endswith(told)


@pytest.fixture
def broken_folder(bench, tmp_path):
    """A run of one attack on the whole, of which the broken images are kept."""
    bench(attacks=("fgsm",), evidence="broken", threat_models=("joint",))
    return tmp_path / "run"


def test_a_clean_error_that_is_made_up_is_found_where_no_image_is_kept(broken_folder):
    before = load_run(broken_folder).cells
    image = next(
        image for image in range(40) if all(cell.outcomes[image] is Outcome.ROBUST for cell in before)
    )  # So no cell broke it, and it is not kept.

    def lie(record):
        record["cells"][0]["outcomes"][image] = "clean_error"

    edit_results(broken_folder, lie)
    findings = audited(broken_folder).findings
    number = load_run(broken_folder).manifest.dataset.indices[image]
    told = f"image {image} (number {number} of the test set) is recorded as clean_error, re-scored it is robust"
    assert any(f"{told} (one image differs)" in each for each in findings)


def test_an_image_that_was_wrong_when_clean_and_is_called_robust_is_found(broken_folder):
    image = load_run(broken_folder).cells[0].outcomes.index(Outcome.CLEAN_ERROR)
    edit_results(broken_folder, lambda record: record["cells"][0]["outcomes"].__setitem__(image, "robust"))
    assert any("as robust, re-scored it is clean_error (one image" in each for each in audited(broken_folder).findings)


def test_a_broken_image_that_is_not_kept_is_found_and_named(broken_folder):
    store = TensorStore(broken_folder / "evidence")
    cell = next(each for each in load_run(broken_folder).cells if Outcome.FOOLED in each.outcomes)
    key = cell.evidence[0]
    tensors, metadata = store.get_with_metadata(key)
    image = int(tensors["rows"][0])
    (broken_folder / "evidence" / f"{key}.safetensors").unlink()
    fewer = {name: tensor[1:].clone() for name, tensor in tensors.items()}
    store.put(key, fewer, {"of_sha256": metadata["of_sha256"]})
    findings = audited(broken_folder).findings
    assert findings
    for finding in findings:
        assert f"evidence {key} (fgsm on dkd " in finding
        assert f"lacks image {image} (number " in finding
        assert "(one image is not there)" in finding


def test_other_code_is_a_note_and_no_finding(run_folder):
    edit_results(run_folder, lambda record: record["manifest"].update(plan_digest="0" * 64))
    report = audited(run_folder)
    assert report.findings == ()
    assert report.summary.endswith("all of it as recorded; made by other code of dkd-bench than this")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"attacks": ["nope"]}, "no attack named 'nope'"),
        ({"attacks": 5}, "attacks: Input should be a valid array, got 5"),
        ({"attacks": [5]}, "attacks.0: Input should be a valid string, got 5"),
        ({"defenses": ["nope"]}, "no defence named 'nope'"),
        ({"threat_models": ["nope"]}, "no threat model named 'nope'"),
        ({"seed": "x"}, "the request in the record is not one of this version"),
        ({"seed": 1.5}, "seed: Input should be a valid integer, got 1.5"),
        ({"norm": "l7"}, "norm: Input should be 'linf', 'l2' or 'l0', got 'l7'"),
        ({"eps": [8.0]}, "eps must be in"),
        ({"settings": ["nonsense"]}, "settings takes NAME=VALUE"),
        ({"spell": 3}, "spell"),
    ],
)
def test_a_request_that_cannot_be_carried_out_is_a_finding(run_folder, words, sentence):
    edit_results(run_folder, lambda record: record["manifest"]["request"].update(words))
    report = audited(run_folder)
    (finding,) = report.findings
    assert finding.startswith("the request in the record cannot be carried out: ")
    assert sentence in finding
    assert report.summary == "re-scored 0 of 16 cells, 0 images against their outcomes: 1 finding"
    assert (report.checked.cells_recorded, report.rounded) == (16, ())


def test_what_is_not_here_is_no_finding(run_folder, tmp_path):
    with pytest.raises(ConfigError, match="no run at"):
        audited(tmp_path / "gone")
    missing = f"npz:{tmp_path / 'gone.npz'}"
    edit_results(run_folder, lambda record: record["manifest"]["request"].update(dataset=missing))
    with pytest.raises(DatasetError, match=r"gone\.npz"):
        audited(run_folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_here_is_no_finding(run_folder):
    with pytest.raises(ConfigError, match="device cuda: torch finds no CUDA device here"):
        audit(run_folder, device="cuda", data_root=None, progress=SilentProgress())


def test_rows_that_make_no_sense_are_refused(bench, tmp_path):
    bench(attacks=("fgsm",), evidence="broken", threat_models=("joint",))
    store = TensorStore(tmp_path / "run" / "evidence")
    key = next((tmp_path / "run" / "evidence").iterdir()).stem
    tensors, metadata = store.get_with_metadata(key)
    (tmp_path / "run" / "evidence" / f"{key}.safetensors").unlink()
    store.put(key, {**tensors, "rows": tensors["rows"] + 1000}, {"of_sha256": metadata["of_sha256"]})
    (finding,) = audited(tmp_path / "run").findings
    assert "expected as many torch.float32 images as rows, in order, from 0 to 39" in finding


def test_every_cell_is_scored_again_after_rounding(run_folder):
    report = audited(run_folder)
    cells = {(each.cell, each.robust_accuracy) for each in report.rounded}
    assert len(cells) == 16
    cell = joint_fgsm(json.loads((run_folder / "results.json").read_text()))
    assert (f"dkd {cell['decision']}, joint, fgsm linf 0.1", cell["robust_accuracy"]) in cells
    assert all(abs(each.change) * 40 <= each.changed + 1e-9 for each in report.rounded)
    # DeepFool without budget stops at the boundary: rounding carries some image back over it.
    assert any(each.changed for each in report.rounded if "deepfool" in each.cell)


class TestCommand:
    def test_it_says_what_holds_and_leaves_it_beside_the_run(self, run_folder, command):
        status, out, err = command("verify", run_folder, "--device", "cpu")
        assert status == 0
        assert out.startswith("re-scored 16 of 16 cells, 640 images against their outcomes: all of it as recorded\n")
        assert "after 8-bit rounding: " in out
        assert f"What was found is in {run_folder / 'verification.json'}" in err
        kept = json.loads((run_folder / "verification.json").read_text())
        assert kept["schema_version"] == 1
        assert kept["findings"] == []
        assert kept["checked"]["images"] == 640
        assert kept["tolerance"] == 1e-5
        assert kept["results_sha256"] == sha256((run_folder / "results.json").read_bytes()).hexdigest()
        assert "torch" in kept["versions"]
        assert rank_runs([("run", load_with_doubt(run_folder))]) == rank_runs([("run", load_run(run_folder))])

    def test_the_whole_report_as_json(self, run_folder, command):
        edit_results(run_folder, LIES["headline"][0])
        status, out, err = command("verify", run_folder, "--device", "cpu", "--format", "json")
        assert status == 1
        report = json.loads(out)
        assert any("recorded as 0.975" in finding for finding in report["findings"])
        assert "dkd-bench: error: dkd majority, black-box, fgsm linf 0.1: robust accuracy is recorded as 0.975" in err
        assert len(report["rounded"]) == 16
        assert report["rounded"][0].keys() == {"cell", "robust_accuracy", "rounded_robust_accuracy", "changed"}

    def test_a_folder_that_cannot_be_written_to_is_verified_all_the_same(self, run_folder, command, monkeypatch):
        def refuse(path, value):
            raise StoreError(f"cannot write {path}: Read-only file system")

        monkeypatch.setattr(keep, "write_json", refuse)
        status, _, err = command("verify", run_folder, "--device", "cpu")
        assert status == 0
        assert "No verification.json is written: cannot write" in err

    def test_a_request_that_cannot_be_carried_out_is_kept(self, run_folder, command):
        edit_results(run_folder, lambda record: record["manifest"]["request"].update(attacks=["nope"]))
        status, _, err = command("verify", run_folder, "--device", "cpu")
        assert status == 1
        assert "the request in the record cannot be carried out: no attack named 'nope'" in err
        kept = json.loads((run_folder / "verification.json").read_text())
        assert len(kept["findings"]) == 1

    def test_a_defence_is_for_claims(self, run_folder, command):
        status, _, err = command("verify", run_folder, "--defense", "dkd")
        assert status == 2
        assert "--defense goes with --claim FILE" in err

    def test_one_of_run_and_claim(self, command, tmp_path):
        for words, got in (((), "neither"), ((tmp_path, "--claim", tmp_path / "c.json"), "both")):
            status, _, err = command("verify", *words)
            assert status == 2
            assert f"verify takes RUN or --claim FILE, got {got}; give one" in err


class TestRanking:
    def flags(self, path):
        run = load_with_doubt(path)
        flags = [flag for group in rank_runs([("run", run)]).groups for row in group.rows for flag in row.flags]
        found = {(flag.name, flag.detail) for flag in flags if flag.name == UNVERIFIED}
        assert found == {(UNVERIFIED, run.doubt)}
        return list(found)

    def verification(self, folder, **changes):
        values = {
            "schema_version": 1,
            "results_sha256": sha256((folder / "results.json").read_bytes()).hexdigest(),
            "findings": [],
            "summary": "",
            "tolerance": 1e-5,
            "checked": {},
            "versions": {},
        }
        (folder / "verification.json").write_text(json.dumps(values | changes))

    def test_a_run_that_nobody_verified_is_as_it_is(self, honest_run):
        assert load_with_doubt(honest_run) == LoadedRun(record=load_run(honest_run), folder=honest_run)

    def test_a_run_that_holds_is_as_it_is(self, run_folder):
        self.verification(run_folder)
        loaded = load_with_doubt(run_folder / "results.json")
        assert loaded == LoadedRun(record=load_run(run_folder), folder=run_folder)

    def test_findings_flag_every_defence(self, run_folder):
        self.verification(run_folder, findings=["image 3 is not so", "nor is image 4"])
        assert self.flags(run_folder) == [(UNVERIFIED, "verify found: image 3 is not so (and 1 more)")]

    def test_a_record_changed_since_is_flagged(self, run_folder):
        self.verification(run_folder)
        edit_results(run_folder, lambda record: record["manifest"].update(command="another"))
        assert self.flags(run_folder) == [(UNVERIFIED, "results.json was changed since it was verified")]

    @pytest.mark.parametrize("changes", [{"schema_version": 2}, {"findings": None}])
    def test_a_verification_that_cannot_be_read_is_flagged(self, run_folder, changes):
        self.verification(run_folder, **changes)
        assert self.flags(run_folder / "results.json") == [(UNVERIFIED, "verification.json cannot be read")]

    def test_a_run_made_anew_forgets_what_was_verified(self, run_folder):
        self.verification(run_folder, findings=["image 3 is not so"])
        save_run(load_run(run_folder), run_folder)
        assert not (run_folder / "verification.json").exists()


def test_a_run_that_was_found_out_loses_its_rank_and_is_made_again(run_folder, command, tiny_npz, cache):
    honest = load_run(run_folder)

    def flatter(record):
        cell = joint_fgsm(record)
        cell["outcomes"] = ["robust" if outcome == "fooled" else outcome for outcome in cell["outcomes"]]

    edit_results(run_folder, flatter)
    assert "evidence not verified" not in (run_folder / "leaderboard.md").read_text()
    assert command("verify", run_folder, "--device", "cpu")[0] == 1
    assert "invalid, evidence not verified (verify found: " in (run_folder / "leaderboard.md").read_text()
    words = {"defenses": ("dkd",), "attacks": ("fgsm", "deepfool"), "eps": (0.1,), "n_examples": 40}
    again, _ = run(RunRequest(dataset=f"npz:{tiny_npz}", out=run_folder, device="cpu", **words))
    assert [cell.outcomes for cell in again.cells] == [cell.outcomes for cell in honest.cells]
    assert not (run_folder / "verification.json").exists()
    assert "evidence not verified" not in (run_folder / "leaderboard.md").read_text()
