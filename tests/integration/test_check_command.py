from __future__ import annotations

import inspect
import json
import shutil
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer

from dkd_bench.check import EvidenceReplay, Rule, compare, load_reference, reference_from, save_reference
from dkd_bench.cli.check import check
from dkd_bench.cli.options import as_option
from dkd_bench.cli.reference import reference as reference_command
from dkd_bench.errors import ConfigError, DkdBenchError
from dkd_bench.pipeline import run
from dkd_bench.progress import SilentProgress
from dkd_bench.records.rundir import load_run
from dkd_bench.steps.request import RunRequest
from dkd_bench.store.files import TensorStore

SMALL = 0.03
ENOUGH = 10
"""Images that must be lost, and none won, for p = 2 ** -10, which a correction for two cells leaves below 0.05."""


@pytest.fixture
def command(capsys, cache):
    """Run ``check`` or ``reference``; returns exit status, stdout, and the error's sentence."""
    app = typer.Typer()
    app.command()(check)
    app.command("reference")(reference_command)

    def call(*words):
        sentence = ""
        try:
            status = app(args=[str(word) for word in words], standalone_mode=False)
        except DkdBenchError as error:
            status, sentence = error.exit_code, error.sentence.spelled(as_option)
        return int(status or 0), capsys.readouterr().out, sentence

    return call


@pytest.fixture
def run_folder(bench, tmp_path):
    """A run in a budget so small that many images survive it."""
    bench("old", attacks=("fgsm",), threat_models=("joint",), eps=(SMALL,))
    return tmp_path / "old"


@pytest.fixture
def committed(command, run_folder, tmp_path):
    status, out, _ = command("reference", run_folder, "--out", tmp_path / "reference.json")
    assert (status, out.split(";")[0]) == (
        0,
        f"{tmp_path}/reference.json: 2 cells of 40 images of npz:tiny, from 1 run",
    )
    return tmp_path / "reference.json"


def weakened(folder: Path, out: Path) -> Path:
    """Copy a run in which every image that survived under attack is fooled now; there are enough to tell."""
    record = json.loads((folder / "results.json").read_text())
    for cell in record["cells"]:
        assert cell["outcomes"].count("robust") >= ENOUGH
        cell["outcomes"] = ["fooled" if outcome == "robust" else outcome for outcome in cell["outcomes"]]
    out.mkdir()
    (out / "results.json").write_text(json.dumps(record))
    return out


def test_the_file_is_small_and_holds_no_images(committed, run_folder):
    evidence = sum(file.stat().st_size for file in (run_folder / "evidence").iterdir())
    assert committed.stat().st_size < 5000 < evidence
    assert [len(cell["runs"][0]["survived"]) for cell in json.loads(committed.read_text())["cells"]] == [8, 8]


def test_a_run_against_itself_is_the_same(command, committed, run_folder):
    status, out, _ = command("check", "--against", committed, run_folder)
    assert status == 0
    assert out.splitlines()[-1].startswith("2 cells: 2 same; ")


def test_regression_is_exit_1_in_every_output_at_once(command, committed, run_folder, tmp_path):
    worse = weakened(run_folder, tmp_path / "worse")
    (tmp_path / "summary.md").write_text("# Build\n")
    status, out, _ = command(
        "check", "--against", committed, worse, "--junit", tmp_path / "j.xml", "--summary", tmp_path / "summary.md"
    )
    assert status == 1
    assert out.startswith("regressed ")
    assert ElementTree.parse(tmp_path / "j.xml").getroot().get("failures") == "2"
    assert (tmp_path / "summary.md").read_text().startswith("# Build\n\n### Robustness: regressed in 2 of 2 cells")
    status, out, _ = command("check", "--against", committed, worse, "--tolerance", "0.99", "--format", "json")
    assert (status, json.loads(out)["tolerance"]) == (0, 0.99)


def test_a_missing_cell_is_exit_3(command, committed, bench, tmp_path):
    bench("other", attacks=("fgsm",), threat_models=("joint",), eps=(0.2,))
    status, out, _ = command("check", "--against", committed, tmp_path / "other")
    assert status == 3
    assert "2 cells: 2 missing, 2 new; " in out


def test_other_images_are_exit_3(command, committed, bench, tmp_path):
    bench("other", attacks=("fgsm",), threat_models=("joint",), eps=(SMALL,), n_examples=20)
    status, out, _ = command("check", "--against", committed, tmp_path / "other")
    assert status == 3
    assert "the run attacked 20 images, the reference 40; use the same --n-examples" in out


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("--alpha", "1"), 2, "--alpha must be between 0 and 1, got 1.0"),
        (("--alpha", "0"), 2, "--alpha must be between 0 and 1, got 0.0"),
        (("--tolerance", "-0.1"), 2, "--tolerance must be from 0 to below 1, got -0.1"),
        (("--evidence", "nowhere"), 2, "--evidence nowhere is no folder"),
    ],
)
def test_wrong_words_write_nothing(command, committed, run_folder, tmp_path, words, status, sentence):
    found, out, said = command("check", "--against", committed, run_folder, *words, "--junit", tmp_path / "j.xml")
    assert (found, out) == (status, "")
    assert said.startswith(sentence)
    assert not (tmp_path / "j.xml").exists()


def test_a_damaged_reference_is_exit_3(command, committed, run_folder):
    committed.write_text(committed.read_text().replace('"draws": 1', '"draws": 2'))
    status, out, sentence = command("check", "--against", committed, run_folder)
    assert (status, out) == (3, "")
    assert "it was edited or damaged; make it again with 'dkd-bench reference" in sentence


def test_an_incomplete_run_is_exit_3_and_makes_no_reference(command, committed, run_folder, tmp_path):
    record = json.loads((run_folder / "results.json").read_text())
    (run_folder / "results.json").write_text(json.dumps(record | {"complete": False}))
    status, _, sentence = command("check", "--against", committed, run_folder)
    assert (status, "the run is incomplete" in sentence) == (3, True)
    status, _, sentence = command("reference", run_folder, "--out", tmp_path / "other.json")
    assert (status, "run 1 of 1 is incomplete" in sentence) == (3, True)
    assert not (tmp_path / "other.json").exists()


@pytest.mark.parametrize(
    ("findings", "digest", "said"),
    [
        (["image 3 is over its budget"], None, "verify found: image 3 is over its budget"),
        ([], "0" * 64, "results.json was changed since it was verified"),
    ],
)
def test_a_run_whose_verification_failed_is_exit_3(command, committed, run_folder, tmp_path, findings, digest, said):
    found = sha256((run_folder / "results.json").read_bytes()).hexdigest()
    verification = {
        "results_sha256": digest or found,
        "findings": findings,
        "summary": "",
        "tolerance": 1e-5,
        "checked": {},
        "versions": {},
    }
    (run_folder / "verification.json").write_text(json.dumps(verification))
    for words in (("check", "--against", committed, run_folder), ("reference", run_folder, "--out", tmp_path / "o")):
        status, out, sentence = command(*words)
        assert (status, out) == (3, "")
        assert f"has numbers that its evidence does not bear out ({said})" in sentence
    assert not (tmp_path / "o").exists()
    (run_folder / "verification.json").write_text(json.dumps(verification | {"results_sha256": found, "findings": []}))
    assert command("check", "--against", committed, run_folder)[0] == 0


@pytest.mark.parametrize(("run", "expected"), [("old", 3), ("worse", 1)])
def test_a_file_that_cannot_be_written_hides_no_verdict(
    command, capsys, committed, run_folder, tmp_path, run, expected
):
    weakened(run_folder, tmp_path / "worse")
    (tmp_path / "folder").mkdir()
    app = typer.Typer()
    app.command()(check)
    words = ("--against", committed, tmp_path / run, "--junit", tmp_path / "folder", "--summary", tmp_path / "s.md")
    assert int(app(args=[str(word) for word in words], standalone_mode=False)) == expected
    printed = capsys.readouterr()
    assert "2 cells: 2 " in printed.out
    assert printed.err.splitlines()[-1] == (
        f"dkd-bench: error: cannot write {tmp_path}/folder: it is there and no regular file; name a file"
    )
    assert (tmp_path / "s.md").read_text().startswith("### Robustness: ")


def test_defaults_of_the_command_are_those_of_the_rule():
    words = inspect.signature(check).parameters
    assert (words["alpha"].default, words["tolerance"].default) == (Rule().alpha, Rule().tolerance)


@pytest.fixture(scope="module")
def trained_twice(tmp_path_factory, warm_cache, tiny_npz):
    """The undefended network under two training seeds, attacked by unlike PGD: two runs and their cache."""
    folder = tmp_path_factory.mktemp("twice")
    shutil.copytree(warm_cache, folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DKD_BENCH_CACHE", str(folder / "cache"))
        for name, steps, training_seed in (("first", 2, None), ("second", 4, 1), ("seed1", 2, 1)):
            request = RunRequest(
                defenses=("none",),
                attacks=("pgd",),
                threat_models=("joint", "black-box"),
                dataset=f"npz:{tiny_npz}",
                eps=(0.1,),
                n_examples=40,
                settings=(f"pgd.steps={steps}",),
                training_seed=training_seed,
                device="cpu",
                out=folder / name,
            )
            run(request)
    return folder


@pytest.fixture
def retrained(trained_twice, cache, tmp_path):
    """Return the two runs, whose folders and cache a test may do with as it likes."""
    shutil.copytree(trained_twice, tmp_path, dirs_exist_ok=True)
    first, second = (load_run(tmp_path / name) for name in ("first", "second"))
    shas = {record.manifest.defenses["none"].weights_sha256 for record in (first, second)}
    assert len(shas) == 2, "other training seeds must give other weights"
    return first, second


def test_other_settings_of_an_attack_on_the_same_weights_are_the_attacks_doing(command, retrained, tmp_path):
    command("reference", tmp_path / "seed1", "--out", tmp_path / "reference.json")
    status, out, _ = command("check", "--against", tmp_path / "reference.json", tmp_path / "second", "--format", "json")
    cells = json.loads(out)["cells"]
    assert (status, [(cell["verdict"], cell["moved"]) for cell in cells]) == (0, [("attack changed", "attack")] * 2)
    assert all("the same to the last weight" in cell["detail"] for cell in cells)


def replayed(reference, record, *folders):
    return EvidenceReplay(reference, record, folders=folders, device="cpu", data_root=None, progress=SilentProgress())


def test_replay_on_the_old_weights_finds_what_was_recorded(retrained, tmp_path):
    first, _ = retrained
    reference = reference_from([first])
    replay = replayed(reference, first, tmp_path / "first")
    for cell in reference.cells:
        assert replay(cell, 0) == reference.shares(cell)[0]


def test_replay_shows_old_evidence_to_new_weights(retrained, tmp_path):
    first, second = retrained
    reference = reference_from([first])
    report = compare(reference, second, replay=replayed(reference, second, tmp_path / "first"))
    assert [cell.verdict for cell in report.cells] == ["attack changed"] * 2
    assert {cell.moved for cell in report.cells} == {"attack"}
    assert all("of the old evidence it survives" in cell.detail and cell.p_value is not None for cell in report.cells)
    joint = next(cell for cell in report.cells if cell.key.threat_model == "joint")
    assert joint.old_evidence_now > joint.old_evidence_before == joint.reference_accuracy
    # Images made for the old weights harm others less than those that were made for them.
    joint = next(cell for cell in reference.cells if cell.key.threat_model == "joint")
    new = replayed(reference, second, tmp_path / "first")(joint, 0)
    assert sum(new) > sum(reference.shares(joint)[0])


def test_a_defence_that_falls_to_old_evidence_is_weaker(retrained, tmp_path):
    """As if the old weights had stood everything: then the new ones stand less of it."""
    first, second = retrained
    stood = [cell.model_copy(update={"outcomes": ("robust",) * cell.n}) for cell in first.cells]
    reference = reference_from([first.model_copy(update={"cells": tuple(stood)})])
    report = compare(reference, second, replay=replayed(reference, second, tmp_path / "first"), tolerance=0)
    assert "defense" in {cell.moved for cell in report.cells}
    assert report.exit_code == 1


def test_evidence_is_looked_for_in_the_cache_too(retrained):
    first, second = retrained
    reference = reference_from([first])
    assert {cell.moved for cell in compare(reference, second, replay=replayed(reference, second)).cells} == {"attack"}


def test_without_evidence_the_side_is_unknown(command, retrained, cache, tmp_path):
    save_reference(reference_from([retrained[0]]), tmp_path / "reference.json")
    shutil.rmtree(cache / "crafts")
    words = ("check", "--against", tmp_path / "reference.json", tmp_path / "second")
    status, out, _ = command(*words)
    assert (status, "is not at hand; name the folder that has it with --evidence" in out) == (3, True)
    status, out, _ = command(*words, "--evidence", tmp_path / "first")
    assert (status, "of the old evidence it survives" in out) == (0, True)
    status, out, _ = command(*words, "--evidence", tmp_path / "first" / "evidence")
    assert (status, "of the old evidence it survives" in out) == (0, True)


@pytest.mark.parametrize("change", ["pixel", "rows", "byte"])
def test_evidence_that_is_not_the_references_is_not_replayed(retrained, cache, tmp_path, change):
    shutil.rmtree(cache / "crafts")
    store = TensorStore(tmp_path / "first" / "evidence")
    reference = reference_from([retrained[0]])
    for key, _ in reference.runs[0].evidence:
        images = store.get(key)["adversarial"].clone()
        store.path(key).unlink()
        images[0, 0, 0, 0] = 0.5 if images[0, 0, 0, 0] != 0.5 else 0.25
        store.put(key, {"adversarial": images} | ({"rows": images[:, 0, 0, 0].long()} if change == "rows" else {}))
        if change == "byte":
            data = bytearray(store.path(key).read_bytes())
            data[-1] ^= 1
            store.path(key).write_bytes(data)
    report = compare(reference, retrained[1], replay=replayed(reference, retrained[1], tmp_path / "first"))
    said = {"pixel": "should be the evidence with digest", "rows": "only the images that broke", "byte": "should have"}
    assert all(cell.moved == "unknown" and said[change] in cell.detail for cell in report.cells)


def test_weights_that_are_not_the_runs_are_not_replayed(retrained, tmp_path):
    first, second = retrained
    lied = second.manifest.defenses["none"].model_copy(update={"weights_sha256": "0" * 64})
    second = second.model_copy(update={"manifest": second.manifest.model_copy(update={"defenses": {"none": lied}})})
    reference = reference_from([first])
    report = compare(reference, second, replay=replayed(reference, second, tmp_path / "first"))
    assert all("the weights of 'none' here are not those of the run" in cell.detail for cell in report.cells)


def test_two_training_seeds_make_one_reference(command, retrained, tmp_path):
    file = tmp_path / "reference.json"
    status, out, _ = command("reference", tmp_path / "first", tmp_path / "seed1", "--out", file)
    assert (status, "from 2 runs; digest" in out) == (0, True)
    reference = load_reference(file)
    assert [made.request["training_seed"] for made in reference.runs] == [None, 1]
    for name in ("first", "seed1"):
        status, out, _ = command("check", "--against", file, tmp_path / name)
        assert (status, out.splitlines()[-1].startswith("2 cells: 2 same; ")) == (0, True)
    status, _, sentence = command("reference", tmp_path / "first", tmp_path / "second", "--out", file)
    assert (status, "the settings of run 2 must be ['pgd.steps=2'] as in run 1" in sentence) == (2, True)
    status, _, sentence = command("reference", tmp_path / "first", tmp_path / "first", "--out", file)
    assert (status, "run 1 and run 2 are both of 0" in sentence) == (2, True)


def test_a_folder_of_evidence_that_is_none_is_refused(retrained, tmp_path):
    with pytest.raises(ConfigError, match=r"evidence .*nowhere is no folder; name the folder of a run"):
        replayed(reference_from([retrained[0]]), retrained[1], tmp_path / "nowhere")
