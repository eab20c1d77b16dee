from __future__ import annotations

import pytest
from scipy.stats import binom

from dkd_bench.check import Rule, Sample, decide, holm
from dkd_bench.errors import ConfigError


def one(new, *references, **rule):
    pairs = [
        ([float(letter == "r") for letter in new], [float(letter == "r") for letter in each]) for each in references
    ]
    (decision,) = decide([Sample(pairs=pairs)], Rule(**rule))
    return decision


def test_holm_is_that_of_a_worked_example():
    # Four tests: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1, which may not be smaller than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


@pytest.mark.parametrize(("p_values", "corrected"), [([], ()), ([0.2], (0.2,)), ([0.6, 0.7], (1.0, 1.0))])
def test_holm_at_the_edges(p_values, corrected):
    assert holm(p_values) == corrected


def test_a_drop_has_the_exact_one_sided_p_value():
    decision = one("r" * 10 + "f" * 10, "r" * 16 + "f" * 4)
    assert decision.verdict == "regressed"
    assert (decision.reference_accuracy, decision.new_accuracy) == (0.8, 0.5)
    assert decision.difference.value == pytest.approx(-0.3)
    assert decision.p_value == pytest.approx(0.5**6)


def test_discordant_images_both_ways_count():
    # Five lost, one won: P(at most 1 of 6 heads) = 7/64, over 0.05.
    decision = one("rrrr" + "fffff" + "r", "rrrr" + "rrrrr" + "f")
    assert decision.p_value == pytest.approx(binom.cdf(1, 6, 0.5))
    assert decision.verdict == "same"


def test_the_same_in_the_other_direction_is_an_improvement():
    decision = one("r" * 16 + "f" * 4, "r" * 10 + "f" * 10)
    assert decision.verdict == "improved"
    assert decision.p_value == pytest.approx(0.5**6)


def test_a_significant_drop_no_larger_than_the_tolerance_is_the_same():
    new, old = "f" * 20 + "r" * 980, "r" * 1000
    assert one(new, old, tolerance=0.02).verdict == "same"
    assert one(new, old, tolerance=0.02).p_corrected < 1e-5
    assert one("f" * 21 + "r" * 979, old, tolerance=0.02).verdict == "regressed"


def test_rounding_of_fractions_is_no_drop():
    # 0.90 - 0.88 is 0.020000000000000018 in floating point.
    new, old = "r" * 88 + "f" * 12, "r" * 90 + "f" * 10
    assert one(new, old, tolerance=0.02, alpha=0.9).verdict == "same"
    assert one(new, old, tolerance=0.019, alpha=0.9).verdict == "regressed"


def test_alpha_is_shared_by_all_cells():
    # 5 lost of 5: p = 1/32, significant alone, not among two cells that are tested.
    lost = Sample(pairs=[([0.0] * 5 + [1.0] * 5, [1.0] * 10)])
    same = Sample(pairs=[([1.0] * 10, [1.0] * 10)])
    assert [each.verdict for each in decide([lost], Rule())] == ["regressed"]
    assert [each.verdict for each in decide([lost, same], Rule())] == ["same", "same"]
    assert decide([lost, same], Rule())[0].p_corrected == pytest.approx(2 / 32)


def test_better_cells_do_not_make_worse_ones_harder_to_find():
    worse = Sample(pairs=[([0.0] * 6 + [1.0] * 4, [1.0] * 10)])
    better = Sample(pairs=[([1.0] * 10, [0.0] * 6 + [1.0] * 4)])
    assert [each.verdict for each in decide([worse, better], Rule())] == ["regressed", "improved"]


def test_worse_than_several_runs_is_worse_than_every_one():
    new, high, low = "r" * 10 + "f" * 10, "r" * 18 + "f" * 2, "r" * 11 + "f" * 9
    assert one(new, high).verdict == "regressed"
    decision = one(new, high, low)
    assert decision.verdict == "same"
    assert decision.p_value == 0.5  # one lost of one, against the lowest
    assert decision.reference_accuracy == 0.55


def test_drop_is_counted_from_the_lowest_run():
    new, *runs = ("f" * lost + "r" * (200 - lost) for lost in (40, 30, 28, 29))
    assert one(new, *runs, tolerance=0.05).verdict == "same"
    assert one(new, *runs, tolerance=0.04).verdict == "regressed"


def test_what_may_be_the_luck_of_a_seed_is_no_regression():
    """Accuracies 0.9, 0.8 and 0.7 have s = 0.1; a fourth at 0.5 is t = 0.3 / (0.1 * sqrt(4/3)) = 2.598 below, df 2."""
    new, *runs = ("f" * lost + "r" * (200 - lost) for lost in (100, 20, 40, 60))
    assert all(one(new, run).verdict == "regressed" for run in runs)
    decision = one(new, *runs)
    assert decision.verdict == "same"
    assert decision.p_corrected == pytest.approx(0.0608, abs=1e-4)
    assert one("f" * 120 + "r" * 80, *runs).verdict == "regressed"


def cells_of(training, lost, *references, number=1):
    """Cells of one defence, all with the same outcomes out of 200 images."""
    pairs = [([0.0] * lost + [1.0] * (200 - lost), [0.0] * before + [1.0] * (200 - before)) for before in references]
    return [Sample(pairs=pairs, training=training)] * number


def test_luck_is_asked_once_of_a_defence_however_many_cells_it_has():
    """As above, 0.4 is t = 0.4 / 0.1155 = 3.464 below: p(t, 2) = 0.0371, whether one cell tells it or sixteen."""
    for number in (1, 16):
        decisions = decide(cells_of("dkd", 120, 20, 40, 60, number=number), Rule())
        assert {decision.verdict for decision in decisions} == {"regressed"}
        assert [decision.p_corrected for decision in decisions] == pytest.approx([0.0371] * number, abs=1e-4)


def test_luck_is_corrected_for_the_number_of_defences():
    samples = [*cells_of("dkd", 120, 20, 40, 60), *cells_of("none", 40, 20, 40, 60)]
    assert [each.verdict for each in decide(samples, Rule())] == ["same", "same"]
    assert decide(samples, Rule())[0].p_corrected == pytest.approx(2 * 0.0371, abs=2e-4)


def test_luck_is_that_of_the_mean_over_the_cells():
    """One cell falls from 0.8 to 0.4 and one stays: the mean falls to 0.6, t = 1.732, p(t, 2) = 0.1127."""
    samples = [*cells_of("dkd", 120, 20, 40, 60), *cells_of("dkd", 40, 20, 40, 60)]
    decisions = decide(samples, Rule())
    assert [each.verdict for each in decisions] == ["same", "same"]
    assert decisions[0].p_corrected == pytest.approx(0.1127, abs=1e-4)


def test_shares_of_draws_are_compared_by_a_t_test():
    from scipy.stats import ttest_rel

    new, old = [0.1, 0.5, 0.4, 0.9, 0.3, 0.2], [0.4, 0.6, 0.9, 1.0, 0.9, 0.5]
    (decision,) = decide([Sample(pairs=[(new, old)])], Rule())
    assert decision.verdict == "regressed"
    assert decision.p_value == pytest.approx(ttest_rel(new, old, alternative="less").pvalue)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ConfigError, match="alpha must be between 0 and 1, got"):
        Rule(alpha=alpha)


@pytest.mark.parametrize("tolerance", [-0.01, 1.0, float("nan")])
def test_tolerance_out_of_range_is_refused(tolerance):
    with pytest.raises(ConfigError, match="tolerance must be from 0 to below 1, got"):
        Rule(tolerance=tolerance)
