from __future__ import annotations

import json
import logging
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from dkd_bench.cli import app
from dkd_bench.errors import ConfigError, EvidenceError, UnknownNameError
from dkd_bench.plots import draw, run_curves
from dkd_bench.progress import SilentProgress
from dkd_bench.records import Outcome
from dkd_bench.records.rundir import load_run
from dkd_bench.records.verification import Verification
from dkd_bench.steps.save import save_run
from dkd_bench.store.files import TensorStore

PICTURES = ["curves", "transfer-dkd", "examples-dkd-joint", "latents-dkd"]


@pytest.fixture
def run_folder(bench, tmp_path) -> Path:
    bench(attacks=("fgsm",))
    return tmp_path / "run"


def drawn(*runs: Path, out: Path | None = None, format: str = "png") -> list[Path]:
    return draw(runs, out=out, format=format, device="cpu", data_root=None, progress=SilentProgress())


def edit_results(folder: Path, change) -> None:
    record = json.loads((folder / "results.json").read_text())
    change(record)
    (folder / "results.json").write_text(json.dumps(record))


def test_command_prints_the_files_it_wrote_and_the_board_links_them(run_folder, monkeypatch, capsys):
    board = (run_folder / "leaderboard.md").read_text()
    monkeypatch.setattr(sys, "argv", ["dkd-bench", "plot", str(run_folder), "--device", "cpu"])
    with pytest.raises(SystemExit) as leave:
        app.main()
    assert not leave.value.code
    assert capsys.readouterr().out.splitlines() == [str(run_folder / "plots" / f"{name}.png") for name in PICTURES]
    for name in PICTURES:
        with Image.open(run_folder / "plots" / f"{name}.png") as image:
            image.verify()
    links = "\n\n".join(f"![{name}](plots/{name}.png)" for name in sorted(PICTURES))
    assert (run_folder / "leaderboard.md").read_text() == f"{board}\n## Pictures\n\n{links}\n"
    save_run(load_run(run_folder), run_folder)
    assert (run_folder / "leaderboard.md").read_text().endswith(f"## Pictures\n\n{links}\n")


def test_the_board_keeps_what_verify_found(run_folder):
    found = Verification(
        results_sha256=sha256((run_folder / "results.json").read_bytes()).hexdigest(),
        findings=("a pixel was moved",),
        summary="",
        tolerance=1e-5,
        checked={},
        versions={},
    )
    (run_folder / "verification.json").write_text(found.model_dump_json())
    drawn(run_folder)
    assert "evidence not verified (verify found: a pixel was moved)" in (run_folder / "leaderboard.md").read_text()


def test_vectors_of_several_runs_go_where_they_are_told(run_folder, bench, tmp_path):
    bench("other", defenses=("none",), attacks=("fgsm",))
    out = tmp_path / "pictures"
    written = drawn(run_folder, tmp_path / "other", out=out, format="svg")
    expected = ["curves", *(f"run/{name}" for name in PICTURES[1:]), "other/examples-none-joint"]
    assert [path.relative_to(out) for path in written] == [Path(f"{name}.svg") for name in expected]
    assert {ElementTree.parse(path).getroot().tag for path in written} == {"{http://www.w3.org/2000/svg}svg"}
    assert "## Pictures" not in (run_folder / "leaderboard.md").read_text()


def test_a_curve_names_its_run_only_where_another_is_called_the_same(run_folder, bench, tmp_path):
    def names(*others):
        written = drawn(run_folder, *others, out=tmp_path / "pictures", format="svg")
        return "(boosted, run)" in written[0].read_text()

    bench("elsewhere", attacks=("deepfool",), threat_models=("joint",))
    assert not names(tmp_path / "elsewhere")
    bench("again", attacks=("fgsm",), threat_models=("joint",))
    assert names(tmp_path / "again")


def test_curves_and_budgets_are_those_of_the_record(bench):
    record = bench(attacks=("fgsm", "deepfool"))
    curves = {(c.label, c.attack, c.threat_model): c for c in run_curves(record, label=None)}
    assert len(curves) == 16
    clean = record.manifest.defenses["dkd"].clean_accuracy["majority"]
    cell = next(c for c in record.cells if (c.decision, c.attack, c.threat_model) == ("majority", "fgsm", "joint"))
    points = curves["dkd (majority)", "fgsm", "joint"].points
    assert points == ((0.0, clean.value, clean.ci95), (0.1, cell.robust_accuracy, cell.ci95))
    unbudgeted = curves["dkd (majority)", "deepfool", "joint"]
    assert len(unbudgeted.distances) == 40
    assert unbudgeted.distances.count(0.0) == sum(outcome is Outcome.CLEAN_ERROR for outcome in cell.outcomes)


def test_without_evidence_the_curves_are_drawn_and_the_log_says_what_is_missing(bench, tmp_path, caplog):
    bench(attacks=("fgsm",), evidence="none")
    with caplog.at_level(logging.INFO, logger="dkd_bench"):
        written = drawn(tmp_path / "run")
    assert [path.name for path in written] == ["curves.png", "latents-dkd.png"]
    assert "did not keep the evidence of fgsm (standalone), nor did the cache; make it again with --evidence all: " in (
        caplog.text
    )
    assert "no picture of examples of dkd" in caplog.text


def test_evidence_of_broken_images_gives_examples_but_no_transfer(bench, tmp_path, caplog):
    bench(attacks=("fgsm",), evidence="broken")
    with caplog.at_level(logging.INFO, logger="dkd_bench"):
        written = drawn(tmp_path / "run")
    assert [path.name for path in written] == ["curves.png", "examples-dkd-joint.png", "latents-dkd.png"]
    assert "no picture of transfer between the members of dkd" in caplog.text


def test_evidence_in_the_cache_serves_where_the_run_lost_its_own(run_folder):
    for file in (run_folder / "evidence").iterdir():
        file.unlink()
    assert len(drawn(run_folder)) == 4


def test_single_network_has_no_transfer_and_no_latents_to_compare(bench, tmp_path, caplog):
    bench(defenses=("none",), attacks=("fgsm",), threat_models=("standalone",))
    with caplog.at_level(logging.INFO, logger="dkd_bench"):
        written = drawn(tmp_path / "run")
    assert [path.name for path in written] == ["curves.png", "examples-none-standalone.png"]
    assert "none has one member, so there is no transfer" in caplog.text
    assert "one member has nobody to be compared with" in caplog.text


def test_other_weights_are_refused(run_folder):
    def lie(record):
        record["manifest"]["defenses"]["dkd"]["weights_sha256"] = "0" * 64

    edit_results(run_folder, lie)
    with pytest.raises(EvidenceError, match=r"the weights of 'dkd' are not those of .*: the record says 0000"):
        drawn(run_folder)
    assert [path.name for path in (run_folder / "plots").iterdir()] == ["curves.png"]


def test_weights_that_are_gone_are_not_trained_again(run_folder, cache):
    for file in (cache / "weights").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(EvidenceError, match=r"the weights of 'dkd' are not in .*weights; '.*' makes them again"):
        drawn(run_folder)
    assert not list((cache / "weights").glob("*.safetensors"))


def test_other_evidence_is_refused(run_folder):
    store = TensorStore(run_folder / "evidence")
    for file in list(store.folder.iterdir()):
        images = store.get(file.stem)["adversarial"]
        file.unlink()
        store.put(file.stem, {"adversarial": images.flip(0)})
    with pytest.raises(EvidenceError, match=r"the images of evidence .* are not those of"):
        drawn(run_folder)


def test_runs_that_cannot_be_drawn_are_refused(run_folder, tmp_path):
    with pytest.raises(ConfigError, match="at least one run to draw, got none"):
        drawn()
    with pytest.raises(ConfigError, match=r"no run at .*nowhere"):
        drawn(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"each run is drawn once, got .*results.json twice"):
        drawn(run_folder / "results.json", run_folder)
    with pytest.raises(UnknownNameError, match="no picture format named 'jpg'"):
        drawn(run_folder, format="jpg")

    def interrupt(record):
        for cell in record["cells"]:
            cell.update(status="not_run", outcomes=[])

    edit_results(run_folder, interrupt)
    with pytest.raises(ConfigError, match=r"no cell of .* has a number, so there is nothing to draw"):
        drawn(run_folder)


def test_help_waits_for_neither_torch_nor_matplotlib():
    code = (
        "import sys; sys.argv = ['dkd-bench', 'plot', '--help']\n"
        "from dkd_bench.cli import app\n"
        "try: app.main()\n"
        "except SystemExit: print(*({'torch', 'matplotlib'} & set(sys.modules)), 'imported')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Draw runs" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["imported"]


def test_pictures_do_not_outlive_the_numbers_that_they_show(bench, run_folder, monkeypatch):
    drawn(run_folder)
    monkeypatch.setattr("dkd_bench.steps.prepare.package_digest", lambda: "of other code")

    bench(attacks=("fgsm",))

    assert not list((run_folder / "plots").glob("*.png"))
    assert "## Pictures" not in (run_folder / "leaderboard.md").read_text()
