"""What a user may ask for, and that a record's request asks for the same again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dkd_bench.errors import ConfigError
from dkd_bench.steps.request import RunRequest, TrainRequest, parse_settings, settings_for


def test_settings_are_parsed() -> None:
    assert parse_settings(("zeta=0.7", "pgd.steps=10", "mine.py:Mine.depth=3", "name=a=b", "empty=")) == {
        (None, "zeta"): "0.7",
        ("pgd", "steps"): "10",
        ("mine.py:Mine", "depth"): "3",
        (None, "name"): "a=b",
        (None, "empty"): "",
    }


@pytest.mark.parametrize("word", ["zeta", "=0.7", ""])
def test_settings_need_a_name_and_a_value(word: str) -> None:
    with pytest.raises(ConfigError, match=rf"settings takes NAME=VALUE or PLUGIN\.NAME=VALUE, got '{word}'"):
        parse_settings((word,))


@pytest.mark.parametrize("word", ["zeta", "dkd.zeta"])
def test_a_setting_is_given_once(word: str) -> None:
    with pytest.raises(ConfigError, match=f"settings gives '{word}' twice; give it once"):
        parse_settings((f"{word}=0.7", f"{word}=0.7"))


def test_settings_of_a_plugin() -> None:
    parsed = parse_settings(("steps=5", "zeta=0.7", "pgd.steps=10", "cw.steps=20", "pgd.typo=1"))
    assert settings_for("pgd", ["steps", "restarts"], parsed) == {"steps": "10", "typo": "1"}
    assert settings_for("deepfool", ["steps"], parsed) == {"steps": "5"}
    assert settings_for("dkd", ["zeta"], parsed) == {"zeta": "0.7"}
    assert settings_for("fgsm", [], parsed) == {}


def asked(**changes: Any) -> RunRequest:
    return RunRequest(**{"defenses": ("dkd",)} | changes)


def test_defaults() -> None:
    request = asked()
    assert request.attacks == request.threat_models == ("all",)
    assert (request.dataset, request.recipe, request.norm, request.eps) == ("digits", "fast", "linf", ())
    assert (request.seed, request.n_examples, request.batch_size, request.evidence) == (0, None, None, "all")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"defenses": ()}, "no defence is named; name one with defenses, or see 'dkd-bench list defenses'"),
        ({"seed": -1}, "seed must be from 0 to 2147483647, got -1"),
        ({"seed": 2**31}, "seed must be from 0 to 2147483647, got 2147483648"),
        ({"device": "gpu"}, "device must be auto, cpu, cuda, got 'gpu'"),
        ({"evidence": "some"}, "evidence must be all, broken, none, got 'some'"),
        ({"batch_size": 0}, "batch_size must be auto or at least 1, got 0"),
        ({"n_examples": 0}, "n_examples must be at least 1, got 0"),
        ({"n_examples": -5}, "n_examples must be at least 1, got -5"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        asked(**changes)


def test_training_requests_are_checked_alike() -> None:
    with pytest.raises(ConfigError, match="no defence is named"):
        TrainRequest(defenses=())
    with pytest.raises(ConfigError, match="seed must be from 0"):
        TrainRequest(defenses=("dkd",), seed=-1)


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_seeds_at_the_bounds(seed: int) -> None:
    assert asked(seed=seed).seed == seed


EVERYTHING = RunRequest(
    defenses=("dkd", "mine.py:Mine"),
    dataset="npz:my.npz",
    data_root=Path("data"),
    recipe="paper",
    seed=9,
    settings=("zeta=0.7", "pgd.steps=3"),
    device="cpu",
    attacks=("fgsm", "pgd"),
    threat_models=("joint",),
    norm="l2",
    eps=(0.25, 0.5),
    n_examples=50,
    batch_size=10,
    out=Path("out"),
    evidence="none",
)


def test_round_trip_of_what_determines_the_results() -> None:
    words = json.loads(json.dumps(EVERYTHING.as_json()))
    again = RunRequest.from_json(words, device="auto", data_root=Path("elsewhere"))
    assert again.as_json() == EVERYTHING.as_json()
    assert again == RunRequest(
        **{name: getattr(EVERYTHING, name) for name in EVERYTHING.as_json()},
        device="auto",
        data_root=Path("elsewhere"),
    )


@pytest.mark.parametrize("name", ["data_root", "device", "batch_size", "out", "evidence"])
def test_what_changes_no_result_is_left_out(name: str) -> None:
    assert name not in EVERYTHING.as_json()


def test_every_field_is_in_the_record_or_named_as_without_effect() -> None:
    without_effect = {"data_root", "device", "batch_size", "out", "evidence"}
    assert {*EVERYTHING.as_json(), *without_effect} == set(RunRequest.__dataclass_fields__)


def test_a_request_of_another_version() -> None:
    with pytest.raises(ConfigError, match=r"request in the record is not one of this version: .*'colour'"):
        RunRequest.from_json({"defenses": ["dkd"], "colour": "red"}, device="cpu", data_root=None)


def test_a_request_in_a_record_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="seed must be from 0"):
        RunRequest.from_json({"defenses": ["dkd"], "seed": -1}, device="cpu", data_root=None)
