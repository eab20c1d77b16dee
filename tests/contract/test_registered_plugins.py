"""Every registered defence, attack and threat model keeps its contract, ours and whoever's is installed."""

from __future__ import annotations

from functools import cache

import pytest

from dkd_baselines.defense_gan import DefenseGANSettings
from dkd_baselines.pixel_defend import PixelDefendSettings
from dkd_baselines.robust_training import RobustSettings, TradesSettings
from dkd_bench.attacks.autoattack import AutoAttackRandSettings, AutoAttackSettings
from dkd_bench.attacks.detector_aware import DetectorCarliniWagnerSettings, DetectorPGDSettings
from dkd_bench.attacks.foolbox.table import CarliniWagnerSettings
from dkd_bench.attacks.hop_skip_jump import HopSkipJumpSettings
from dkd_bench.attacks.latent import LatentSettings
from dkd_bench.attacks.square import SquareSettings
from dkd_bench.errors import UnknownNameError
from dkd_bench.plugins import registry
from dkd_bench.steps.request import RunRequest
from dkd_bench.steps.resolve import resolve
from dkd_bench.testing import AttackContract, DefenseContract, ThreatModelContract, checks_of
from dkd_defenses.dkd import DKDSettings

SETTINGS = {
    "dkd": DKDSettings(zeta=0.05),
    "at": RobustSettings(steps=3),
    "trades": TradesSettings(steps=3),
    "pixel-defend": PixelDefendSettings(filters=8, references=200),
    "defense-gan": DefenseGANSettings(restarts=4),
}
"""Settings for defences that learn nothing in the second or two that the contract gives them, or take longer."""

ATTACK_SETTINGS = {
    "autoattack": AutoAttackSettings(apgd_steps=10, fab_steps=5, square_queries=20),
    "autoattack-rand": AutoAttackRandSettings(apgd_steps=10, eot_iter=2, selection_draws=2),
    "cw": CarliniWagnerSettings(steps=40),
    "detector-cw": DetectorCarliniWagnerSettings(steps=60),
    "detector-pgd": DetectorPGDSettings(steps=50),
    "latent": LatentSettings(kappa=0),
    "hop-skip-jump": HopSkipJumpSettings(steps=5, initial_gradient_evals=30),
    "square": SquareSettings(queries=200),
}
"""Parameters for attacks whose defaults take long, or go beyond the boundary; others are tested as they come."""


@cache
def defense_contract(name):
    members = {"defense": registry.load("defenses", name), "settings": SETTINGS.get(name)}
    return type(f"Test_{name}", (DefenseContract,), members)


@cache
def attack_contract(name):
    members = {"attack": registry.load("attacks", name), "settings": ATTACK_SETTINGS.get(name)}
    return type(f"Test_{name}", (AttackContract,), members)


@pytest.mark.parametrize("check", checks_of(DefenseContract))
@pytest.mark.parametrize("name", registry.without_argument("defenses"))
def test_defense(name, check):
    getattr(defense_contract(name)(), check)()


@pytest.mark.parametrize("check", checks_of(AttackContract))
@pytest.mark.parametrize("name", registry.installed("attacks"))
def test_attack(name, check):
    getattr(attack_contract(name)(), check)()


@pytest.mark.parametrize("check", checks_of(ThreatModelContract))
@pytest.mark.parametrize("name", registry.installed("threat-models"))
def test_threat_model(name, check):
    members = {"threat_model": registry.load("threat-models", name)}
    getattr(type(f"Test_{name}", (ThreatModelContract,), members)(), check)()


@pytest.mark.parametrize("kind", ["defenses", "attacks", "threat-models"])
def test_names_on_the_command_line_are_those_on_the_leaderboard(kind):
    for name in registry.without_argument(kind):
        assert registry.load(kind, name).meta.name == name


def test_special_parameters_are_for_plugins_that_there_are():
    assert set(SETTINGS) <= set(registry.without_argument("defenses"))
    assert set(ATTACK_SETTINGS) <= set(registry.installed("attacks"))


def test_families_that_take_an_argument_are_not_among_all():
    everything = registry.without_argument("defenses")
    assert {"none", "dkd", "magnet", "pixel-defend", "defense-gan", "at", "trades"} <= set(everything)
    assert not {"torch", "robustbench"} & set(everything)
    with pytest.raises(UnknownNameError, match="no setting named 'no_such'"):
        resolve(RunRequest(defenses=("all",), settings=("no_such=1",)))
    resolve(RunRequest(defenses=("all",), settings=("restarts=3", "beta=2")))
