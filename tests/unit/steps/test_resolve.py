"""Resolve: from the words of a request to plugins with their settings, or one sentence on the word that is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dkd_bench.budget import Budget
from dkd_bench.errors import ConfigError, PluginError, UnknownNameError
from dkd_bench.steps.request import RunRequest, TrainRequest
from dkd_bench.steps.resolve import resolve
from toy_run import toy, toy_dataset


def request(**words: Any) -> RunRequest:
    values = {"defenses": (toy("Steady"),), "attacks": (toy("Push"),), "threat_models": ("joint",), "device": "cpu"}
    return RunRequest(**(values | words))


def test_words_become_plugins_with_their_settings() -> None:
    cast = resolve(request(settings=("reach=0.5",), threat_models=("standalone", "joint")))
    assert list(cast.defenses) == ["steady"]
    assert cast.defenses["steady"](toy_dataset().image_spec).meta.title == "Steady"
    assert {name: attack.settings.reach for name, attack in cast.attacks.items()} == {"push": 0.5}
    assert list(cast.threat_models) == ["standalone", "joint"]
    assert (cast.device, cast.failures, cast.budgets) == (torch.device("cpu"), {}, ())


def test_a_setting_of_one_plugin_wins_over_that_of_all() -> None:
    cast = resolve(request(attacks=(toy("Push"), toy("Other")), settings=("reach=0.5", "other.reach=0.25")))
    assert {name: attack.settings.reach for name, attack in cast.attacks.items()} == {"push": 0.5, "other": 0.25}


def test_each_budget_and_defence_is_there_once() -> None:
    cast = resolve(request(eps=(0.1, 0.2, 0.1), defenses=(toy("Pair"), toy("Steady"), toy("Pair"))))
    assert cast.budgets == (Budget(norm="linf", eps=0.1), Budget(norm="linf", eps=0.2))
    assert list(cast.defenses) == ["pair", "steady"]


def test_a_request_to_train_has_no_attacks() -> None:
    cast = resolve(TrainRequest(defenses=(toy("Steady"),), device="cpu"))
    assert (dict(cast.attacks), dict(cast.threat_models), cast.budgets) == ({}, {}, ())


def test_a_defence_that_cannot_be_had_is_told_and_the_others_go_on() -> None:
    cast = resolve(request(defenses=(toy("Heard"), toy("Steady"))))
    assert list(cast.defenses) == ["steady"]
    assert list(cast.failures) == [toy("Heard")]
    assert "must be a subclass of dkd_bench.api.Defense with a meta" in cast.failures[toy("Heard")]


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        ({"attacks": ("pdg",)}, UnknownNameError, "no attack named 'pdg'. Did you mean 'pgd'"),
        ({"attacks": (toy("Steady"),)}, PluginError, "must be a subclass of dkd_bench.api.Attack with a meta"),
        ({"defenses": (toy("Steady"), toy("Twin"))}, ConfigError, "two of the defences are named 'steady'"),
        ({"settings": ("raech=1",)}, UnknownNameError, "no setting named 'raech'. Did you mean 'reach'"),
        ({"settings": ("pgd.reach=1",)}, UnknownNameError, "no defence or attack in this run named 'pgd'"),
        ({"settings": ("push.raech=1",)}, UnknownNameError, "no setting of push named 'raech'"),
        ({"settings": ("reach=far",)}, ConfigError, "reach"),
        ({"eps": (2.0,)}, ConfigError, "eps"),
    ],
)
def test_a_wrong_word_is_refused(words: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as raised:
        resolve(request(**words))
    assert sentence in str(raised.value)


def test_settings_of_others_are_left_out_where_that_is_asked() -> None:
    cast = resolve(request(settings=("zeta=1", "pgd.steps=3", "reach=0.5")), drop_settings_of_others=True)
    assert cast.request.settings == ("reach=0.5",)
    assert cast.attacks["push"].settings.reach == 0.5


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device cuda: torch finds no CUDA device here"):
        resolve(request(device="cuda"))
