"""How long crafts still take: of known ones, by hand."""

from __future__ import annotations

from torch import nn

from dkd_bench.executors.remaining import RemainingCrafts, Workload, layer_count


def remaining(*crafts: tuple[str, str, int], at_once: int = 1) -> RemainingCrafts:
    missing = {key: Workload(attack=attack, layers=layers) for key, attack, layers in crafts}
    return RemainingCrafts(missing, at_once=at_once)


def test_unknown_until_one_craft_of_each_attack_was_made() -> None:
    crafts = remaining(("a", "pgd", 7), ("b", "pgd", 7), ("c", "fgsm", 7), ("d", "fgsm", 7))
    assert crafts.seconds_left is None
    crafts.made("a", 10.0)
    assert crafts.seconds_left is None
    crafts.made("c", 1.0)
    assert crafts.seconds_left == 11.0


def test_an_attack_of_which_nothing_is_missing_need_not_be_known() -> None:
    crafts = remaining(("a", "pgd", 7), ("b", "fgsm", 7), ("c", "fgsm", 7))
    crafts.made("b", 1.0)
    assert crafts.seconds_left is None
    crafts.made("a", 100.0)
    assert crafts.seconds_left == 1.0


def test_networks_take_their_time_by_their_layers() -> None:
    crafts = remaining(("ensemble", "pgd", 21), ("member", "pgd", 7), ("reference", "pgd", 5))
    crafts.made("ensemble", 42.0)
    assert crafts.seconds_left == 24.0


def test_the_last_craft_of_an_attack_counts() -> None:
    crafts = remaining(("a", "pgd", 1), ("b", "pgd", 1), ("c", "pgd", 1))
    crafts.made("a", 5.0)
    crafts.made("b", 3.0)
    assert crafts.seconds_left == 3.0


def test_side_by_side_they_take_their_share() -> None:
    crafts = remaining(("a", "pgd", 1), ("b", "pgd", 1), ("c", "pgd", 1), at_once=2)
    crafts.made("a", 10.0)
    assert crafts.seconds_left == 10.0


def test_crafts_that_were_there_take_no_time_and_say_nothing() -> None:
    crafts = remaining(("a", "pgd", 1), ("b", "pgd", 1))
    crafts.made("found", 1000.0)
    assert crafts.seconds_left is None
    crafts.made("a", 2.0)
    crafts.made("a", 50.0)
    assert crafts.seconds_left == 2.0


def test_nothing_missing_takes_no_time() -> None:
    assert remaining().seconds_left == 0


def test_network_without_layers_counts_as_one() -> None:
    crafts = remaining(("a", "pgd", 0), ("b", "pgd", 0))
    crafts.made("a", 2.0)
    assert crafts.seconds_left == 2.0


def test_layers_are_what_has_parameters_of_its_own() -> None:
    one = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert layer_count(one) == 2
    assert layer_count(nn.ModuleList([one, nn.Linear(2, 2)])) == 3
    assert layer_count(nn.ModuleList([one, one])) == 2
    assert layer_count(nn.ReLU()) == 0
