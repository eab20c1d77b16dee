from __future__ import annotations

import json
from pathlib import Path

import pytest

from dkd_bench.audit import audit
from dkd_bench.progress import SilentProgress
from dkd_bench.store import TensorStore


@pytest.fixture
def run_folder(bench, tmp_path):
    bench(attacks=("fgsm", "deepfool"))
    return tmp_path / "run"


def audited(folder: Path):
    return audit(folder, device="cpu", data_root=None, progress=SilentProgress())


def edit_results(folder: Path, change) -> None:
    file = folder / "results.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def test_honest_run_verifies_in_every_cell(run_folder):
    report = audited(run_folder)
    assert report.findings == ()
    # Four threat models, two attacks, two rules.
    assert report.summary.startswith("re-scored 16 of 16 cells, 640 images")


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
        cell = next(c for c in record["cells"] if c["threat_model"] == "joint" and "fooled" in c["outcomes"])
        cell["outcomes"][cell["outcomes"].index("fooled")] = "robust"

    edit_results(run_folder, lie)
    findings = audited(run_folder).findings
    assert any("is recorded as robust, re-scored it is not so (1 such images)" in finding for finding in findings)
    assert any("robust accuracy is recorded as" in finding for finding in findings)


def test_changed_headline_is_found(run_folder):
    def lie(record):
        record["cells"][0]["robust_accuracy"] = 0.975

    edit_results(run_folder, lie)
    assert any("robust accuracy is recorded as 0.975" in finding for finding in audited(run_folder).findings)


def test_other_weights_are_found(run_folder):
    def lie(record):
        record["manifest"]["defenses"]["dkd"]["weights_sha256"] = "0" * 64

    edit_results(run_folder, lie)
    assert any("weights digest of 'dkd'" in finding for finding in audited(run_folder).findings)


def test_other_images_are_found(run_folder):
    def lie(record):
        record["manifest"]["dataset"]["digest"] = "0" * 64

    edit_results(run_folder, lie)
    assert any("dataset digest" in finding for finding in audited(run_folder).findings)


def test_missing_outcomes_are_found(run_folder):
    def lie(record):
        record["cells"][0]["outcomes"].pop()

    edit_results(run_folder, lie)
    assert any("the record has 39" in finding for finding in audited(run_folder).findings)


def test_evidence_that_was_not_kept_is_made_again(bench, tmp_path):
    bench(attacks=("fgsm",), evidence="none")
    report = audited(tmp_path / "run")
    assert report.findings == ()
    assert "re-scored 8 of 8 cells, 320 images" in report.summary


def test_of_broken_evidence_the_broken_images_are_scored(bench, tmp_path):
    record = bench(attacks=("fgsm",), evidence="broken")
    report = audited(tmp_path / "run")
    assert report.findings == ()
    broken = sum(outcome.value in ("fooled", "failed_majority") for cell in record.cells for outcome in cell.outcomes)
    compared = int(report.summary.split(", ")[1].split()[0])
    assert broken <= compared < 320
