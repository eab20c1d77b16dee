"""``dkd-bench reproduce`` on the tiny task: real runs, a few images."""

from __future__ import annotations

import json

import pytest

from dkd_bench.errors import ConfigError, EvidenceError, UnknownNameError
from dkd_bench.progress import SilentProgress
from dkd_paper.report import save_reproduction
from dkd_paper.request import StudyRequest
from dkd_paper.targets import reproduce

pytestmark = pytest.mark.slow


@pytest.fixture
def study(cache, tiny_npz, tmp_path):
    def of(**words):
        defaults = {"dataset": f"npz:{tiny_npz}", "n_examples": 12, "device": "cpu", "out": tmp_path / "study"}
        return StudyRequest(**(defaults | words))

    return of


def test_table2_and_table3_share_their_runs_and_say_where_they_come_from(study, monkeypatch):
    made = reproduce("table2", study(), SilentProgress())
    files = save_reproduction(made, study().folder)

    told = json.loads(files["json"].read_text())
    assert [block["unit"] for block in told["blocks"]] == ["per 10,000", "percentage points"]
    assert len(told["blocks"][0]["rows"]) == 9
    assert {source["run"]["n"] for source in told["sources"]} == {12}
    assert told["blocks"][0]["rows"][0]["entries"][2]["paper"] == 0.0015
    assert made.picture is None

    def refuse(*_arguments, **_words):
        raise AssertionError("nothing is crafted twice")

    monkeypatch.setattr("dkd_bench.steps.crafter.Crafter._make", refuse)
    table3 = reproduce("table3", study(existing=True), SilentProgress()).reproduction
    assert [source.run.plan_digest for source in table3.sources] == [
        source["run"]["plan_digest"] for source in told["sources"]
    ]
    assert table3.blocks[0].columns == ("none", "KD", "KD*", "DKD", "DKD*", "RI", "RI*")


def test_without_its_runs_a_target_says_which_command_makes_them(study):
    with pytest.raises(
        ConfigError,
        match=r"no finished run of table4 in .*white-box-fgsm-seed-3-.*; make it with 'dkd-bench .* table4 .*--seed 3",
    ):
        reproduce("table4", study(existing=True, seeds=(3,)), SilentProgress())


def test_runs_of_unlike_weights_do_not_make_one_table(study):
    reproduce("table2", study(), SilentProgress())
    (results,) = study().folder.glob("black-box-fgsm-seed-0-*/results.json")
    told = json.loads(results.read_text())
    told["manifest"]["defenses"]["kd"]["weights_sha256"] = "0" * 64
    results.write_text(json.dumps(told))

    with pytest.raises(
        EvidenceError, match="kd under seed 0 is not the same in black-box-deepfool-1 and black-box-fgsm"
    ):
        reproduce("table2", study(existing=True), SilentProgress())


def test_existing_figure5_computes_nothing(study, monkeypatch):
    def refuse(*_arguments, **_words):
        raise AssertionError("nothing is loaded to be run")

    monkeypatch.setattr("dkd_bench.pipeline.prepare", refuse)
    with pytest.raises(
        ConfigError, match=r"no finished run of figure5 in .*zeta=0-.*; make it with 'dkd-bench reproduce fig"
    ):
        reproduce("figure5", study(existing=True), SilentProgress())


def test_an_unknown_target_is_named(study):
    with pytest.raises(UnknownNameError, match=r"no table or figure named 'table5'\. Did you mean 'table"):
        reproduce("table5", study(), SilentProgress())


def test_figure5_is_drawn_for_one_seed(study):
    with pytest.raises(ConfigError, match="drawn for one seed, got 2"):
        reproduce("figure5", study(seeds=(0, 1)), SilentProgress())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"seeds": (0, 0)}, "each seed is given once"),
        ({"seeds": ()}, "at least one"),
        ({"n_examples": 0}, "n_examples must be at least 1"),
        ({"n_slow": 0}, "n_slow must be at least 1"),
        ({"seeds": (-1,)}, "seed must be from 0"),
    ],
)
def test_what_a_study_refuses(words, message):
    with pytest.raises(ConfigError, match=message):
        StudyRequest(**words)
