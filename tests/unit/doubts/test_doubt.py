"""Doubts: where they come from, in which order records hold them, and whom they concern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from dkd_bench.defense import Defense, DefenseMeta
from dkd_bench.doubts import Doubt, Doubts, doubt, doubt_interrupted, doubt_state
from dkd_bench.records import CellRecord, EvidenceRecord, FlagRecord
from dkd_bench.records.flags import (
    ATTACK_ERROR,
    INTERRUPTED,
    NOISE,
    NOT_ADAPTIVE,
    NOT_ADMITTED,
    RANDOM,
    UNBOUNDED,
)
from dkd_bench.steps.craft import craft
from dkd_bench.steps.crafter import Crafter
from dkd_bench.steps.prepare import Prepared
from dkd_bench.steps.record import Findings
from dkd_bench.steps.score import ask_clean, score, score_clean
from toy_run import (
    Brittle,
    Heard,
    Hidden,
    Learning,
    Noisy,
    Other,
    Pair,
    Push,
    PushSettings,
    Rejecting,
    Steady,
    Sulking,
    toy_prepared,
)

Told = list[tuple[str, str, str, bool]]
"""Source, defence and flag of each doubt, and whether it concerns one cell."""


class Unwatched(Rejecting):
    """Its surrogate fails when it is looked at."""

    meta = DefenseMeta(name="unwatched", title="Unwatched", abstains=True)
    looks = 0

    def surrogates(self) -> Mapping[str, Any]:
        self.looks += 1
        if self.looks > 2:
            raise RuntimeError("no more")
        return super().surrogates()


class Allergic(Steady):
    """Fails on images that were attacked further than the run's budget goes."""

    meta = DefenseMeta(name="allergic", title="Allergic")

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        if x.max() > 0.85:
            raise RuntimeError("too light")
        return super().predict(x, generator=generator)


def scored(prepared: Prepared, crafter: Crafter) -> tuple[Sequence[CellRecord], Mapping[str, EvidenceRecord]]:
    """Return the cells of the whole plan, and the evidence that they rest on."""
    answers = ask_clean(prepared)
    findings = Findings(clean=score_clean(prepared, answers))
    for each in craft(prepared, crafter, Heard()):
        findings.trials[each.position] = score(each, prepared, crafter, answers, findings.clean)
    return findings.cells, findings.evidence


def told(doubts: Sequence[Doubt]) -> Told:
    return [(each.source, each.defense, each.flag.name, each.cell is not None) for each in doubts]


def doubted(prepared: Prepared, crafter: Crafter, *, challenged: bool = True) -> Doubts:
    return doubt(prepared, *scored(prepared, crafter), crafter, Heard(), challenged=challenged)


class TestDoubt:
    def test_an_honest_defence_is_not_doubted(self, crafter: Crafter) -> None:
        found = doubted(toy_prepared(Steady, Pair), crafter)
        assert (found.raised, found.failed) == ((), False)

    def test_a_reject_that_nobody_looked_at_is_doubted_by_answers_and_by_attacks(self, crafter: Crafter) -> None:
        assert told(doubted(toy_prepared(Rejecting), crafter).raised) == [
            ("answers", "rejecting", NOT_ADAPTIVE, False),
            ("challenges", "rejecting", UNBOUNDED, False),
        ]

    def test_unchallenged_nothing_is_attacked_again(self, crafter: Crafter) -> None:
        prepared = toy_prepared(Rejecting)
        found = doubted(prepared, crafter, challenged=False)
        assert told(found.raised) == [("answers", "rejecting", NOT_ADAPTIVE, False)]
        assert (found.unused, prepared.attacks["push"].targets) == (frozenset(), ["rejecting member-1"])

    def test_doubts_of_attacks_stand_between_those_of_answers_and_of_numbers(self, crafter: Crafter) -> None:
        prepared = toy_prepared(Rejecting, Brittle)
        assert told(doubted(prepared, crafter).raised) == [
            ("answers", "rejecting", NOT_ADAPTIVE, False),
            ("challenges", "rejecting", UNBOUNDED, False),
            ("numbers", "brittle", ATTACK_ERROR, True),
        ]

    def test_noise_is_told_at_the_cell_that_it_beats(self, crafter: Crafter) -> None:
        """An attack that stands still leaves near images for random points of the budget to take."""
        prepared = toy_prepared(Steady, attacks=(Push(PushSettings(reach=0.0)),))
        cells, evidence = scored(prepared, crafter)
        found = doubt(prepared, cells, evidence, crafter, Heard())
        noisy = [each for each in found.raised if each.flag.name == NOISE]
        assert [(each.source, each.defense, each.cell) for each in noisy] == [("challenges", "steady", cells[0].key)]

    def test_what_was_crafted_for_a_challenge_is_no_evidence(self, crafter: Crafter) -> None:
        prepared = toy_prepared(Steady)
        cells, evidence = scored(prepared, crafter)
        found = doubt(prepared, cells, evidence, crafter, Heard())
        assert len(found.unused) == 1
        assert not found.unused & evidence.keys()
        assert all(crafter.store.path(key).is_file() for key in found.unused)

    def test_a_challenge_that_fails_is_told_and_the_others_go_on(self, crafter: Crafter) -> None:
        found = doubted(toy_prepared(Allergic, Rejecting), crafter)
        assert found.failed
        (failure,) = [each for each in found.raised if each.defense == "allergic"]
        assert (failure.flag.name, failure.source, failure.cell) == (ATTACK_ERROR, "challenges", None)
        assert failure.flag.detail.startswith("when it was challenged: defence 'allergic' fails on images")
        assert ("challenges", "rejecting", UNBOUNDED, False) in told(found.raised)

    def test_a_surrogate_that_fails_when_it_is_probed_is_told(self, crafter: Crafter) -> None:
        found = doubted(toy_prepared(Unwatched), crafter)
        names = [flag.name for flag in found.on_defense("unwatched")]
        assert names[0] == NOT_ADMITTED
        assert "its surrogates fail when they are probed: RuntimeError: no more" in found.raised[0].flag.detail

    def test_each_defence_is_reported_once(self, crafter: Crafter) -> None:
        prepared, heard = toy_prepared(Steady, Hidden), Heard()
        doubt(prepared, *scored(prepared, crafter), crafter, heard)
        assert heard.tasks == {"challenging the attacks": 2}
        assert heard.notes == [("challenging the attacks", "steady"), ("challenging the attacks", "hidden")]


class TestInterrupted:
    def test_every_defence_is_doubted_and_what_is_known_already_is_told(self, crafter: Crafter) -> None:
        prepared = toy_prepared(Rejecting, Brittle)
        found = doubt_interrupted(prepared, *scored(prepared, crafter))
        assert told(found.raised) == [
            ("answers", "rejecting", NOT_ADAPTIVE, False),
            ("run", "rejecting", INTERRUPTED, False),
            ("run", "brittle", INTERRUPTED, False),
            ("numbers", "brittle", ATTACK_ERROR, True),
        ]
        assert (found.unused, prepared.attacks["push"].targets) == (frozenset(), ["rejecting member-1"])


class TestState:
    def answers(self, prepared: Prepared) -> dict[str, Mapping[str, Tensor]]:
        return {name: chunks[0] for name, chunks in ask_clean(prepared).items()}

    @pytest.mark.parametrize("defense", [Steady, Noisy], ids=["steady", "random"])
    def test_who_answers_as_before_or_is_random_is_not_doubted(self, crafter: Crafter, defense: type[Defense]) -> None:
        prepared = toy_prepared(defense)
        first = self.answers(prepared)
        scored(prepared, crafter)
        assert list(doubt_state(prepared, first)) == []

    def test_who_has_learnt_from_the_attacks_is_doubted(self, crafter: Crafter) -> None:
        prepared = toy_prepared(Steady, Learning)
        first = self.answers(prepared)
        scored(prepared, crafter)
        (found,) = doubt_state(prepared, first)
        assert (found.source, found.defense, found.cell) == ("run", "learning", None)
        detail = "8 clean images are answered otherwise after the attacks than before"
        assert found.flag == FlagRecord(name=RANDOM, detail=detail, share=1.0)

    def test_who_fails_after_the_attacks_is_doubted_and_the_others_are_asked(self, crafter: Crafter) -> None:
        prepared = toy_prepared(Sulking, Learning)
        first = self.answers(prepared)
        scored(prepared, crafter)
        sulking, learning = doubt_state(prepared, first)
        assert (sulking.defense, sulking.flag.name, learning.defense) == ("sulking", NOT_ADMITTED, "learning")
        assert sulking.flag.detail == (
            "asked again after the attacks: defence 'sulking' fails on images: RuntimeError: not in the mood"
        )


class TestDoubts:
    def test_flags_go_to_their_cell_or_their_defence(self, crafter: Crafter) -> None:
        cells, _ = scored(toy_prepared(Steady, Pair, attacks=(Push(), Other())), crafter)
        one, two = FlagRecord(name=NOISE, detail="one"), FlagRecord(name=RANDOM, detail="two")
        doubts = Doubts(
            raised=(
                Doubt(flag=one, source="challenges", defense="steady", cell=cells[0].key),
                Doubt(flag=two, source="run", defense="pair"),
            )
        )
        assert [doubts.on_cell(cell).flags for cell in cells] == [(one,), (), (), ()]
        assert (doubts.on_defense("steady"), doubts.on_defense("pair")) == ((), (two,))

    def test_flags_that_a_cell_has_stay_first(self, crafter: Crafter) -> None:
        (cell,), _ = scored(toy_prepared(Hidden), crafter)
        late = FlagRecord(name=NOISE, detail="late")
        doubts = Doubts(raised=(Doubt(flag=late, source="challenges", defense="hidden", cell=cell.key),))
        assert doubts.on_cell(cell).flags == (*cell.flags, late)
