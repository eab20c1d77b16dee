from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch

from dkd_bench.executors.local import _one_of_each_attack_first, crafted_ahead
from dkd_bench.steps.crafter import Crafter

pytestmark = pytest.mark.slow


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def outcomes_of(record):
    return {(cell.decision, cell.threat_model, cell.attack): cell.outcomes for cell in record.cells}


def test_workers_make_what_the_run_would_have_made(bench, cache, two_threads, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("dkd_bench.pipeline.crafted_ahead", lambda *_: iter(()))
        alone = bench("alone", attacks=("fgsm", "pgd"))
    shutil.rmtree(cache / "crafts")

    make = Crafter._make

    def refuse(self, craft, attack, target, chunk):
        key = craft.keys[chunk.number]
        assert key not in alone.evidence, "the run crafted by itself what its workers should have"
        make(self, craft, attack, target, chunk)

    monkeypatch.setattr(Crafter, "_make", refuse)
    together = bench("together", attacks=("fgsm", "pgd"))
    assert set(together.evidence) == set(alone.evidence)
    assert outcomes_of(together) == outcomes_of(alone)


def test_one_thread_has_no_workers(bench, monkeypatch):
    seen = []

    def watched(bench, crafter):
        seen.extend(crafted_ahead(bench, crafter))
        return iter(())

    monkeypatch.setattr("dkd_bench.pipeline.crafted_ahead", watched)
    assert bench(attacks=("fgsm",)).complete
    assert seen == []


def test_attack_that_fails_in_a_worker_is_an_error_of_the_run(bench, tmp_path, two_threads):
    plugin = tmp_path / "attack.py"
    plugin.write_text(
        "from dkd_bench.api import Attack, AttackMeta\n"
        "class Broken(Attack):\n"
        "    meta = AttackMeta(name='broken', title='Broken', kind='fixed')\n"
        "    def _perturb(self, target, images, labels, budget):\n"
        "        raise RuntimeError('out of luck')\n"
    )
    record = bench(defenses=("none",), attacks=("fgsm", f"{plugin}:Broken"))
    assert not record.complete
    assert {(cell.attack, cell.status) for cell in record.cells} == {("fgsm", "ok"), ("broken", "error")}
    assert all("out of luck" in cell.reason for cell in record.cells if cell.status == "error")


def test_one_craft_of_each_attack_comes_first_and_the_last_attack_of_the_plan_last():
    crafts = [SimpleNamespace(attack=attack) for attack in ("fgsm", "pgd", "cw", "fgsm", "pgd", "cw")]
    bench = SimpleNamespace(plan=SimpleNamespace(crafts=crafts))
    jobs = [(position, chunk) for position in reversed(range(6)) for chunk in range(2)]
    ordered = _one_of_each_attack_first(bench, jobs)
    assert ordered[:3] == [(3, 0), (4, 0), (5, 0)]
    assert ordered[3:] == [job for job in jobs if job not in ordered[:3]]
    assert len(ordered) == len(jobs)
