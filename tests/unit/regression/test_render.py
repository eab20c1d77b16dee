from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from dkd_bench.check import compare, reference_from, render_check, save_check
from dkd_bench.errors import Sentence, UnknownNameError
from dkd_bench.records import FlagRecord

OLD = "r" * 16 + "f" * 4
WORSE = "r" * 8 + "f" * 12
CELLS = ({}, {"eps": 0.2}, {"eps": 0.3}, {"attack": "fgsm"}, {"attack": "fgsm", "eps": 0.2})


@pytest.fixture
def report(described, make_cell, with_defenses, suite):
    """One cell of each kind: regressed, improved, missing, attack changed and the same; one new."""
    steps = {"pgd": 40, "fgsm": 1, "cw": 5}
    cells = [make_cell(OLD, **words) for words in CELLS] + [make_cell(OLD, attack="cw")]
    reference = reference_from([described(cells, suite=suite(**steps))])
    new = [
        make_cell(WORSE),
        make_cell("r" * 20, eps=0.2),
        make_cell(OLD, attack="fgsm"),
        make_cell(OLD, attack="cw"),
        make_cell(OLD, defense="none|<bar>"),
    ]
    run = described(new, suite=suite(**(steps | {"cw": 50})))
    flag = FlagRecord(name="zero gradients", detail="seen")
    return compare(reference, with_defenses(run, flags=(flag,)), alpha=0.2)


def test_the_report_is_of_every_kind(report):
    verdicts = ["regressed", "improved", "missing", "same", "missing", "attack changed"]
    assert [cell.verdict for cell in report.cells] == verdicts


def test_text_has_the_worst_first_and_the_summary_last(report):
    lines = render_check(report, "text").splitlines()
    assert lines[0].startswith(
        "regressed       dkd majority, joint, pgd linf 0.1: 80.0 % before, 40.0 % now, -40.0 [-40.0, "
    )
    assert "p = 0.00391, corrected 0.0117, n = 20" in lines[0]
    assert [line.split("  ")[0] for line in lines if not line.startswith(" ")][:6] == [
        "regressed", "missing", "missing", "attack changed", "improved", "same",
    ]  # fmt: skip
    assert any(line.startswith("new             none|<bar> majority") for line in lines)
    assert lines[-2].startswith("warning: dkd raises the flag 'zero gradients'")
    assert lines[-1].startswith("6 cells: 1 regressed, 2 missing, 1 attack changed, 1 improved, 1 same, 1 new; ")
    assert lines[-1].endswith(
        "a drop of more than 0.02 at p <= 0.2, paired by image, corrected for the number of cells (Holm)"
    )


def test_json_is_the_report(report):
    content = json.loads(render_check(report, "json"))
    assert (content["regressed"], content["exit_code"], content["schema_version"]) == (True, 1, 1)
    first = content["cells"][0]
    assert (first["verdict"], first["regressed"], first["key"]["attack"], first["n"]) == ("regressed", True, "pgd", 20)
    assert first["p_corrected"] == pytest.approx(3 / 256)
    assert [cell["moved"] for cell in content["cells"]] == [None] * 5 + ["attack"]
    assert len(content["new_cells"]) == len(content["warnings"]) == 1


def test_junit_is_for_ci(report):
    root = ElementTree.fromstring(render_check(report, "junit").encode())
    (suite,) = root
    counts = {"tests": "6", "failures": "1", "errors": "2", "skipped": "1"}
    assert {name: root.get(name) for name in counts} == {name: suite.get(name) for name in counts} == counts
    cases = suite.findall("testcase")
    kinds = [next((child.tag for child in case), None) for case in cases]
    assert kinds == ["failure", None, "error", None, "error", "skipped"]
    assert (cases[0].get("classname"), cases[0].get("name")) == ("robustness.dkd.majority", "joint pgd linf 0.1")
    assert cases[0][0].get("message").startswith("robust accuracy 0.4000, in the reference 0.8000: -0.4000 [-0.4000, ")
    assert "the run does not have this cell" in cases[2][0].get("message")
    assert "zero gradients" in suite.find("system-err").text


def test_junit_fails_where_the_defence_moved(report):
    moved = report.cells[-1].model_copy(update={"moved": "defense"})
    root = ElementTree.fromstring(render_check(report.model_copy(update={"cells": (moved,)}), "junit").encode())
    assert (root.get("failures"), root.get("skipped")) == ("1", "0")


@pytest.mark.parametrize(("place", "change"), [(2, {"verdict": "not comparable"}), (-1, {"moved": "unknown"})])
def test_what_was_compared_with_nothing_is_an_error(report, place, change):
    other = report.cells[place].model_copy(update=change)
    part = report.model_copy(update={"cells": (other,)})
    root = ElementTree.fromstring(render_check(part, "junit").encode())
    assert (root.get("errors"), root.get("skipped")) == ("1", "0")
    assert f"**{other.verdict}**" in render_check(part, "markdown")
    assert render_check(part, "markdown").startswith("### Robustness: not fully checked\n")


def test_p_values_of_a_replay_say_what_they_are_of(report):
    words = {"moved": "defense", "old_evidence_before": 0.8, "old_evidence_now": 0.5, "p_value": 0.25, "p_corrected": 1}
    part = report.model_copy(update={"cells": (report.cells[-1].model_copy(update=words),)})
    assert "p = 0.25 on the old evidence, corrected 1, n = 20" in render_check(part, "text")
    assert "p = 0.25 on the old evidence, corrected 1" in render_check(part, "junit")
    assert "| 0.25 (old evidence) |" in render_check(part, "markdown")
    (cell,) = json.loads(render_check(part, "json"))["cells"]
    assert (cell["old_evidence_before"], cell["old_evidence_now"]) == (0.8, 0.5)
    assert "old evidence" not in render_check(report, "markdown")


def test_junit_survives_any_text(report):
    key = report.cells[0].key.model_copy(update={"defense": 'a<b>&"\x00\x1b\ud800é'})
    odd = report.cells[0].model_copy(update={"key": key, "detail": Sentence("]]>\x0b")})
    root = ElementTree.fromstring(render_check(report.model_copy(update={"cells": (odd,)}), "junit").encode())
    assert root[0][0].get("classname") == 'robustness.a<b>&"\ufffd\ufffd\ufffdé.majority'


def test_markdown_shows_what_changed_and_folds_the_rest(report):
    text = render_check(report, "markdown")
    assert text.startswith("### Robustness: regressed in 1 of 6 cells\n")
    table, folded = text.split("<details>")
    assert "| dkd majority, joint, pgd linf 0.1  | **regressed** " in table
    assert "attack changed: the attack moved" in table
    assert "<summary>1 the same</summary>" in folded
    assert "Not in the reference: none\\|<bar> majority, joint, pgd linf 0.1." in folded
    assert "**Warning:** dkd raises the flag 'zero gradients'" in folded


@pytest.mark.parametrize(
    ("kept", "headline"), [([3], "no regression"), ([2, 3], "not fully checked"), ([0, 2], "regressed in 1 of 2 cells")]
)
def test_headline_says_the_worst(report, kept, headline):
    part = report.model_copy(update={"cells": tuple(report.cells[place] for place in kept)})
    assert render_check(part, "markdown").startswith(f"### Robustness: {headline}\n")


def test_unknown_format_is_refused(report):
    with pytest.raises(UnknownNameError, match="no format named 'xml'"):
        render_check(report, "xml")


def test_summary_is_added_to_what_is_there(report, tmp_path):
    summary = tmp_path / "summary.md"
    save_check(report, summary=summary)
    first = summary.read_text()
    assert first == render_check(report, "markdown")
    summary.write_text("## Build\n")
    save_check(report, summary=summary, junit=tmp_path / "deep" / "junit.xml")
    assert summary.read_text() == "## Build\n\n" + first
    assert (tmp_path / "deep" / "junit.xml").read_text() == render_check(report, "junit")


def test_a_file_that_cannot_be_written_is_a_sentence_and_the_other_is_written(report, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    sentence = f"cannot write {folder}: it is there and no regular file; name a file"
    assert save_check(report, junit=tmp_path / "junit.xml", summary=folder) == (sentence,)
    assert save_check(report, junit=folder, summary=tmp_path / "summary.md") == (sentence,)
    assert save_check(report, junit=folder, summary=folder) == (sentence, sentence)
    assert save_check(report, junit=tmp_path / "junit.xml", summary=tmp_path / "other.md") == ()
    assert (tmp_path / "junit.xml").read_text() == render_check(report, "junit")
    assert (tmp_path / "summary.md").read_text() == render_check(report, "markdown")
    assert list(folder.iterdir()) == []


def test_another_environment_is_named_in_every_form(report):
    report = report.model_copy(update={"environment": ("torch 2.15.0 to 2.14.1", "threads 2 to 1")})
    sentence = "the environment changed too: torch 2.15.0 to 2.14.1, threads 2 to 1"
    assert sentence in render_check(report, "text").splitlines()
    assert f"\n\n{sentence}.\n\n" in render_check(report, "markdown")
    assert json.loads(render_check(report, "json"))["environment"] == list(report.environment)
    assert ElementTree.fromstring(render_check(report, "junit")).find("testsuite/system-out").text == sentence


def test_the_same_environment_is_not_spoken_of(report):
    assert all("environment" not in render_check(report, form) for form in ("text", "markdown"))
    assert ElementTree.fromstring(render_check(report, "junit")).find("testsuite/system-out") is None
