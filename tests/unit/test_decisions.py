"""Votes worked by hand, and a plain-Python count of every vote that hypothesis can think of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dkd_bench.defense import NO_MAJORITY
from dkd_bench.defense.decisions import boosted, majority, voting_rules
from dkd_bench.errors import ConfigError
from dkd_bench.records.rules import RULES, deployed_rule, mark_of


def ballots(*rankings: Sequence[int], n_classes: int = 6) -> Tensor:
    """Return logits ``(M, 1, K)`` of members that each prefer the classes of their ranking, in its order."""
    logits = torch.zeros(len(rankings), 1, n_classes)
    for member, ranking in enumerate(rankings):
        rest = [label for label in range(n_classes) if label not in ranking]
        for place, label in enumerate([*ranking, *rest]):
            logits[member, 0, label] = -float(place)
    return logits


def side_by_side(*images: Tensor) -> Tensor:
    return torch.cat(images, dim=1)


MAJORITIES = [
    pytest.param([[4]], 4, id="one of one"),
    pytest.param([[4], [4]], 4, id="two of two"),
    pytest.param([[4], [5]], NO_MAJORITY, id="one of two"),
    pytest.param([[1], [1], [1]], 1, id="three of three"),
    pytest.param([[1], [5], [1]], 1, id="two of three"),
    pytest.param([[1], [5], [0]], NO_MAJORITY, id="all differ"),
    pytest.param([[2], [2], [3], [2]], 2, id="three of four"),
    pytest.param([[2], [2], [3], [4]], NO_MAJORITY, id="two of four, the others apart"),
    pytest.param([[2], [2], [3], [3]], NO_MAJORITY, id="two against two"),
    pytest.param([[0], [3], [0], [3], [0]], 0, id="three of five"),
    pytest.param([[0], [0], [1], [2], [3]], NO_MAJORITY, id="two of five, the others apart"),
]


@pytest.mark.parametrize(("rankings", "expected"), MAJORITIES)
def test_majority(rankings: list[list[int]], expected: int) -> None:
    assert majority(ballots(*rankings)).tolist() == [expected]


BOOSTED = [
    pytest.param([[0, 1], [2, 1], [3, 4]], 1, id="second choices agree"),
    pytest.param([[0, 1], [1, 2], [3, 4]], 1, id="first and second choices count alike"),
    pytest.param([[0, 1], [2, 1], [1, 0]], 1, id="in all lists before in two"),
    pytest.param([[0, 1], [1, 2], [2, 3]], NO_MAJORITY, id="two classes in two lists each"),
    pytest.param([[0, 1], [1, 0]], NO_MAJORITY, id="two classes in all lists"),
    pytest.param([[0, 1], [2, 3], [4, 5]], NO_MAJORITY, id="no class twice"),
    pytest.param([[0, 1], [2, 1], [3, 4], [4, 5]], NO_MAJORITY, id="two of four lists are too few"),
    pytest.param([[0, 1], [2, 1], [3, 1], [4, 5]], 1, id="three of four lists"),
    pytest.param([[0, 1], [1, 2]], 1, id="both of two lists"),
    pytest.param([[0, 1], [2, 3]], NO_MAJORITY, id="one of two lists"),
    pytest.param([[0, 5], [1, 5], [2, 5], [3, 0], [4, 1]], 5, id="three of five lists"),
    pytest.param([[0, 5], [1, 5], [2, 3], [3, 0], [4, 1]], NO_MAJORITY, id="two of five lists"),
    pytest.param([[0, 1], [0, 1], [1, 2]], 0, id="a majority stands"),
]


@pytest.mark.parametrize(("rankings", "expected"), BOOSTED)
def test_boosted(rankings: list[list[int]], expected: int) -> None:
    assert boosted(ballots(*rankings)).tolist() == [expected]


def test_boosting_does_not_overturn_a_majority() -> None:
    # Class 1 is in three lists, class 0 in two; but 0 has the majority of first choices.
    logits = ballots([0, 1], [0, 1], [1, 2])
    assert boosted(logits).tolist() == majority(logits).tolist() == [0]


def test_images_are_judged_one_by_one() -> None:
    logits = side_by_side(
        ballots([1], [1], [0]), ballots([0, 1], [2, 1], [3, 4]), ballots([0, 1], [2, 3], [4, 5]), ballots([5], [5], [5])
    )
    assert majority(logits).tolist() == [1, NO_MAJORITY, NO_MAJORITY, 5]
    assert boosted(logits).tolist() == [1, 1, NO_MAJORITY, 5]


def test_labels_are_int64() -> None:
    logits = ballots([0], [1], [2])
    assert majority(logits).dtype == torch.int64
    assert boosted(logits).dtype == torch.int64


def test_longer_lists() -> None:
    logits = ballots([0, 1, 5], [1, 2, 5], [2, 3, 5])
    assert boosted(logits, top_n=2).tolist() == [NO_MAJORITY]
    assert boosted(logits, top_n=3).tolist() == [5]


def test_lists_of_one_boost_nothing() -> None:
    logits = side_by_side(ballots([0, 1], [2, 1], [3, 4]), ballots([0], [0], [1]))
    assert torch.equal(boosted(logits, top_n=1), majority(logits))


def test_lists_of_all_classes_boost_nothing() -> None:
    assert boosted(ballots([0, 1], [2, 1], [3, 4]), top_n=6).tolist() == [NO_MAJORITY]


@pytest.mark.parametrize("top_n", [0, -1, 7])
def test_lists_have_from_one_to_all_classes(top_n: int) -> None:
    with pytest.raises(ConfigError, match=rf"top_n must be from 1 to the 6 classes, got {top_n}"):
        boosted(ballots([0], [1], [2]), top_n=top_n)


@st.composite
def votes(draw: st.DrawFn) -> tuple[list[list[list[int]]], int]:
    """Rankings of all classes by every member for every image, and the length of the lists."""
    members, images, n_classes = draw(st.integers(1, 7)), draw(st.integers(1, 4)), draw(st.integers(2, 5))
    ranking = st.permutations(range(n_classes))
    image = st.lists(ranking, min_size=members, max_size=members)
    return draw(st.lists(image, min_size=images, max_size=images)), draw(st.integers(1, n_classes))


def slow_vote(lists: list[list[int]], *, only_one_winner: bool) -> int:
    members = len(lists)
    counts = {label: sum(label in named for named in lists) for named_by in lists for label in named_by}
    enough = [label for label, count in counts.items() if 2 * count >= members + 1]
    winners = [label for label in enough if counts[label] == max(counts.values())]
    if not winners or (only_one_winner and len(winners) > 1):
        return NO_MAJORITY
    return winners[0]


@given(votes())
def test_votes_equal_a_plain_count(drawn: tuple[list[list[list[int]]], int]) -> None:
    images, top_n = drawn
    n_classes = len(images[0][0])
    logits = side_by_side(*(ballots(*rankings, n_classes=n_classes) for rankings in images))
    firsts = [slow_vote([ranking[:1] for ranking in rankings], only_one_winner=False) for rankings in images]
    seconds = [slow_vote([ranking[:top_n] for ranking in rankings], only_one_winner=True) for rankings in images]
    assert majority(logits).tolist() == firsts
    assert boosted(logits, top_n=top_n).tolist() == [
        second if first == NO_MAJORITY else first for first, second in zip(firsts, seconds, strict=True)
    ]


def test_rules_of_a_vote() -> None:
    logits = ballots([0, 1, 5], [1, 2, 5], [2, 3, 5])
    told = {rule.facts.name: rule.decide(logits).tolist() for rule in voting_rules(top_n=3)}
    assert told == {"majority": [NO_MAJORITY], "boosted": [5]}
    assert [rule.facts.name for rule in voting_rules(top_n=2) if rule.facts.deployed] == ["boosted"]


def test_marks() -> None:
    assert {name: mark_of(name) for name in (*RULES, "of-a-plugin")} == {
        "deployed": "",
        "majority": "",
        "boosted": "*",
        "of-a-plugin": "",
    }


def test_the_deployed_rule_is_the_one_recorded_and_in_old_records_the_last() -> None:
    assert deployed_rule("majority", ("majority", "boosted")) == "majority"
    assert deployed_rule(None, ("majority", "boosted")) == "boosted"
    assert deployed_rule("deployed", ("strict", "lenient")) == "lenient"
