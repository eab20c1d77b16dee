"""What became of each image, and the worst of several attempts on it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkd_bench.errors import ConfigError
from dkd_bench.records import SURVIVED, WORST_FIRST, ImageOutcomes, Outcome, worst_of
from dkd_bench.records.statistics import interval, mean_interval

R, F, M, A, C = Outcome.ROBUST, Outcome.FOOLED, Outcome.FAILED_MAJORITY, Outcome.ABSTAINED, Outcome.CLEAN_ERROR
N = 5
outcomes = st.lists(st.sampled_from(list(Outcome)), min_size=N, max_size=N).map(tuple)
several = st.lists(
    st.builds(
        lambda told, shares: ImageOutcomes(outcomes=told, survival=shares),
        outcomes,
        st.none() | st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=N, max_size=N).map(tuple),
    ),
    min_size=1,
    max_size=6,
)


class TestWorstOf:
    @settings(deadline=None)
    @given(several)
    def test_it_is_at_most_every_one(self, parts: list[ImageOutcomes]) -> None:
        assert all(worst_of(parts).robust.value <= part.robust.value for part in parts)

    @settings(deadline=None)
    @given(several.flatmap(lambda parts: st.tuples(st.just(parts), st.permutations(parts))))
    def test_it_is_commutative(self, both: tuple[list[ImageOutcomes], list[ImageOutcomes]]) -> None:
        assert worst_of(both[0]) == worst_of(both[1])

    @settings(deadline=None)
    @given(several, several)
    def test_it_is_associative(self, first: list[ImageOutcomes], second: list[ImageOutcomes]) -> None:
        assert worst_of([worst_of(first), worst_of(second)]) == worst_of([*first, *second])

    @settings(deadline=None)
    @given(several)
    def test_it_is_idempotent(self, parts: list[ImageOutcomes]) -> None:
        assert worst_of([*parts, *parts]) == worst_of(parts)

    @settings(deadline=None)
    @given(several)
    def test_its_shares_are_the_least_shares(self, parts: list[ImageOutcomes]) -> None:
        least = [min(image) for image in zip(*(part.shares for part in parts), strict=True)]
        assert list(worst_of(parts).shares) == least

    def test_precedence(self) -> None:
        order = [C, F, M, A, R]
        assert list(WORST_FIRST) == order
        for place, worse in enumerate(order):
            for better in order[place:]:
                parts = [ImageOutcomes(outcomes=(outcome,)) for outcome in (better, worse)]
                assert worst_of(parts).outcomes == (worse,)

    def test_of_unlike_numbers_of_images_is_refused(self) -> None:
        with pytest.raises(ValueError, match="shorter"):
            worst_of([ImageOutcomes(outcomes=(R, F)), ImageOutcomes(outcomes=(R,))])


def test_only_robust_and_abstained_survive() -> None:
    assert {R, A} == SURVIVED


def test_of_a_deterministic_defence_images_are_counted() -> None:
    told = ImageOutcomes(outcomes=(R, F, M, A, C))
    assert told.shares == (1, 0, 0, 1, 0)
    assert told.robust == interval(2, 5)
    assert [told.count(outcome) for outcome in (R, C)] == [1, 1]


def test_of_a_randomised_defence_shares_of_draws_are_counted() -> None:
    told = ImageOutcomes(outcomes=(R, F), survival=(0.9, 0.3))
    assert told.shares == (0.9, 0.3)
    assert told.robust == mean_interval((0.9, 0.3))


@given(outcomes)
def test_counting_images_is_counting_shares_of_one_draw(told: tuple[Outcome, ...]) -> None:
    once = ImageOutcomes(outcomes=told)
    assert once.robust == ImageOutcomes(outcomes=told, survival=once.shares).robust


def test_without_images_there_is_no_accuracy() -> None:
    with pytest.raises(ConfigError, match="at least one image"):
        _ = ImageOutcomes(outcomes=()).robust


def test_of_draws_the_most_frequent_outcome_counts_and_of_equals_the_worst() -> None:
    told = ImageOutcomes.of_draws([(R, R, F, C), (R, F, F, C), (F, M, R, C), (F, M, A, C)], randomized=True)
    assert told.outcomes == (F, M, F, C)
    assert told.survival == (0.5, 0.25, 0.5, 0.0)


def test_of_one_draw_no_shares_are_kept() -> None:
    assert ImageOutcomes.of_draws([(R, F)], randomized=False) == ImageOutcomes(outcomes=(R, F))


@pytest.mark.parametrize("survival", [None, (0.5, 1.0, 0.0)])
def test_chunks_are_joined_in_their_order(survival: tuple[float, ...] | None) -> None:
    whole = ImageOutcomes(outcomes=(R, A, F), survival=survival)
    parts = [
        ImageOutcomes(outcomes=whole.outcomes[rows], survival=survival and survival[rows])
        for rows in (slice(0, 2), slice(2, 3))
    ]
    assert ImageOutcomes.joined(parts) == whole
