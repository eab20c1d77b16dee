"""Prepare: what the first steps give to the others, and a digest of all that determines a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dkd_bench.budget import Budget
from dkd_bench.errors import ConfigError
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.prepare import prepare
from dkd_bench.steps.request import RunRequest
from dkd_bench.threats.joint import Joint
from dkd_bench.threats.standalone import Standalone
from toy_run import LINF, Crashing, Pair, Push, PushSettings, Steady, Untrainable, toy, toy_dataset, toy_prepared


def test_words_are_resolved_trained_and_planned() -> None:
    words = {"defenses": (toy("Steady"),), "attacks": (toy("Push"),), "dataset": toy("load_toy"), "device": "cpu"}
    request = RunRequest(**words, threat_models=("joint",), n_examples=5)
    prepared = prepare(request, SilentProgress())
    assert prepared.request is request
    assert len(prepared.images) == 5
    assert list(prepared.subjects.defenses) == ["steady"]
    assert [(trial.defense, trial.threat_model, trial.attack) for trial in prepared.plan.trials] == [
        ("steady", "joint", "push")
    ]
    assert prepare(request, SilentProgress()).plan_digest == prepared.plan_digest


def test_without_a_budget_it_is_the_datasets_own() -> None:
    assert toy_prepared(Steady, budgets=()).budgets == (LINF,)
    assert toy_prepared(Steady, budgets=(Budget(norm="linf", eps=0.2),)).budgets == (Budget(norm="linf", eps=0.2),)
    with pytest.raises(ConfigError, match="dataset 'toy' has no budget of its own in linf; give one with eps"):
        toy_prepared(Steady, budgets=(), dataset=toy_dataset(default_eps={"l2": 1.0}))


def test_where_no_defence_could_be_trained_nothing_is_planned() -> None:
    prepared = toy_prepared(Untrainable)
    assert prepared.plan.trials == ()
    assert list(prepared.subjects.failures) == ["untrainable"]


def test_an_attack_must_know_the_norm() -> None:
    with pytest.raises(ConfigError, match="works in linf, not in l2"):
        toy_prepared(Steady, budgets=(Budget(norm="l2", eps=0.5),))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"defenses": (Pair,)}, id="defence"),
        pytest.param({"defenses": (Steady, Pair)}, id="one more defence"),
        pytest.param({"failures": {"gone": "no such file"}}, id="failure"),
        pytest.param({"attacks": (Crashing(),)}, id="attack"),
        pytest.param({"attacks": (Push(PushSettings(reach=0.5)),)}, id="parameter"),
        pytest.param({"threat_models": (Standalone(),)}, id="threat model"),
        pytest.param({"threat_models": (Joint(), Standalone())}, id="one more threat model"),
        pytest.param({"budgets": (Budget(norm="linf", eps=0.2),)}, id="budget"),
        pytest.param({"dataset": toy_dataset(mislabelled=1)}, id="images"),
        pytest.param({"seed": 1}, id="seed"),
        pytest.param({"training_seed": 1}, id="seed of training"),
        pytest.param({"eot_draws": 3}, id="draws"),
        pytest.param({"recipe": "paper"}, id="recipe"),
    ],
)
def test_the_digest_changes_with_what_determines_a_record(changes: dict[str, Any]) -> None:
    defenses = changes.pop("defenses", (Steady,))
    assert toy_prepared(*defenses, **changes).plan_digest != toy_prepared(Steady).plan_digest


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"out": Path("elsewhere")}, id="folder"),
        pytest.param({"batch_size": 3}, id="batch size"),
        pytest.param({"evidence": "none"}, id="evidence kept"),
        pytest.param({"data_root": Path("data")}, id="folder of data"),
    ],
)
def test_the_digest_knows_nothing_else(changes: dict[str, Any]) -> None:
    assert toy_prepared(Steady, **changes).plan_digest == toy_prepared(Steady).plan_digest
