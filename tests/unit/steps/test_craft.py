"""Craft: trials come out as soon as their evidence is there; nothing is made twice, and a failure stays where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dkd_bench.errors import AttackError, EvidenceError
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.craft import CraftedTrial, craft
from dkd_bench.steps.crafter import Crafter
from dkd_bench.steps.plan import Craft
from dkd_bench.steps.prepare import Prepared
from dkd_bench.threats.aggregated import Aggregated
from dkd_bench.threats.joint import Joint
from dkd_bench.threats.standalone import Standalone
from toy_run import (
    Cheating,
    Crashing,
    Heard,
    Hidden,
    Interrupted,
    Other,
    Pair,
    Push,
    Steady,
    toy_dataset,
    toy_prepared,
)

MEMBERS = ["pair member-1", "pair member-2"]


def crafted(prepared: Prepared, crafter: Crafter) -> list[CraftedTrial]:
    return list(craft(prepared, crafter, SilentProgress()))


def files(crafter: Crafter) -> int:
    return len(list(crafter.store.folder.glob("*.safetensors")))


def test_every_trial_comes_out_once_in_the_order_of_the_plan(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, Pair, attacks=(Push(), Other()), threat_models=(Standalone(), Joint()))
    found = crafted(prepared, crafter)
    assert [each.position for each in found] == list(range(8))
    assert tuple(each.trial for each in found) == prepared.plan.trials
    assert all(each.failure is None and crafter.has_all(each.trial) for each in found)


def test_a_trial_comes_out_before_the_crafts_of_the_next_are_made(crafter: Crafter) -> None:
    prepared = toy_prepared(Pair, attacks=(Push(), Other()), threat_models=(Standalone(),))
    push, other = prepared.attacks["push"], prepared.attacks["other"]
    trials = craft(prepared, crafter, SilentProgress())
    assert next(trials).trial.attack == "push"
    assert (push.targets, other.targets) == (MEMBERS, [])
    assert next(trials).trial.attack == "other"
    assert (push.targets, other.targets) == (MEMBERS, MEMBERS)


def test_nothing_is_crafted_twice(crafter: Crafter) -> None:
    """Two threat models want the members, and the first of them is the network of another defence."""
    prepared = toy_prepared(Steady, Pair, threat_models=(Standalone(), Aggregated()))
    crafted(prepared, crafter)
    assert prepared.attacks["push"].targets == ["steady member-1", "pair member-2"]
    again = toy_prepared(Steady, Pair, threat_models=(Standalone(), Aggregated()))
    assert len(crafted(again, crafter)) == 4
    assert again.attacks["push"].targets == []


@pytest.mark.parametrize(
    ("attack", "error", "sentence"),
    [(Crashing, AttackError, "out of luck"), (Cheating, EvidenceError, "must be within linf 0.1")],
)
def test_a_failing_attack_fails_only_the_trials_that_want_it(
    crafter: Crafter, attack: type[Push], error: type[Exception], sentence: str
) -> None:
    prepared = toy_prepared(Pair, attacks=(Push(), attack(), Other()), threat_models=(Standalone(), Aggregated()))
    found = crafted(prepared, crafter)
    assert len(found) == 6
    for each in found:
        if each.trial.attack == attack.meta.name:
            assert isinstance(each.failure, error)
            assert sentence in str(each.failure)
            assert "pair member-1" in str(each.failure), "the first craft that failed"
        else:
            assert each.failure is None


def test_a_failing_craft_is_tried_once(crafter: Crafter) -> None:
    prepared = toy_prepared(Pair, attacks=(Crashing(),), threat_models=(Standalone(), Aggregated()))
    failures = [each.failure for each in crafted(prepared, crafter)]
    assert prepared.attacks["crashing"].targets == MEMBERS
    assert failures[0] is failures[1] is not None


def test_a_trial_without_crafts_comes_out_too(crafter: Crafter) -> None:
    prepared = toy_prepared(Hidden)
    (found,) = crafted(prepared, crafter)
    assert (found.trial.crafts, found.failure) == ({}, None)


def test_an_interruption_loses_nothing(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, attacks=(Push(), Interrupted(), Other()))
    trials = craft(prepared, crafter, SilentProgress())
    assert next(trials).trial.attack == "push"
    with pytest.raises(KeyboardInterrupt):
        next(trials)
    assert files(crafter) == 1
    again = toy_prepared(Steady, attacks=(Push(), Other()))
    assert len(crafted(again, crafter)) == 2
    assert [again.attacks[name].targets for name in ("push", "other")] == [[], ["steady member-1"]]


def made_ahead(*wanted: str) -> Callable[[Prepared, Crafter], Iterator[tuple[Craft, int]]]:
    """Return an executor that makes the crafts of these attacks, the last first."""

    def ahead(prepared: Prepared, crafter: Crafter) -> Iterator[tuple[Craft, int]]:
        for each in reversed([each for each in prepared.plan.crafts if each.attack in wanted]):
            for chunk in prepared.images.chunks():
                crafter.evidence(each, prepared.attacks[each.attack], prepared.targets.target(each), chunk)
                yield each, chunk.number

    return ahead


def test_what_is_made_ahead_comes_out_first(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, attacks=(Push(), Other(), Crashing()))
    found = list(craft(prepared, crafter, SilentProgress(), ahead=made_ahead("other")))
    assert [(each.position, each.trial.attack) for each in found] == [(1, "other"), (0, "push"), (2, "crashing")]
    assert [prepared.attacks[name].targets for name in ("push", "other")] == [["steady member-1"]] * 2


def test_a_trial_made_ahead_waits_for_all_of_its_chunks(crafter: Crafter) -> None:
    prepared = toy_prepared(Steady, dataset=toy_dataset(254))
    heard = Heard()
    (found,) = craft(prepared, crafter, heard, ahead=made_ahead("push"))
    assert found.trial.attack == "push"
    assert files(crafter) == 2
    assert [name for name, _ in heard.notes] == ["push linf 0.1 on steady member-1", "crafts"] * 2


def test_each_chunk_is_told_once_with_what_it_broke(crafter: Crafter) -> None:
    heard = Heard()
    prepared = toy_prepared(Steady, dataset=toy_dataset(254), threat_models=(Standalone(), Joint()))
    list(craft(prepared, crafter, heard))
    assert heard.tasks == {"crafts": 2, "push linf 0.1 on steady member-1": 2}
    notes = [note for name, note in heard.notes if name.startswith("push")]
    assert [note.partition(",")[0] for note in notes] == ["126 of 250 broken", "2 of 4 broken"]
    assert [note for name, note in heard.notes if name == "crafts"] == ["last: push on steady member-1"] * 2
