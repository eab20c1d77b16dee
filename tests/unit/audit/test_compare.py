"""What is said of a cell whose images are not all there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from dkd_bench.data import CHUNK_SIZE
from dkd_bench.records import CandidateRecord, CellRecord, EvidenceRecord, Outcome
from dkd_bench.verify._answers import OUTCOMES, CandidateAnswers, Rescored
from dkd_bench.verify._compare import left_out_problems, problems

MakeCell = Callable[..., CellRecord]

CANDIDATE = CandidateRecord(name="whole", robust_accuracy=0.5, ci95=(0.0, 1.0), failed_majorities=0, abstained=0)


def answered(*draws: Sequence[Outcome], covered: Sequence[bool]) -> Rescored:
    outcomes = np.array([[OUTCOMES.index(word) for word in draw] for draw in draws], dtype=np.int8)
    nothing = np.zeros(len(covered), dtype=bool)
    answers = CandidateAnswers(
        outcomes=outcomes, rounded=outcomes, failed=nothing, rejected=nothing, distances=np.zeros(len(covered))
    )
    return Rescored(candidates={"whole": answers}, covered=np.array(covered))


def told(cell: CellRecord, now: Rescored) -> list[str]:
    return list(problems(cell.model_copy(update={"candidates": (CANDIDATE,)}), now, range(10, 10 + now.n)))


R, F, C = Outcome.ROBUST, Outcome.FOOLED, Outcome.CLEAN_ERROR


@pytest.mark.parametrize(
    ("recorded", "now", "image"),
    [
        # Where nothing is there, the clean image stands for the adversarial one.
        ("fr", [R, R], None),
        ("fr", [R, C], "image 1 (number 11 of the test set) is recorded as robust, re-scored it is clean_error"),
        ("cr", [R, R], "image 0 (number 10 of the test set) is recorded as clean_error, re-scored it is robust"),
        ("cf", [C, R], None),
    ],
)
def test_of_an_image_that_is_not_there_the_clean_answer_counts(
    make_cell: MakeCell, recorded: str, now: list[Outcome], image: str | None
) -> None:
    found = told(make_cell(recorded), answered(now, covered=[False, False]))
    assert found == ([] if image is None else [f"{image} (one image differs)"])


def test_an_image_that_survives_all_draws_cannot_be_wrong_when_clean_in_all(make_cell: MakeCell) -> None:
    cell = make_cell("rrr").model_copy(update={"survival": (1.0, 1.0, 1.0)})
    found = told(cell, answered([C, C, F], [C, R, F], covered=[False, False, False]))
    assert found == [
        "image 0 (number 10 of the test set) is recorded to survive 100% of the draws, of fresh ones it survives 0% "
        "(one image differs)"
    ]


def test_each_piece_of_evidence_keeps_every_image_that_the_cell_was_broken_with(make_cell: MakeCell) -> None:
    cell = make_cell("r" * CHUNK_SIZE + "rff").model_copy(update={"evidence": ("first", "second", "whole")})
    evidence = {
        key: EvidenceRecord(sha256="", target="net", attack="fgsm", norm="linf", eps=0.1, chunk=chunk, n=3)
        for key, chunk in (("first", 0), ("second", 1), ("whole", 1))
    }
    images = range(1000, 1000 + CHUNK_SIZE + 3)
    assert list(left_out_problems(cell, {"first": [0], "second": [1, 2]}, evidence, images)) == []
    assert list(left_out_problems(cell, {"first": [0], "second": [0, 2]}, evidence, images)) == [
        f"evidence second (fgsm on net) lacks image {CHUNK_SIZE + 1} (number {1001 + CHUNK_SIZE} of the test set), "
        "recorded as fooled: a run keeps every broken one (one image is not there)"
    ]
