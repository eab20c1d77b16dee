"""Wilson intervals against values from the literature, and at the edges."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkd_bench.errors import ConfigError
from dkd_bench.statistics import interval, mean_interval, wilson_interval

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
    with pytest.raises(ConfigError, match=rf"needs at least one image, got n = {n}; ask for more with --n-ex"):
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
