"""Numbers out of hand-made records, one letter for each image."""

from __future__ import annotations

import pytest

from dkd_bench.errors import EvidenceError
from dkd_bench.records.statistics import wilson_interval
from dkd_paper._measurements import Measurements, estimate


@pytest.fixture
def study(make_cell, make_run):
    """Two seeds of one part: black-box FGSM at 0.1 on DKD, both rules."""

    def one(majority: str, boosted: str, seed: int):
        where = {"threat_model": "black-box", "attack": "fgsm"}
        return make_run([make_cell(majority, **where), make_cell(boosted, decision="boosted", **where)], seed=seed)

    return Measurements(
        {
            ("black-box-fgsm", 0): one("crrrmmmffr", "crrrrmfffr", 0),
            ("black-box-fgsm", 1): one("rrrrrrmmrr", "rrrrrrrrrr", 1),
            ("other", 0): one("ffffffffff", "ffffffffff", 0),
        }
    )


ASKED = ("black-box-fgsm", "dkd", "boosted", "black-box", 0.1)


def test_accuracy_is_the_mean_over_seeds_with_its_spread(study):
    found = study.robust(*ASKED)

    assert found.by_seed == pytest.approx((0.5, 1.0))
    assert found.value == pytest.approx(0.75)
    assert found.spread == pytest.approx(0.5 / 2**0.5)
    assert found.n == 10


def test_the_interval_is_that_of_the_images_of_one_seed(study):
    low, high = study.robust(*ASKED).ci95

    assert low == pytest.approx(wilson_interval(7, 10)[0])
    assert high == pytest.approx(wilson_interval(8, 10)[1])


def test_failed_majorities_are_a_share(study):
    assert study.failed_majorities("black-box-fgsm", "dkd", "majority", "black-box", 0.1).by_seed == (0.3, 0.2)


def test_gain_counts_images_that_boosting_saves(study):
    assert study.gain("black-box-fgsm", "dkd", "black-box", 0.1).by_seed == (0.1, 0.2)


def test_clean_accuracy_is_that_of_the_part(study):
    assert study.clean("black-box-fgsm", "dkd", "boosted").value == pytest.approx(0.9)


def test_one_seed_has_no_spread():
    assert estimate([0.25], 8).spread is None


def test_a_number_that_a_run_lacks_is_named(study):
    with pytest.raises(EvidenceError, match=r"has no number for dkd/boosted/joint at eps 0\.1; .* run again"):
        study.robust("black-box-fgsm", "dkd", "boosted", "joint", 0.1)
