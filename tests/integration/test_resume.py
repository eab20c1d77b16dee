from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

HEARS_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""What a shell starts in the background is deaf to them, and so are its children."""


@pytest.fixture
def process(cache, tiny_npz, tmp_path):
    """Start a run in a process of its own; its crafts take a few seconds."""

    def start(out):
        words = ["run", "--defense", "dkd", "--dataset", f"npz:{tiny_npz}", "--n-examples", "40", "--eps", "0.1"]
        words += ["--attack", "fgsm", "--attack", "pgd", "--attack", "cw", "--device", "cpu", "--out", str(out)]
        return subprocess.Popen(
            [sys.executable, "-c", f"{HEARS_INTERRUPTS}; from dkd_bench.cli.app import main; main()", *words],
            env={**os.environ, "DKD_BENCH_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def crafts_in(cache):
    return {file.name: file.stat().st_mtime_ns for file in (cache / "crafts").glob("*.safetensors")}


def wait_for_crafts(cache, running, count):
    deadline = time.monotonic() + 120
    while len(crafts_in(cache)) < count:
        assert running.poll() is None, running.stderr.read()
        assert time.monotonic() < deadline, "no crafts in two minutes"
        time.sleep(0.02)


def outcomes(folder):
    record = json.loads((folder / "results.json").read_text())
    return [(cell["threat_model"], cell["attack"], cell["decision"], cell["outcomes"]) for cell in record["cells"]]


def test_killed_run_goes_on_where_it_was(process, cache, tmp_path, warm_cache):
    first = process(tmp_path / "r")
    wait_for_crafts(cache, first, 4)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = crafts_in(cache)
    assert not (tmp_path / "r" / "results.json").exists()

    second = process(tmp_path / "r")
    _, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    after = crafts_in(cache)
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)

    for file in (cache / "crafts").iterdir():
        file.unlink()
    whole = process(tmp_path / "whole")
    _, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err
    assert outcomes(tmp_path / "whole") == outcomes(tmp_path / "r")


def test_interrupted_run_keeps_what_was_done_and_says_so(process, cache, tmp_path):
    running = process(tmp_path / "r")
    wait_for_crafts(cache, running, 4)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "interrupted; what was done is kept" in err
    assert "Traceback" not in err
    record = json.loads((tmp_path / "r" / "results.json").read_text())
    assert record["complete"] is False
    statuses = {cell["status"] for cell in record["cells"]}
    assert statuses == {"ok", "not_run"}
    assert all(cell["robust_accuracy"] is None for cell in record["cells"] if cell["status"] == "not_run")
    assert not list(cache.rglob("*.part"))

    again = process(tmp_path / "r")
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert json.loads((tmp_path / "r" / "results.json").read_text())["complete"] is True
