from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dkd_bench.check import Rule, reference_from, save_reference
from dkd_bench.cli.pytest_plugin import (
    AttackChangedWarning,
    RobustAccuracy,
    RobustnessReference,
    pytest_assertrepr_compare,
    robust_accuracy,
    run_request,
)
from dkd_bench.errors import AttackError, ConfigError, UnknownNameError
from dkd_bench.pipeline import run
from dkd_bench.records import FlagRecord, Outcome, RunRecord
from dkd_bench.steps.request import RunRequest

WORDS = {"device": "cpu", "n_examples": 20, "attack": "fgsm", "threat_model": "joint"}

TESTS = """
import pytest

pytestmark = pytest.mark.robustness(eps=0.3, dataset={dataset!r}, **{words!r})


def test_number(robustness):
    accuracy = robustness("none", eps=0.1)
    (cell,) = accuracy.record.cells
    assert (cell.attack, cell.threat_model, cell.eps, cell.n) == ("fgsm", "joint", 0.1, 20)
    assert float(accuracy) == accuracy.value == cell.robust_accuracy
    assert 0 < accuracy < 1
    assert accuracy.ci95 == cell.ci95
    assert robustness("none", eps=0.3) < accuracy


def test_too_high_a_bar(robustness):
    assert robustness("none") >= 0.99


@pytest.mark.robustness(eps=0.1)
class TestMarker:
    def test_of_the_class_goes_before_that_of_the_module(self, robustness):
        assert robustness("none").eps == 0.1

    @pytest.mark.robustness(eps=0.2)
    def test_of_the_test_goes_before_that_of_the_class(self, robustness):
        assert robustness("none").eps == 0.2

    def test_own_words_go_first(self, robustness):
        assert robustness("none", eps=(0.05, 0.3)).eps == 0.3


@pytest.mark.robustness("none")
def test_marker_without_words(robustness):
    pass


def test_lowest_rule(robustness):
    by_rule = {{rule: robustness("dkd", decision=rule).value for rule in ("majority", "boosted")}}
    accuracy = robustness("dkd")
    assert accuracy.value == min(by_rule.values()) == by_rule[accuracy.decision]


def test_unknown_word(robustness):
    robustness("none", atack="fgsm")


def test_unknown_rule(robustness):
    robustness("none", decision="bosted")


def test_failing_attack(robustness):
    robustness("none", attack="broken.py:Broken")


def test_stands(robustness, robustness_reference):
    assert robustness("none") >= robustness_reference("same.json")


def test_regressed(robustness, robustness_reference):
    assert robustness("none") >= robustness_reference("better.json")


def test_edited(robustness_reference):
    robustness_reference("edited.json")


def test_alpha(robustness_reference):
    robustness_reference("same.json", alpha=2)


def test_attack_changed(robustness, robustness_reference):
    with pytest.warns(pytest.PytestWarning, match="the attack is no longer that of changed.json"):
        assert robustness("none") >= robustness_reference("changed.json")
"""

BROKEN = """
from dkd_bench.api import Attack, AttackMeta


class Broken(Attack):
    meta = AttackMeta(name="broken", title="Broken", kind="fixed")

    def _perturb(self, *args, **words):
        raise RuntimeError("out of ideas")
"""


@dataclass(frozen=True)
class Session:
    """What a pytest session of a user's said of each test."""

    messages: Mapping[str, str | None]
    """``None`` for a test that passed."""
    text: str


def other_outcomes(record: RunRecord) -> RunRecord:
    """Return the record with every image survived."""
    cells = tuple(
        cell.model_copy(update={"outcomes": (Outcome.ROBUST,) * cell.n, "robust_accuracy": 1.0})
        for cell in record.cells
    )
    return record.model_copy(update={"cells": cells})


def other_attack(record: RunRecord) -> RunRecord:
    """Return the record with attacks that were something else."""
    attacks = [{**entry, "version": "0.0"} for entry in record.suite["attacks"]]
    return record.model_copy(update={"suite": {**record.suite, "attacks": attacks}})


@pytest.fixture(scope="module")
def session(tmp_path_factory, warm_cache, tiny_npz) -> Session:
    """Run a user's tests in a process of their own, with references beside them."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(warm_cache, folder / "cache")
    (folder / "broken.py").write_text(BROKEN)
    tests = folder / "tests"
    tests.mkdir()
    (tests / "test_mine.py").write_text(TESTS.format(dataset=f"npz:{tiny_npz}", words=WORDS))
    words = {"attacks": ("fgsm",), "threat_models": ("joint", "standalone"), "eps": (0.1, 0.3), "n_examples": 20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DKD_BENCH_CACHE", str(folder / "cache"))
        asked = RunRequest(defenses=("none",), dataset=f"npz:{tiny_npz}", device="cpu", out=folder / "run", **words)
        record = run(asked)[0]
        for name, each in {
            "same": record,
            "better": other_outcomes(record),
            "changed": other_attack(record),
            "edited": record,
        }.items():
            save_reference(reference_from([each]), tests / f"{name}.json")
        edited = json.loads((tests / "edited.json").read_text())
        edited["dataset"]["name"] = "another"
        (tests / "edited.json").write_text(json.dumps(edited))
        return session_in(folder)


def session_in(folder: Path) -> Session:
    options = ["-W", "error", "--strict-markers", "-p", "no:cacheprovider", "--junitxml", "junit.xml"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests"],
        cwd=folder,
        env={**os.environ, "CI": "true"},  # with it pytest shows the whole of what failed
        capture_output=True,
        text=True,
        timeout=300,
    )
    text = done.stdout + done.stderr
    assert (folder / "junit.xml").is_file(), text
    messages: dict[str, str | None] = {}
    for case in ElementTree.parse(folder / "junit.xml").iter("testcase"):
        failed = [*case.iter("failure"), *case.iter("error")]
        messages[case.attrib["name"]] = failed[0].text if failed else None
    return Session(messages=messages, text=text)


@pytest.mark.parametrize(
    "name",
    [
        "test_number",
        "test_of_the_class_goes_before_that_of_the_module",
        "test_of_the_test_goes_before_that_of_the_class",
        "test_own_words_go_first",
        "test_lowest_rule",
        "test_stands",
        "test_attack_changed",
    ],
)
def test_users_test_passes(session, name):
    assert session.messages[name] is None


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        (
            "test_too_high_a_bar",
            ["assert <none, deployed: 0.", "n = 20> >= 0.99", "none deployed, joint, fgsm linf 0.3"],
        ),
        (
            "test_unknown_word",
            ["no word of the robustness fixture named 'atack'. Did you mean 'attack'? Known: attack,"],
        ),
        ("test_unknown_rule", ["no decision rule named 'bosted'", "The run has: deployed"]),
        ("test_failing_attack", ["AttackError", "out of ideas"]),
        ("test_regressed", [">= <reference better.json>", "regressed", "none deployed, joint, fgsm"]),
        ("test_alpha", ["ConfigError: alpha must be between 0 and 1, got 2"]),
        ("test_edited", ["StoreError", "it was edited or damaged"]),
        ("test_marker_without_words", ["the marker robustness takes words such as attack='pgd', got 'none'"]),
    ],
)
def test_users_test_fails_and_says_why(session, name, sentences):
    message = session.messages[name]
    assert message is not None
    for sentence in sentences:
        assert sentence in message


def test_failures_show_the_users_line_and_none_of_the_harness(session):
    message = session.messages["test_failing_attack"]
    assert '>       robustness("none", attack="broken.py:Broken")' in message
    assert "dkd_bench/" not in message


def test_reference_is_narrowed_to_what_the_test_asks_for(session):
    assert "standalone" not in session.messages["test_regressed"]
    assert "linf 0.1" not in session.messages["test_regressed"]


def test_plugin_imports_nothing_heavy():
    code = "import sys, dkd_bench.cli.pytest_plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "dkd_bench.cli.pytest_plugin" in loaded
    assert not {"torch", "numpy", "scipy", "pydantic", "typer", "rich", "dkd_bench.records"} & loaded


@pytest.fixture
def record(bench) -> RunRecord:
    return bench(attacks=("fgsm",), threat_models=("joint", "standalone"), n_examples=20)


@pytest.fixture
def hold(tmp_path) -> Callable[..., RobustnessReference]:
    def against(record: RunRecord, **limits: float) -> RobustnessReference:
        return RobustnessReference(path=tmp_path / "r.json", reference=reference_from([record]), rule=Rule(**limits))

    return against


def changed_cells(record: RunRecord, chosen: Callable[..., bool], **changes: object) -> RunRecord:
    cells = tuple(cell.model_copy(update=changes) if chosen(cell) else cell for cell in record.cells)
    return record.model_copy(update={"cells": cells})


def test_value_is_the_worst_per_image_over_threat_models(record):
    for rule in ("majority", "boosted"):
        cells = [cell for cell in record.cells if cell.decision == rule]
        assert len(cells) == 2
        images = zip(*(cell.outcomes for cell in cells), strict=True)
        survived = [set(image) == {Outcome.ROBUST} for image in images]
        accuracy = robust_accuracy(record, decision=rule)
        assert accuracy.value == sum(survived) / 20
        assert {cell.threat_model for cell in accuracy.cells} == {"joint", "standalone"}


@pytest.mark.parametrize(("stronger", "lower"), [("majority", "boosted"), ("boosted", "majority")])
def test_lowest_rule_counts_where_none_is_named(record, stronger, lower):
    unlike = changed_cells(record, lambda cell: cell.decision == stronger, outcomes=(Outcome.ROBUST,) * 20)
    accuracy = robust_accuracy(unlike)
    assert (accuracy.decision, accuracy.value) == (lower, robust_accuracy(record, decision=lower).value)
    assert robust_accuracy(unlike, decision=stronger).value == 1


def test_attack_without_a_number_is_no_number(record):
    lacking = changed_cells(
        record,
        lambda cell: cell.threat_model == "joint",
        status="not_run",
        reason="the defence offers no differentiable surrogate",
        robust_accuracy=None,
        outcomes=(),
    )
    with pytest.raises(AttackError, match=r"dkd under \w+ has no number: .*no differentiable surrogate; ask for"):
        robust_accuracy(lacking)


def test_run_without_a_budget_has_no_accuracy(record):
    with pytest.raises(ConfigError, match=r"no attack of the run had a budget.*give eps=0\.1"):
        robust_accuracy(changed_cells(record, lambda cell: True, eps=None))


def test_flags_of_defence_and_cells_are_shown(record):
    defense = record.manifest.defenses["dkd"]
    flagged = defense.model_copy(update={"flags": (FlagRecord(name="zero gradients", detail="on 7 of 20 images"),)})
    manifest = record.manifest.model_copy(update={"defenses": {"dkd": flagged}})
    noise = FlagRecord(name="noise beats the attack", detail="on 3 of 20 images")
    raised = changed_cells(record.model_copy(update={"manifest": manifest}), lambda cell: True, flags=(noise,))
    accuracy = robust_accuracy(raised)
    assert accuracy.flags == ("noise beats the attack", "zero gradients")
    assert "; flags: noise beats the attack, zero gradients>" in repr(accuracy)
    lines = pytest_assertrepr_compare(">=", accuracy, 1.0)
    assert [line for line in lines if line.startswith("flag")] == [
        "flag 'zero gradients': on 7 of 20 images",
        "flag 'noise beats the attack': on 3 of 20 images",
    ]


def test_accuracy_is_ordered_by_its_value(record):
    accuracy = robust_accuracy(record)
    better = robust_accuracy(other_outcomes(record))
    value = accuracy.value
    assert 0 < value < 1
    assert (accuracy >= value, accuracy <= value, accuracy == value) == (True, True, True)
    assert (accuracy > value, accuracy < value, accuracy != value) == (False, False, False)
    nothing, everything = 0.0, 1
    assert (nothing < accuracy, everything > accuracy, everything <= accuracy) == (True, True, False)
    assert (better > accuracy, better >= accuracy, better < accuracy) == (True, True, False)
    with pytest.raises(TypeError, match="not supported between instances of 'RobustAccuracy' and 'str'"):
        assert accuracy >= "0.5"


def test_reference_has_no_order_but_not_regressed(record, hold):
    accuracy, reference = robust_accuracy(record), hold(record)
    with pytest.raises(TypeError, match="an accuracy is not > a reference, it stands it or not; use >="):
        assert accuracy > reference
    with pytest.raises(TypeError, match=r"is not > a reference.*use >="):
        assert reference < accuracy
    with pytest.raises(TypeError, match=r"is not <= a reference.*use >="):
        assert accuracy <= reference
    with pytest.raises(TypeError, match=r"is not < a reference.*use >="):
        assert accuracy < reference


def test_regression_is_found_in_either_writing(record, hold):
    accuracy, reference = robust_accuracy(record), hold(other_outcomes(record))
    assert not accuracy >= reference
    assert not reference <= accuracy
    for op, left, right in ((">=", accuracy, reference), ("<=", reference, accuracy)):
        first, *rest = pytest_assertrepr_compare(op, left, right)
        assert first == f"{left!r} {op} {right!r}"
        assert any("regressed" in line for line in rest)


def test_tolerance_is_the_checks(record, hold):
    assert robust_accuracy(record) >= hold(other_outcomes(record), tolerance=0.999)


def test_named_rule_alone_is_held_against_the_reference(record, hold):
    better = changed_cells(
        record,
        lambda cell: cell.decision == "majority",
        outcomes=(Outcome.ROBUST,) * 20,
    )
    assert robust_accuracy(record, decision="boosted") >= hold(better)
    assert not robust_accuracy(record, decision="majority") >= hold(better)
    assert not robust_accuracy(record) >= hold(better)


def test_other_images_do_not_stand(record, bench, hold):
    fewer = bench("fewer", attacks=("fgsm",), threat_models=("joint", "standalone"), n_examples=10)
    assert not robust_accuracy(record) >= hold(fewer)


def test_reference_without_these_cells_is_an_error(record, hold):
    other = changed_cells(record, lambda cell: True, eps=0.2)
    with pytest.raises(ConfigError, match=r"r\.json has none of what the test asks for \(dkd \w+, \w+, fgsm linf 0\.1"):
        assert robust_accuracy(record) >= hold(other)


def test_changed_attack_warns_and_names_the_cells(record, hold):
    with pytest.warns(AttackChangedWarning, match=r"no longer that of r\.json.*dkd \w+, joint, fgsm"):
        assert robust_accuracy(record) >= hold(other_attack(record))


def test_changed_attack_on_other_weights_does_not_stand_and_says_why(record, hold):
    old = other_attack(record)
    weights = {"dkd": old.manifest.defenses["dkd"].model_copy(update={"weights_sha256": "0" * 64})}
    old = old.model_copy(update={"manifest": old.manifest.model_copy(update={"defenses": weights})})
    accuracy, reference = robust_accuracy(record), hold(old)
    assert not accuracy >= reference
    lines = pytest_assertrepr_compare(">=", accuracy, reference)
    assert any(
        "which side moved is unknown: the old evidence was not looked for; 'dkd-bench check'" in x for x in lines
    )


def test_reasons_name_the_keyword_and_not_the_option(record, bench, hold):
    fewer = bench("fewer", attacks=("fgsm",), threat_models=("joint", "standalone"), n_examples=10)
    lines = pytest_assertrepr_compare(">=", robust_accuracy(record), hold(fewer))
    assert any(line.endswith("use the same n_examples") for line in lines)
    assert not any("--" in line for line in lines)


def test_assertions_on_other_things_are_left_alone():
    assert pytest_assertrepr_compare("==", 1, 2) is None


def test_request_takes_one_or_several(tmp_path):
    one = run_request("none", {"attack": "pgd", "eps": 0.1, "threat_model": "joint", "settings": "a=1"}, tmp_path)
    several = run_request(
        "none", {"attack": ["pgd"], "eps": (0.1,), "threat_model": ["joint"], "settings": ["a=1"]}, tmp_path
    )
    assert one == several
    assert one.attacks == ("pgd",)
    assert one.out is not None
    assert one.out.parent == tmp_path
    assert run_request("none", {"attack": "pgd", "eps": 0.2}, tmp_path).out != one.out


def test_words_that_are_none_are_the_runs_own(tmp_path):
    nothing_told = run_request("none", {"attack": None, "n_examples": None, "dataset": None}, tmp_path)
    assert nothing_told == run_request("none", {}, tmp_path)
    assert nothing_told.attacks == RunRequest(defenses=("none",)).attacks


def test_named_folder_is_kept(tmp_path):
    assert run_request("none", {"out": "runs/mine"}, tmp_path).out == Path("runs/mine")


@pytest.mark.parametrize("word", ["attacks", "defenses", "decison"])
def test_unknown_word_is_named(word, tmp_path):
    with pytest.raises(UnknownNameError, match=f"no word of the robustness fixture named '{word}'"):
        run_request("none", {word: "pgd"}, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [({"n_examples": 0}, "^n_examples must be at least 1"), ({"seed": -1}, "^seed must be from 0")],
)
def test_refused_value_is_named_by_its_keyword(words, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run_request("none", words, tmp_path)


def test_value_of_the_wrong_type_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="a word of the robustness fixture has a value of the wrong type"):
        run_request("none", {"n_examples": "many"}, tmp_path)


def test_repr_has_number_interval_and_n(record):
    accuracy = robust_accuracy(record, decision="majority")
    assert isinstance(accuracy, RobustAccuracy)
    low, high = accuracy.ci95
    assert repr(accuracy) == f"<dkd, majority: {accuracy.value:.3f} [{low:.3f}, {high:.3f}], n = 20>"
