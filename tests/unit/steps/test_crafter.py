"""The crafter: evidence made once under its key, checked whoever made it, found again after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dkd_bench.budget import perturbation_norms
from dkd_bench.defense import DefenseMeta
from dkd_bench.errors import AttackError, EvidenceError, StoreError
from dkd_bench.records.evidence import CraftCost, write_evidence
from dkd_bench.steps.crafter import Crafter, Evidence, crafts_store
from dkd_bench.steps.prepare import Prepared
from dkd_bench.store.digests import digest_tensors
from dkd_bench.store.files import TensorStore
from dkd_bench.threats.standalone import Standalone
from toy_run import Cheating, Crashing, Noisy, Pair, Steady, touched, toy_dataset, toy_prepared


class Sensitive(nn.Module):
    """Fails on every image that was attacked."""

    def forward(self, x: Tensor) -> Tensor:
        if touched(x).any():
            raise RuntimeError("too light")
        return x.flatten(1)


class Fussy(Steady):
    meta = DefenseMeta(name="fussy", title="Fussy")

    def surrogates(self) -> Mapping[str, nn.Module]:
        return {"sensitive": Sensitive()}


COST = CraftCost(forward_passes=1, backward_passes=0, wall_time_s=2.0, broken=3)


def made(prepared: Prepared, crafter: Crafter, *, chunk: int = 0, number: int = 0) -> Evidence:
    """Return the evidence of one chunk of one craft of the plan."""
    craft = prepared.plan.crafts[number]
    target = prepared.targets.target(craft)
    return crafter.evidence(craft, prepared.attacks[craft.attack], target, prepared.images.chunk(chunk))


def test_evidence_is_what_the_attack_made(crafter: Crafter) -> None:
    """Four of the eight images are near their neighbours; the attack evaluates each image once."""
    prepared = toy_prepared(Steady)
    evidence = made(prepared, crafter)
    clean = prepared.images.chunk(0).images
    assert perturbation_norms(clean, evidence.images, "linf").tolist() == pytest.approx([0.1] * 8)
    assert evidence.sha256 == digest_tensors({"adversarial": evidence.images})
    assert (evidence.broken, evidence.forward_passes, evidence.backward_passes, evidence.fresh) == (4, 8, 0, True)
    assert evidence.wall_time_s > 0


def test_what_was_made_is_found_with_what_it_cost(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady)
    first, second = made(prepared, crafter), made(prepared, crafter)
    found = Crafter(TensorStore(crafter.store.folder)).find(prepared.plan.crafts[0].keys[0])
    assert prepared.attacks["push"].targets == ["steady member-1"]
    assert found is not None
    for each in (second, found):
        assert torch.equal(each.images, first.images)
        assert (each.sha256, each.broken, each.wall_time_s) == (first.sha256, first.broken, first.wall_time_s)
        assert not each.fresh


def test_each_chunk_has_its_own(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, dataset=toy_dataset(254))
    assert [len(made(prepared, crafter, chunk=chunk).images) for chunk in (0, 1)] == [250, 4]
    assert len(list(crafter.store.folder.iterdir())) == 2


def test_a_trial_is_whole_when_all_of_its_crafts_are_kept(crafter: Crafter) -> None:
    prepared = toy_prepared(Pair, threat_models=(Standalone(),))
    (trial,) = prepared.plan.trials
    assert not crafter.has_all(trial)
    made(prepared, crafter, number=0)
    assert not crafter.has_all(trial)
    made(prepared, crafter, number=1)
    assert crafter.has_all(trial)


def test_a_failing_attack_leaves_nothing(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, attacks=(Crashing(),))
    with pytest.raises(AttackError, match="attack 'crashing' on steady member-1 failed: RuntimeError: out of luck"):
        made(prepared, crafter)
    assert not crafter.store.folder.exists()


def test_images_outside_the_budget_are_refused_and_not_kept(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, attacks=(Cheating(),))
    with pytest.raises(EvidenceError, match="'cheating' on steady member-1, chunk 0: image 0 must be within linf"):
        made(prepared, crafter)
    assert not crafter.store.folder.exists()


def test_images_found_are_checked_as_those_made_are(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady)
    (craft,) = prepared.plan.crafts
    far = (prepared.images.chunk(0).images + 0.2).clamp(0, 1)
    write_evidence(crafter.store, craft.keys[0], far, attack="push", cost=COST)
    with pytest.raises(EvidenceError, match=r"image 0 must be within linf 0\.1 of the clean one, is 0\.2 away"):
        made(prepared, crafter)


def test_a_file_that_does_not_tell_its_cost_is_refused(crafter: Crafter) -> None:
    crafter.store.put("key", {"adversarial": torch.zeros(1, 1, 2, 2)})
    with pytest.raises(StoreError, match="does not tell what its making took; delete it and run again"):
        crafter.find("key")
    assert crafter.find("another") is None


def test_crafts_are_kept_in_the_users_cache(empty_cache: Path) -> None:
    assert crafts_store().folder == empty_cache / "crafts"


def test_the_same_request_breaks_as_many_images_of_a_random_target(tmp_path: Path) -> None:
    """Whatever was drawn before: the answers that are counted as broken are drawn under the seed of the craft."""
    prepared = toy_prepared(Noisy, dataset=toy_dataset(80), eot_draws=1)
    broken = set()
    for seed in range(5):
        torch.manual_seed(seed)
        broken.add(made(prepared, Crafter(TensorStore(tmp_path / str(seed)))).broken)
    assert len(broken) == 1


def test_making_evidence_moves_nobody_elses_draws(crafter: Crafter) -> None:
    prepared = toy_prepared(Noisy)
    before = torch.get_rng_state()
    made(prepared, crafter)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_target_that_fails_on_what_was_made_is_a_failed_attack(crafter: Crafter) -> None:
    prepared = toy_prepared(Fussy)
    with pytest.raises(AttackError, match="fussy sensitive fails on what attack 'push' made: RuntimeError: too light"):
        made(prepared, crafter)
