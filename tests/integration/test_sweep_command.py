"""``dkd-bench sweep`` on the tiny task: real training at two values of zeta."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dkd_bench.cli import app
from dkd_bench.errors import ConfigError
from dkd_bench.plots import sweep_picture
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.request import RunRequest
from dkd_bench.sweep import SweepRequest, carry_out, runs_of, save_sweep


def sweep(tiny_npz, folder, *values, **words):
    run = RunRequest(
        defenses=("dkd",),
        attacks=("fgsm",),
        threat_models=("standalone", "joint"),
        dataset=f"npz:{tiny_npz}",
        eps=(0.1,),
        n_examples=20,
        device="cpu",
        out=folder,
        **words,
    )
    return SweepRequest(run=run, setting="zeta", values=values, levels=("none",))


@pytest.fixture
def request_of_two(cache, tiny_npz, tmp_path):
    return sweep(tiny_npz, tmp_path / "sweep", "0.5", "0.9")


def test_a_sweep_measures_each_value_and_level_and_draws_them(request_of_two):
    measured = carry_out(request_of_two, SilentProgress())

    assert [point.label for point in measured.points] == ["0.5", "0.9"]
    assert [point.label for point in measured.levels] == ["none"]
    assert len({point.weights_sha256 for point in (*measured.points, *measured.levels)}) == 3
    for point in measured.points:
        assert point.decision == "boosted"
        assert set(point.robust) == {"standalone", "joint"}
        assert point.robust["joint"].value < point.clean.value
        assert point.n_test == 60
    files = save_sweep(measured, request_of_two.folder, picture=sweep_picture(measured, "svg"), picture_format="svg")
    assert files["picture"].read_bytes().startswith(b"<?xml")
    assert "(sweep.svg)" in files["markdown"].read_text()
    told = json.loads(files["json"].read_text())
    assert [point["run"]["seed"] for point in told["points"]] == [0, 0]


def test_a_sweep_goes_on_from_where_it_was(request_of_two, monkeypatch):
    carried_out = carry_out(request_of_two, SilentProgress())

    def refuse(*_arguments, **_words):
        raise AssertionError("nothing is trained twice")

    monkeypatch.setattr("dkd_bench.training._fit._optimise", refuse)
    monkeypatch.setattr("dkd_bench.steps.crafter.Crafter._make", refuse)

    assert carry_out(request_of_two, SilentProgress()) == carried_out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("0.5", "1"), r"zeta must be in \[0, 1\), since 1 - zeta weighs the accuracy; got 1"),
        (("0.5", "-0.1"), r"zeta must be in \[0, 1\)"),
        (("0.5", "much"), "setting 'zeta' of dkd must be a finite float, got 'much'"),
    ],
)
def test_every_value_is_looked_at_before_anything_is_trained(cache, tiny_npz, tmp_path, values, message):
    with pytest.raises(ConfigError, match=message):
        carry_out(sweep(tiny_npz, tmp_path / "sweep", *values), SilentProgress())
    assert not (tmp_path / "sweep").exists()


def test_a_setting_that_the_defence_does_not_have(cache, tiny_npz, tmp_path, monkeypatch, capsys):
    words = ["sweep", "--defense", "dkd", "--vary", "zetta=0,0.5", "--dataset", f"npz:{tiny_npz}", "--attack", "fgsm"]
    monkeypatch.setattr("sys.argv", ["dkd-bench", *words])

    with pytest.raises(SystemExit) as left:
        app.main()

    assert left.value.code == 2
    assert "no setting of dkd named 'zetta'. Did you mean 'zeta'?" in capsys.readouterr().err


def test_settings_go_to_the_runs_that_know_them(cache, tiny_npz, tmp_path):
    asked = runs_of(
        replace(
            sweep(
                tiny_npz, tmp_path / "sweep", "0.5", settings=("fgsm.random_start=true", "top_n=3", "ri.n_members=5")
            ),
            levels=("none", "ri"),
        )
    )

    assert asked["0.5"].settings == ("fgsm.random_start=true", "top_n=3", "dkd.zeta=0.5")
    assert asked["none"].settings == ("fgsm.random_start=true",)
    assert asked["ri"].settings == ("fgsm.random_start=true", "top_n=3", "ri.n_members=5")


@pytest.mark.parametrize(
    ("word", "message"),
    [("zetta=1", "no setting named 'zetta'. Did you mean 'zeta'"), ("kd.temperature=2", "in this run named 'kd'")],
)
def test_a_setting_that_no_run_knows(cache, tiny_npz, tmp_path, word, message):
    with pytest.raises(ConfigError, match=message):
        runs_of(sweep(tiny_npz, tmp_path / "sweep", "0.5", settings=(word,)))
