from __future__ import annotations

from dkd_paper._trends import NEARLY_ALL, Comparison, trend


def compared(*comparisons):
    return [Comparison(*each) for each in comparisons]


def test_a_claim_that_holds_everywhere_is_confirmed():
    found = trend("A above B.", compared(("x", 0.5, 0.4), ("y", 0.6, 0.1)))

    assert found.verdict == "confirmed"
    assert found.evidence == "in 2 of 2 comparisons; x 0.5000 against 0.4000, y 0.6000 against 0.1000"


def test_what_goes_against_the_claim_is_named():
    found = trend("A above B.", compared(("a", 2, 1), ("b", 2, 1), ("c", 2, 1), ("not", 0.25, 0.5)), digits=2)

    assert found.verdict == "contradicted"
    assert found.evidence == "in 3 of 4 comparisons; not in not 0.25 against 0.50"


def test_equal_numbers_decide_nothing_and_are_counted():
    found = trend("A above B.", compared(("a", 2, 1), ("tie", 0.25, 0.25), ("tie", 0, 0)), digits=0)

    assert found.verdict == "confirmed"
    assert found.evidence == "in 1 of 1 comparisons; a 2 against 1; equal in 2 more"
    assert trend("A above B.", compared(("tie", 1, 1))).verdict == "not decided"


def test_almost_every_allows_for_some():
    comparisons = compared(*[("holds", 2.0, 1.0)] * 4, ("not", 1.0, 2.0))

    assert trend("A above B.", comparisons).verdict == "contradicted"
    assert trend("A above B.", comparisons, share=NEARLY_ALL).verdict == "confirmed"
    assert trend("A above B.", comparisons[1:], share=NEARLY_ALL).verdict == "contradicted"


def test_nothing_to_compare_decides_nothing():
    assert trend("A above B.", []).verdict == "not decided"


def test_a_missing_number_decides_nothing_and_is_named():
    found = trend("A above B.", compared(("x", 2.0, 1.0), ("gone", None, 1.0), ("lost", 1.0, None)))

    assert found.verdict == "confirmed"
    assert found.evidence == "in 1 of 1 comparisons; x 2.0000 against 1.0000; no number for gone, lost"


def test_the_authors_own_numbers_are_told_and_decide_nothing():
    found = trend("A above B.", compared(("x", 2.0, 1.0)), authors=compared(("x", 1.0, 2.0), ("y", 2.0, 1.0)))

    assert found.verdict == "confirmed"
    assert found.evidence.endswith("; in the authors' own numbers, in 1 of 2")
