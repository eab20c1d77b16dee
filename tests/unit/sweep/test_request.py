from __future__ import annotations

from pathlib import Path

import pytest

from dkd_bench.errors import ConfigError
from dkd_bench.request import RunRequest
from dkd_bench.sweep import SweepRequest


def sweep(*, setting="zeta", values=("0", "0.5"), levels=(), **words):
    run = RunRequest(**({"defenses": ("dkd",), "attacks": ("pgd",)} | words))
    return SweepRequest(run=run, setting=setting, values=values, levels=levels)


def test_each_value_is_a_run_of_its_own():
    asked = list(sweep(settings=("pgd.steps=5",), out=Path("here")).point_runs())

    assert [label for label, _ in asked] == ["0", "0.5"]
    assert asked[1][1].settings == ("pgd.steps=5", "dkd.zeta=0.5")
    assert asked[1][1].out == Path("here/runs/zeta=0.5")


def test_a_level_does_not_see_settings_of_the_varied_defence():
    ((label, run),) = sweep(levels=("ri",), settings=("dkd.top_n=3", "pgd.steps=5")).level_runs()

    assert label == "ri"
    assert run.defenses == ("ri",)
    assert run.settings == ("pgd.steps=5",)


def test_the_folder_is_named_after_what_is_varied():
    assert sweep(dataset="npz:some.npz").folder == Path("runs/sweep-dkd-zeta-npz-some.npz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"defenses": ("dkd", "ri")}, "varies one defence, got 2"),
        ({"levels": ("dkd",)}, "'dkd' is varied and cannot be a level too"),
        ({"attacks": ("all",)}, "draws one attack, got fgsm"),
        ({"eps": (0.1, 0.2)}, "draws one budget, got 2"),
        ({"values": ()}, "--vary takes NAME=VALUE"),
        ({"values": ("0", "")}, "--vary takes NAME=VALUE"),
        ({"setting": ""}, "--vary takes NAME=VALUE"),
        ({"values": ("0", "0.5", "0")}, "gives a value twice"),
    ],
)
def test_what_a_sweep_refuses(words, message):
    with pytest.raises(ConfigError, match=message):
        sweep(**words)
