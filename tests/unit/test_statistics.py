"""Wilson intervals against values from the literature, and at the edges."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkd_bench.errors import ConfigError
from dkd_bench.records.statistics import interval, mean_interval, paired_difference, prediction_p_value, wilson_interval

# Newcombe (1998), Table I, method 3, gives the first four.
KNOWN = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718),
    (82, 200, 0.3442, 0.4792),
    (200, 200, 0.9812, 1.0),
]


@pytest.mark.parametrize(("successes", "n", "low", "high"), KNOWN)
def test_wilson_interval_known_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [1, 2, 7, 200, 10_000])
def test_wilson_interval_reaches_the_edges_exactly(n: int) -> None:
    low, high = wilson_interval(0, n)
    assert low == 0.0
    assert 0 < high < 1
    assert wilson_interval(n, n) == pytest.approx((1 - high, 1.0))
    assert wilson_interval(n, n)[1] == 1.0


def test_interval_holds_value_and_bounds() -> None:
    found = interval(82, 200)
    assert found.value == 0.41
    assert found.ci95 == wilson_interval(82, 200)


@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_covers_its_value(counts: tuple[int, int]) -> None:
    found = interval(*counts)
    assert 0 <= found.ci95[0] <= found.value <= found.ci95[1] <= 1


def test_mean_interval_of_whole_shares_is_the_interval_of_counts() -> None:
    assert mean_interval([1.0, 0.0, 1.0, 1.0]) == interval(3, 4)


def test_mean_interval_between_two_counts_takes_the_wider_bounds() -> None:
    found = mean_interval([0.5, 1.0, 1.0, 0.0])
    assert found.value == 0.625
    assert found.ci95 == (wilson_interval(2, 4)[0], wilson_interval(3, 4)[1])


def test_mean_interval_is_not_widened_by_rounding() -> None:
    assert mean_interval([0.1] * 10) == interval(1, 10)


@pytest.mark.parametrize("n", [0, -3])
def test_no_images_have_no_interval(n: int) -> None:
    with pytest.raises(ConfigError, match=rf"needs at least one image, got n = {n}; ask for more with n_ex"):
        wilson_interval(0, n)


def test_no_shares_have_no_mean() -> None:
    with pytest.raises(ConfigError, match="needs at least one image, got n = 0"):
        mean_interval([])


@pytest.mark.parametrize("successes", [-1, 5])
def test_successes_must_fit(successes: int) -> None:
    with pytest.raises(ValueError, match=rf"successes must be in \[0, 4\], got {successes}"):
        wilson_interval(successes, 4)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_shares_must_be_fractions(share: float) -> None:
    with pytest.raises(ValueError, match=rf"shares must be in \[0, 1\], got {share}"):
        mean_interval([0.5, share])


class TestPrediction:
    def test_one_more_value_is_judged_by_students_t(self) -> None:
        """Of 0.9, 0.8, 0.7 s is 0.1; 0.5 is 0.3 / (0.1 * sqrt(4 / 3)) = 2.598 below: p(t, 2) = 0.0608."""
        assert prediction_p_value([0.9, 0.8, 0.7], 0.5, alternative="less") == pytest.approx(0.0608, abs=1e-4)
        assert prediction_p_value([0.9, 0.8, 0.7], 0.5, alternative="greater") == pytest.approx(1 - 0.0608, abs=1e-4)
        assert prediction_p_value([0.9, 0.8, 0.7], 0.8, alternative="less") == pytest.approx(0.5)

    def test_without_spread_anything_else_is_surely_another_kind(self) -> None:
        assert prediction_p_value([0.5, 0.5], 0.4, alternative="less") == 0
        assert prediction_p_value([0.5, 0.5], 0.5, alternative="less") == 1
        assert prediction_p_value([0.5, 0.5], 0.6, alternative="less") == 1

    def test_one_value_has_no_spread(self) -> None:
        with pytest.raises(ValueError, match="two data points"):
            prediction_p_value([0.5], 0.4, alternative="less")


class TestPairedDifference:
    @pytest.mark.parametrize(
        ("wins", "losses", "p_value"), [(0, 0, 1.0), (5, 0, 0.0625), (0, 6, 0.03125), (10, 3, 0.09229), (2, 2, 1.0)]
    )
    def test_outcomes_are_compared_by_mcnemars_exact_test(self, wins: int, losses: int, p_value: float) -> None:
        """Two-sided binomial probabilities, by hand: twice the tail of 2^-(wins + losses)."""
        first = [1.0] * wins + [0.0] * losses + [1.0] * 5 + [0.0] * 4
        second = [0.0] * wins + [1.0] * losses + [1.0] * 5 + [0.0] * 4
        found = paired_difference(first, second)
        assert found.p_value == pytest.approx(p_value, abs=1e-5)
        assert found.value == pytest.approx((wins - losses) / len(first))

    def test_one_side_is_half_of_two(self) -> None:
        first, second = [0.0] * 6 + [1.0] * 4, [1.0] * 10
        assert paired_difference(first, second, alternative="less").p_value == pytest.approx(1 / 64)
        assert paired_difference(first, second, alternative="greater").p_value == 1.0

    def test_the_interval_is_that_of_the_discordant_images(self) -> None:
        """Clopper and Pearson's for 10 of 13 is [0.4619, 0.9496]; of 20 images 13 are discordant."""
        found = paired_difference([1.0] * 10 + [0.0] * 3 + [1.0] * 7, [0.0] * 10 + [1.0] * 3 + [1.0] * 7)
        assert found.ci95 == pytest.approx(((2 * 0.46187 - 1) * 13 / 20, (2 * 0.94962 - 1) * 13 / 20), abs=1e-4)

    @given(outcomes=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
    def test_a_tie_is_where_the_test_says_nothing(self, outcomes: list[tuple[bool, bool]]) -> None:
        first, second = ([float(each[side]) for each in outcomes] for side in (0, 1))
        found = paired_difference(first, second)
        assert found.is_tie == (found.p_value > 0.05)
        assert found.ci95[0] <= found.value <= found.ci95[1]
        back = paired_difference(second, first)
        assert (back.value, back.p_value) == (-found.value, pytest.approx(found.p_value))

    def test_shares_are_compared_by_students_paired_t(self) -> None:
        """Differences 0.1, 0.2, 0.3, 0.4: mean 0.25, standard error 0.06455, t(3, 97.5 %) = 3.182."""
        found = paired_difference([0.6, 0.7, 0.8, 0.9], [0.5] * 4)
        assert found.value == pytest.approx(0.25)
        assert found.ci95 == pytest.approx((0.25 - 3.1824 * 0.06455, 0.25 + 3.1824 * 0.06455), abs=1e-4)
        assert found.p_value == pytest.approx(0.0305, abs=1e-4)

    def test_shares_without_spread_are_as_sure_as_outcomes(self) -> None:
        few, many = paired_difference([0.6] * 5, [0.5] * 5), paired_difference([0.6] * 6, [0.5] * 6)
        assert few.is_tie
        assert not many.is_tie
        assert many.value == pytest.approx(0.1)
        assert many.ci95[0] <= many.value <= many.ci95[1]

    def test_rounding_of_shares_is_no_spread(self) -> None:
        found = paired_difference([0.2, 0.9, 0.3], [0.1, 0.8, 0.2])
        assert found.p_value == pytest.approx(0.25)
        assert found.is_tie

    def test_images_must_be_the_same(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            paired_difference([1.0, 0.0], [1.0])
        with pytest.raises(ConfigError, match="needs at least one image"):
            paired_difference([], [])
