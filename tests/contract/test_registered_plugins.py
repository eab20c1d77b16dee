"""Every registered defence and attack keeps its contract, ours and whoever's is installed."""

from __future__ import annotations

from functools import cache

import pytest

from dkd_bench import registry
from dkd_bench.attacks.autoattack import AutoAttackConfig, AutoAttackRandConfig
from dkd_bench.attacks.foolbox_attacks import CarliniWagnerConfig
from dkd_bench.testing import AttackContract, DefenseContract, checks_of
from dkd_defenses.dkd import DKDSettings

SETTINGS = {"dkd": DKDSettings(zeta=0.2)}
"""Settings for defences that learn nothing in the second or two that the contract gives them."""

CONFIGS = {
    "autoattack": AutoAttackConfig(apgd_steps=10, fab_steps=5, square_queries=20),
    "autoattack-rand": AutoAttackRandConfig(apgd_steps=10, eot_iter=2, selection_draws=2),
    "cw": CarliniWagnerConfig(steps=40),
}
"""Parameters for attacks whose defaults take long; whatever is not here is tested as it comes."""


@cache
def defense_contract(name):
    members = {"defense": registry.load("defenses", name), "settings": SETTINGS.get(name)}
    return type(f"Test_{name}", (DefenseContract,), members)


@cache
def attack_contract(name):
    members = {"attack": registry.load("attacks", name), "config": CONFIGS.get(name)}
    return type(f"Test_{name}", (AttackContract,), members)


@pytest.mark.parametrize("check", checks_of(DefenseContract))
@pytest.mark.parametrize("name", registry.installed("defenses"))
def test_defense(name, check):
    getattr(defense_contract(name)(), check)()


@pytest.mark.parametrize("check", checks_of(AttackContract))
@pytest.mark.parametrize("name", registry.installed("attacks"))
def test_attack(name, check):
    getattr(attack_contract(name)(), check)()


@pytest.mark.parametrize("kind", ["defenses", "attacks"])
def test_names_on_the_command_line_are_those_on_the_leaderboard(kind):
    for name in registry.installed(kind):
        assert registry.load(kind, name).meta.name == name


def test_special_parameters_are_for_plugins_that_there_are():
    assert set(SETTINGS) <= set(registry.installed("defenses"))
    assert set(CONFIGS) <= set(registry.installed("attacks"))
