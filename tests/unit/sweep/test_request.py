from __future__ import annotations

from pathlib import Path

import pytest

from dkd_bench.errors import ConfigError
from dkd_bench.steps.request import RunRequest
from dkd_bench.sweep import SweepRequest


def sweep(*, setting="zeta", values=("0", "0.5"), levels=(), **words):
    run = RunRequest(**({"defenses": ("dkd",), "attacks": ("pgd",)} | words))
    return SweepRequest(run=run, setting=setting, values=values, levels=levels)


def test_each_value_is_a_run_of_its_own():
    asked = sweep(settings=("pgd.steps=5",), out=Path("here")).runs("dkd")

    assert list(asked) == ["0", "0.5"]
    assert asked["0.5"].settings == ("pgd.steps=5", "dkd.zeta=0.5")
    assert asked["0.5"].out.parent == Path("here/runs")
    assert asked["0.5"].out.name.startswith("zeta=0.5-")


def test_another_sweep_has_other_folders():
    assert sweep(attacks=("fgsm",)).runs("dkd")["0"].out.parent != sweep().runs("dkd")["0"].out.parent
    first, other = (sweep(out=Path("here"), n_examples=n).runs("dkd")["0"].out for n in (10, 20))
    assert first.parent == other.parent
    assert first != other


def test_a_defence_in_a_file_is_set_by_the_name_that_it_gives_itself():
    asked = sweep(defenses=("path/to/mine.py:Mine",)).runs("mine")

    assert asked["0"].defenses == ("path/to/mine.py:Mine",)
    assert asked["0"].settings == ("mine.zeta=0",)
    assert asked["0"].out.parent == Path("runs/sweep-path-to-mine.py-Mine-zeta-digits-pgd/runs")


def test_a_level_does_not_see_settings_of_the_varied_defence():
    asked = sweep(levels=("ri", "/other.py:Other"), settings=("dkd.top_n=3", "pgd.steps=5")).runs("dkd")

    assert asked["ri"].defenses == ("ri",)
    assert asked["ri"].settings == ("pgd.steps=5",)
    assert asked["/other.py:Other"].out.name.startswith("other.py-Other-")


def test_the_folder_is_named_after_what_is_varied():
    assert sweep(dataset="npz:some.npz").folder == Path("runs/sweep-dkd-zeta-npz-some.npz-pgd")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"defenses": ("dkd", "ri")}, "varies one defence, got 2"),
        ({"levels": ("dkd",)}, "'dkd' is varied and cannot be a level too"),
        ({"attacks": ("all",)}, "draws one attack, got fgsm"),
        ({"eps": (0.1, 0.2)}, "draws one budget, got 2"),
        ({"values": ()}, "values takes NAME=VALUE"),
        ({"values": ("0", "")}, "values takes NAME=VALUE"),
        ({"setting": ""}, "values takes NAME=VALUE"),
        ({"values": ("0", "0.5", "0")}, "values zeta gives a word twice"),
        ({"levels": ("ri", "ri")}, "levels gives a word twice"),
    ],
)
def test_what_a_sweep_refuses(words, message):
    with pytest.raises(ConfigError, match=message):
        sweep(**words)
