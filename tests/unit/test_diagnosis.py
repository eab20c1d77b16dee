"""Cells that contradict each other, made by hand: what is raised, where, and what is forgiven."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from dkd_bench.attacks import AttackMeta
from dkd_bench.doubts.contradictions import contradictions, count_lost_to_weaker, exceeds_chance
from dkd_bench.records import CandidateRecord, CellRecord, EvidenceRecord, FlagRecord
from dkd_bench.records.flags import (
    ATTACK_ERROR,
    BLACK_BOX,
    FLAGS,
    NOT_FALLING,
    SINGLE_STEP,
    TRANSFER,
    UNBOUNDED,
    UNVERIFIED,
    row_status,
)
from dkd_bench.threats import load_threat_models

MakeCell = Callable[..., CellRecord]

ATTACKS = {
    "fgsm": AttackMeta(name="fgsm", title="FGSM", kind="fixed", single_step=True),
    "pgd": AttackMeta(name="pgd", title="PGD", kind="fixed", effort="steps"),
    "detector-pgd": AttackMeta(name="detector-pgd", title="Detector PGD", kind="fixed", access="detectors"),
    "square": AttackMeta(name="square", title="Square", kind="fixed", access="scores"),
    "deepfool": AttackMeta(name="deepfool", title="DeepFool", kind="minimum_norm", norms=("l2",)),
    "jsma": AttackMeta(name="jsma", title="JSMA", kind="minimum_norm", norms=("l0",)),
}

THREAT_MODELS = {name: threat_model.meta for name, threat_model in load_threat_models(["all"]).items()}


def flags_of(cells: Sequence[CellRecord], broken: Sequence[int] = ()) -> list[list[str]]:
    """Return the names of the flags of each cell; ``broken`` counts images of the crafts ``craft-0``, ``craft-1``..."""
    evidence = {
        f"craft-{number}": EvidenceRecord(
            sha256="0" * 64, target="whole", attack="pgd", norm="linf", eps=0.1, chunk=0, n=10, broken=count
        )
        for number, count in enumerate(broken)
    }
    return [[flag.name for flag in flags] for flags in raised_on(cells, evidence)]


def raised_on(cells: Sequence[CellRecord], evidence: Mapping[str, EvidenceRecord]) -> list[list[FlagRecord]]:
    """Return the flags of each cell."""
    found = list(contradictions(cells, ATTACKS, THREAT_MODELS, evidence))
    return [[flag for doubted, flag in found if doubted is cell] for cell in cells]


def attacked(make_cell: MakeCell, robust: int, **words: Any) -> CellRecord:
    """Return a cell of 20 images, of which the last ``robust`` stand."""
    return make_cell("f" * (20 - robust) + "r" * robust, **words)


class TestSingleStep:
    def test_more_than_chance_is_flagged_on_the_iterative_attack(self, make_cell: MakeCell) -> None:
        cells = [attacked(make_cell, 10, attack="fgsm"), attacked(make_cell, 13)]
        assert flags_of(cells) == [[], [SINGLE_STEP]]
        (flag,) = raised_on(cells, {})[1]
        assert flag.detail == "fgsm fools 3 of 20 images that pgd does not"
        assert flag.share == 3 / 20

    def test_two_images_are_chance(self, make_cell: MakeCell) -> None:
        assert flags_of([attacked(make_cell, 10, attack="fgsm"), attacked(make_cell, 12)]) == [[], []]

    def test_images_are_compared_and_not_their_number(self, make_cell: MakeCell) -> None:
        cells = [make_cell("ffff" + "r" * 16, attack="fgsm"), make_cell("rrrr" + "f" * 16)]
        assert flags_of(cells) == [[], [SINGLE_STEP]]

    def test_other_targets_and_budgets_are_not_compared(self, make_cell: MakeCell) -> None:
        for words in ({"threat_model": "standalone"}, {"eps": 0.2}, {"defense": "kd"}, {"decision": "boosted"}):
            weak = attacked(make_cell, 0, attack="fgsm", **words)
            assert SINGLE_STEP not in flags_of([weak, attacked(make_cell, 9)])[1]

    def test_many_steps_are_held_together(self, make_cell: MakeCell) -> None:
        """No iterative attack alone fools what the single step does: the one this half, the other that."""
        weak = attacked(make_cell, 10, attack="fgsm")
        halves = [make_cell("fffff" + "r" * 15), make_cell("r" * 5 + "fffff" + "r" * 10, attack="detector-pgd")]
        assert flags_of([weak, halves[0]]) == [[], [SINGLE_STEP]]
        assert flags_of([weak, *halves]) == [[], [], []]

    def test_what_an_attack_that_is_blind_to_the_detectors_loses_to_them_is_no_masking(
        self, make_cell: MakeCell
    ) -> None:
        """PGD walks into what the defence rejects, FGSM stops before it; the attack that sees the detectors decides."""
        blind = [make_cell("f" * 10 + "r" * 10, attack="fgsm"), make_cell("a" * 8 + "f" * 6 + "r" * 6)]
        assert flags_of([*blind, attacked(make_cell, 4, attack="detector-pgd")]) == [[], [], []]
        assert flags_of(blind) == [[], [SINGLE_STEP]]

    def test_what_all_together_do_not_fool_is_flagged_on_the_strongest(self, make_cell: MakeCell) -> None:
        cells = [
            attacked(make_cell, 4, attack="fgsm"),
            make_cell("f" * 10 + "r" * 10),
            make_cell("r" * 2 + "f" * 11 + "r" * 7, attack="detector-pgd"),
        ]
        assert flags_of(cells) == [[], [], [SINGLE_STEP]]
        (flag,) = raised_on(cells, {})[2]
        assert flag.detail == "fgsm fools 3 of 20 images that detector-pgd and pgd together do not"
        assert flag.share == 3 / 20

    def test_a_minimum_norm_attack_is_iterative_within_its_budget(self, make_cell: MakeCell) -> None:
        words = {"norm": "l2", "eps": 0.5}
        weak, strong = attacked(make_cell, 10, attack="fgsm", **words), attacked(make_cell, 15, **words)
        within = attacked(make_cell, 9, attack="deepfool", **words)
        assert flags_of([weak, strong]) == [[], [SINGLE_STEP]]
        assert flags_of([weak, strong, within]) == [[], [], []]
        assert flags_of([weak, strong, within.model_copy(update={"eps": None})])[1] == [SINGLE_STEP]

    def test_draws_survived_count_by_their_majority(self, make_cell: MakeCell) -> None:
        survived = {"survival": (0.9,) * 20}
        cells = [attacked(make_cell, 20, attack="fgsm", survival=(0.3,) * 20), attacked(make_cell, 20, **survived)]
        assert flags_of(cells) == [[], [SINGLE_STEP]]
        near = [attacked(make_cell, 20, attack="fgsm", survival=(0.5,) * 20), attacked(make_cell, 20, **survived)]
        assert flags_of(near) == [[], []]


class TestBudgets:
    def test_images_that_stand_the_larger_budget_are_flagged_there(self, make_cell: MakeCell) -> None:
        cells = [attacked(make_cell, 13, eps=0.2), attacked(make_cell, 10, eps=0.1), attacked(make_cell, 2, eps=0.3)]
        assert flags_of(cells) == [[NOT_FALLING], [], []]

    def test_twice_the_budget_must_take_something_where_half_of_it_did(self, make_cell: MakeCell) -> None:
        cells = [attacked(make_cell, 10, eps=0.1), attacked(make_cell, 10, eps=0.2)]
        assert flags_of(cells) == [[], [NOT_FALLING]]
        assert flags_of([cells[0], attacked(make_cell, 9, eps=0.2)]) == [[], []]
        assert flags_of([cells[0], attacked(make_cell, 10, eps=0.19)]) == [[], []]

    def test_what_is_at_its_end_or_has_not_begun_is_forgiven(self, make_cell: MakeCell) -> None:
        for robust in (0, 2, 20):
            cells = [attacked(make_cell, robust, eps=0.1), attacked(make_cell, robust, eps=0.2)]
            assert flags_of(cells) == [[], []]

    def test_nothing_can_stand_a_budget_in_which_every_image_can_be_gray(self, make_cell: MakeCell) -> None:
        assert flags_of([attacked(make_cell, 3, eps=0.5)]) == [[NOT_FALLING]]
        assert flags_of([attacked(make_cell, 2, eps=0.5)]) == [[]]
        assert flags_of([attacked(make_cell, 3, eps=0.49)]) == [[]]
        assert flags_of([attacked(make_cell, 3, eps=0.5, norm="l2")]) == [[]]

    def test_rejects_of_a_larger_step_are_no_masking(self, make_cell: MakeCell) -> None:
        small, large = make_cell("f" * 10 + "r" * 10, eps=0.1), make_cell("a" * 8 + "f" * 2 + "r" * 9 + "a", eps=0.2)
        assert flags_of([small, large]) == [[], []]

    def test_a_single_step_may_go_too_far(self, make_cell: MakeCell) -> None:
        cells = [attacked(make_cell, robust, attack="fgsm", eps=eps) for robust, eps in ((10, 0.1), (15, 0.2))]
        assert flags_of(cells) == [[], []]


class TestSight:
    @pytest.mark.parametrize(
        "words", [{"threat_model": "black-box"}, {"threat_model": "aggregated"}, {"attack": "square"}]
    )
    def test_what_sees_less_must_not_find_more(self, make_cell: MakeCell, words: dict[str, str]) -> None:
        strong = [attacked(make_cell, 15), attacked(make_cell, 14, attack="fgsm")]
        assert flags_of([*strong, attacked(make_cell, 11, **words)]) == [[], [BLACK_BOX], []]
        assert flags_of([*strong, attacked(make_cell, 12, **words)]) == [[], [], []]

    def test_full_sight_is_what_all_its_attacks_find_together(self, make_cell: MakeCell) -> None:
        strong = [make_cell("fffff" + "r" * 15), make_cell("rrr" + "f" * 5 + "r" * 12, attack="fgsm")]
        assert flags_of([*strong, make_cell("f" * 8 + "r" * 12, threat_model="black-box")])[0:2] == [[SINGLE_STEP], []]


def candidates(*robust: float) -> tuple[CandidateRecord, ...]:
    return tuple(
        CandidateRecord(name=f"surrogate-{n}", robust_accuracy=each, ci95=(0, 1), failed_majorities=0, abstained=0)
        for n, each in enumerate(robust)
    )


class TestTargets:
    def test_a_surrogate_that_falls_alone_is_flagged(self, make_cell: MakeCell) -> None:
        cell = attacked(make_cell, 15, candidates=candidates(0.75), evidence=("craft-0", "craft-1"))
        assert flags_of([cell], broken=[6, 4]) == [[TRANSFER]]
        assert flags_of([cell], broken=[5, 4]) == [[]]

    def test_the_surrogate_that_does_most_harm_is_looked_at(self, make_cell: MakeCell) -> None:
        cell = attacked(make_cell, 5, candidates=candidates(0.9, 0.25), evidence=("craft-0", "craft-1"))
        assert flags_of([cell], broken=[20, 16]) == [[]]
        assert flags_of([cell], broken=[20, 20]) == [[TRANSFER]]

    def test_what_is_rejected_is_not_held_against_the_surrogate(self, make_cell: MakeCell) -> None:
        rejecting = [each.model_copy(update={"abstained": 10}) for each in candidates(0.75)]
        cell = attacked(make_cell, 15, candidates=rejecting, evidence=("craft-0",))
        assert flags_of([cell], broken=[18]) == [[]]
        assert flags_of([cell], broken=[20]) == [[TRANSFER]]

    def test_one_draw_of_a_randomised_target_is_held_less_against_many(self, make_cell: MakeCell) -> None:
        words = {"candidates": candidates(0.75), "evidence": ("craft-0",), "survival": (0.75,) * 20}
        assert flags_of([attacked(make_cell, 15, **words)], broken=[13]) == [[]]
        assert flags_of([attacked(make_cell, 15, **words)], broken=[14]) == [[TRANSFER]]

    def test_records_that_do_not_count_are_not_judged(self, make_cell: MakeCell) -> None:
        cell = attacked(make_cell, 15, candidates=candidates(0.75), evidence=("craft-0",))
        evidence = {
            "craft-0": EvidenceRecord(sha256="0" * 64, target="w", attack="pgd", norm="linf", eps=0.1, chunk=0, n=20)
        }
        assert raised_on([cell], evidence) == [[]]

    def test_without_budget_an_attack_must_reach_its_own_target(self, make_cell: MakeCell) -> None:
        words = {"attack": "deepfool", "norm": "l2", "evidence": ("craft-0",), "candidates": candidates(0.5)}
        cells = [attacked(make_cell, 10, eps=None, **words), attacked(make_cell, 18, eps=0.5, **words)]
        assert flags_of(cells, broken=[18]) == [[UNBOUNDED], [UNBOUNDED]]
        assert flags_of(cells, broken=[19]) == [[], []]

    def test_a_randomised_target_answers_otherwise_when_it_is_counted(self, make_cell: MakeCell) -> None:
        words = {"attack": "deepfool", "norm": "l2", "evidence": ("craft-0",), "candidates": candidates(0.5)}
        assert flags_of([attacked(make_cell, 10, eps=None, survival=(0.5,) * 20, **words)], broken=[5]) == [[]]

    def test_in_l0_an_attack_need_not(self, make_cell: MakeCell) -> None:
        words = {"attack": "jsma", "norm": "l0", "evidence": ("craft-0",), "candidates": candidates(0.5)}
        assert flags_of([attacked(make_cell, 10, eps=None, **words)], broken=[10]) == [[]]


def test_an_error_is_flagged_unless_it_says_what_it_is(make_cell: MakeCell) -> None:
    known = FlagRecord(name=UNVERIFIED, detail="over budget")
    failed = make_cell(status="error", reason="out of memory")
    assert flags_of([failed, make_cell(status="error", reason="over budget", flags=(known,))]) == [
        [ATTACK_ERROR],
        [],
    ]
    assert raised_on([failed], {})[0][0].detail == "out of memory"


def test_counting() -> None:
    assert count_lost_to_weaker([1, 1, 0, 0], [0, 1, 0, 1]) == 1
    assert not exceeds_chance(2, 10)
    assert exceeds_chance(3, 10)
    assert not exceeds_chance(20, 1000)
    assert exceeds_chance(21, 1000)


def test_the_worst_flag_decides_what_becomes_of_a_row() -> None:
    assert row_status(()) == "accepted"
    assert row_status([SINGLE_STEP]) == "suspicious"
    assert row_status([SINGLE_STEP, ATTACK_ERROR]) == "invalid"
    assert row_status(["of another version"]) == "suspicious"
    assert {flag.severity for flag in FLAGS.values()} == {"suspicious", "invalid"}
