"""Where a run was computed: recorded, told of where it differs, and no part of any attack."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from dkd_bench.api import Attack, AttackMeta
from dkd_bench.plugins.suites import suite_fingerprint
from dkd_bench.records.environment import current_environment, environment_changes, environment_in_words, environment_of


class Stands(Attack):
    meta = AttackMeta(name="stands", title="Stands still", kind="fixed", libraries=("numpy", "foolbox", "torch"))

    def _perturb(self, target, images, labels, budget):
        return images


def test_what_is_recorded_is_what_torch_uses():
    found = current_environment(torch.device("cpu"))
    assert list(found) == ["processor", "vector unit", "threads"]
    assert found["threads"] == str(torch.get_num_threads())
    assert found["vector unit"] == torch.backends.cpu.get_cpu_capability()
    assert found["processor"]


@pytest.mark.parametrize(
    ("file", "processor"), [("model name\t: Fast 9000\nmodel name\t: B\n", "Fast 9000"), ("", None)]
)
def test_processor_is_its_model_or_its_architecture(monkeypatch, file, processor):
    monkeypatch.setattr("pathlib.Path.read_text", lambda *_, **__: file)
    assert current_environment(torch.device("cpu"))["processor"] == (
        processor or platform.processor() or platform.machine()
    )


def test_older_records_tell_their_libraries_and_device():
    versions = {"numpy": "2.4.6", "python": "3.11.7", "torch": "2.14.1", "foolbox": "3.3.4"}
    assert environment_of(versions=versions, device="cpu", recorded={}) == {
        "torch": "2.14.1",
        "numpy": "2.4.6",
        "device": "cpu",
    }
    assert environment_of(versions={}, device="cuda", recorded={"GPU": "H100"}) == {"device": "cuda", "GPU": "H100"}


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        ([{"torch": "2.15.0", "device": "cpu"}], {"torch": "2.14.1", "device": "cpu"}, ("torch 2.15.0 to 2.14.1",)),
        ([{"torch": "2"}, {"torch": "1"}], {"torch": "3"}, ("torch 1 or 2 to 3",)),
        ([{"torch": "2"}, {"torch": "1"}], {"torch": "2"}, ()),
        ([{"torch": "2"}], {"torch": "2", "threads": "1"}, ()),
        ([{"torch": "2", "threads": "1"}], {"torch": "2"}, ()),
    ],
    ids=["changed", "other than all", "as in one", "not told before", "not told now"],
)
def test_changes_are_what_no_run_of_before_had(before, now, changes):
    assert environment_changes(before, now) == changes


def test_environment_in_words():
    assert environment_in_words({"torch": "2.14.1", "threads": "2"}) == "torch 2.14.1, threads 2"


def test_torch_and_numpy_are_no_part_of_an_attack_even_if_it_names_them(monkeypatch):
    def fingerprint(**versions):
        known = {"foolbox": "3.3.4", "torch": "2.14.1", "numpy": "2.4.6"} | versions
        monkeypatch.setattr("dkd_bench.store.digests.version", known.__getitem__)
        return suite_fingerprint([Stands()], n_classes=10, eot_draws=16)

    assert list(Stands().identity()["libraries"]) == ["foolbox"]
    assert fingerprint(torch="2.15.0", numpy="3.0.0") == fingerprint()
    assert fingerprint(foolbox="3.3.5") != fingerprint()


def test_records_are_read_without_torch():
    code = "import sys, dkd_bench.records.environment; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
