"""The hard margin of a few points whose margin can be told by hand, and what it says of its own exactness."""

from __future__ import annotations

import numpy as np
import pytest

from dkd_bench.separation.margin import ACCEPTED_GAP, Margin, NoMargin, Points, Sides, hard_margin, least_error


def clouds(first: list[list[float]], second: list[list[float]]) -> tuple[Points, Sides]:
    return np.array(first + second), np.array([True] * len(first) + [False] * len(second))


@pytest.mark.parametrize(
    ("first", "second", "width"),
    [
        pytest.param([[3.0, 0.0]], [[0.0, 4.0]], 5.0, id="point to point"),
        pytest.param([[2.0, 0.3]], [[0.0, -1.0], [0.0, 1.0]], 2.0, id="point to edge"),
        pytest.param([[2.0, 3.0]], [[-1.0, -1.0], [-1.0, 3.0], [0.0, 0.0]], 2.8460498941515414, id="point to slope"),
        pytest.param([[1.0, 0.0], [1.0, 2.0]], [[0.0, 1.0], [0.0, 3.0]], 1.0, id="edge to edge"),
        pytest.param([[0.5], [0.9]], [[-0.5], [0.25]], 0.25, id="on a line"),
    ],
)
def test_the_margin_is_the_distance_between_the_hulls(
    first: list[list[float]], second: list[list[float]], width: float
) -> None:
    for points, sides in (clouds(first, second), clouds(second, first)):
        found = hard_margin(points, sides)
        assert isinstance(found, Margin)
        assert found.attained == pytest.approx(width, rel=1e-6)
        assert found.bound >= found.attained * (1 - 1e-9)
        assert found.duality_gap < ACCEPTED_GAP
        assert 2 <= found.support_vectors <= len(points)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param([[0.0, 0.0]], [[-1.0, 0.0], [1.0, 0.0]], id="point on an edge"),
        pytest.param([[0.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], id="crossing"),
        pytest.param([[1.0, 1.0]], [[1.0, 1.0]], id="one point"),
    ],
)
def test_hulls_that_touch_have_none(first: list[list[float]], second: list[list[float]]) -> None:
    found = hard_margin(*clouds(first, second))
    assert isinstance(found, NoMargin)
    assert found.separable is False


def test_points_left_out_of_the_first_subset_are_added() -> None:
    """One point in a thousand lies nearer; a first choice of evenly spaced ones leaves it out."""
    first = [[1.0 + place / 1000, 0.0] for place in range(1000)]
    first[499] = [0.25, 0.0]
    found = hard_margin(*clouds(first, [[0.0, 0.0]]))
    assert isinstance(found, Margin)
    assert found.rounds > 1
    assert found.attained == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("attained", "functional", "gap"), [(2.0, 1.0, 0.0), (1.0, 0.5, 0.75), (0.0, 0.0, 1.0), (-1.0, -0.5, 1.25)]
)
def test_the_gap_is_between_what_is_attained_and_what_is_ruled_out(
    attained: float, functional: float, gap: float
) -> None:
    found = Margin(attained=attained, bound=2.0, largest_alpha=1.0, support_vectors=2, rounds=1)
    assert (found.functional_margin, found.duality_gap) == (functional, gap)


def test_the_least_error_of_points_on_a_line() -> None:
    """Of eight points, one lies on the other side."""
    first = [[1.0], [2.0], [3.0], [-1.5]]
    second = [[-1.0], [-2.0], [-3.0], [-4.0]]
    assert least_error(*clouds(first, second)) == 1 / 8


def test_of_one_and_the_same_point_the_smaller_side_is_wrong() -> None:
    assert least_error(*clouds([[0.0]] * 3, [[0.0]] * 9)) == 0.25
