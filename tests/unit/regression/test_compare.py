from __future__ import annotations

import pytest

from dkd_bench.check import compare, reference_from
from dkd_bench.errors import ConfigError, EvidenceError, ExitCode, IncompleteRunError, StoreError
from dkd_bench.records import DatasetRecord, FlagRecord
from dkd_bench.records.rundir import LoadedRun

OLD = "r" * 16 + "f" * 4
WORSE = "r" * 8 + "f" * 12
BETTER = "r" * 20


@pytest.fixture
def reference(described, make_cell):
    return reference_from([described([make_cell(OLD)])])


def only(report):
    (cell,) = report.cells
    return cell


def test_the_run_of_the_reference_is_the_same(reference, described, make_cell):
    report = compare(reference, described([make_cell(OLD)]))
    cell = only(report)
    assert (cell.verdict, cell.difference, cell.ci95, cell.p_value, cell.p_corrected) == ("same", 0, (0, 0), 1, 1)
    assert (cell.reference_accuracy, cell.new_accuracy, cell.n) == (0.8, 0.8, 20)
    assert (report.regressed, report.exit_code, report.warnings, report.new_cells) == (False, ExitCode.DONE, (), ())


def test_a_weaker_defence_regressed(reference, described, make_cell):
    report = compare(reference, described([make_cell(WORSE)]))
    cell = only(report)
    assert cell.verdict == "regressed"
    assert cell.difference == pytest.approx(-0.4)
    assert cell.ci95[0] == pytest.approx(-0.4)  # 0 of 8 discordant images speak for it
    assert cell.ci95[1] == pytest.approx(-0.4 * (1 - 2 * (1 - 0.025 ** (1 / 8))))
    assert cell.p_value == pytest.approx(0.5**8)
    assert (report.regressed, report.exit_code) == (True, ExitCode.CHECK_FAILED)


def test_a_stronger_defence_improved(reference, described, make_cell):
    report = compare(reference, described([make_cell(BETTER)]), alpha=0.07)
    assert only(report).verdict == "improved"
    assert only(report).p_value == pytest.approx(0.5**4)
    assert report.exit_code is ExitCode.DONE


def test_images_are_paired(reference, described, make_cell):
    # As many survive, but others: 4 lost, 4 won.
    cell = only(compare(reference, described([make_cell("f" * 4 + "r" * 16)])))
    assert (cell.verdict, cell.difference) == ("same", 0)
    assert cell.ci95[1] > 0.1


def test_rejects_count_as_survivors(reference, described, make_cell):
    assert only(compare(reference, described([make_cell("a" * 16 + "f" * 4)]))).difference == 0


@pytest.mark.parametrize(
    ("words", "verdict"), [({"alpha": 0.001}, "same"), ({"tolerance": 0.4}, "same"), ({}, "regressed")]
)
def test_alpha_and_tolerance_are_obeyed(reference, described, make_cell, words, verdict):
    assert only(compare(reference, described([make_cell(WORSE)]), **words)).verdict == verdict


@pytest.mark.parametrize(
    ("words", "message"), [({"alpha": 0}, "alpha must be between"), ({"tolerance": 1}, "tolerance must be from 0")]
)
def test_words_out_of_range_are_refused(reference, described, make_cell, words, message):
    with pytest.raises(ConfigError, match=message):
        compare(reference, described([make_cell(OLD)]), **words)


def test_cells_are_corrected_together(described, make_cell):
    # 5 lost: p = 1/32; among two cells it is not enough, whatever the other shows.
    lost = "r" * 11 + "f" * 9
    both = reference_from([described([make_cell(OLD), make_cell(OLD, attack="fgsm")])])
    report = compare(both, described([make_cell(lost), make_cell(OLD, attack="fgsm")]))
    assert [cell.verdict for cell in report.cells] == ["same", "same"]
    assert report.cells[0].p_value == pytest.approx(1 / 32)
    assert report.cells[0].p_corrected == pytest.approx(2 / 32)
    alone = compare(both, described([make_cell(lost)]))
    assert [cell.verdict for cell in alone.cells] == ["regressed", "missing"]


def test_a_cell_that_is_not_in_the_run_is_missing(reference, described, make_cell):
    report = compare(reference, described([make_cell(OLD, eps=0.2)]))
    cell = only(report)
    assert (cell.verdict, cell.new_accuracy) == ("missing", None)
    assert "the run does not have this cell" in cell.detail
    assert report.exit_code is ExitCode.INCOMPLETE
    assert [key.eps for key in report.new_cells] == [0.2]


def test_a_cell_without_a_number_is_missing_with_its_reason(reference, described, make_cell):
    nothing = make_cell(OLD, status="not_run", reason="no surrogate has gradients")
    report = compare(reference, described([nothing], complete=True))
    assert only(report).verdict == "missing"
    assert only(report).detail == "the run has no number: no surrogate has gradients"


def test_regression_outranks_missing(described, make_cell):
    both = reference_from([described([make_cell(OLD), make_cell(OLD, attack="fgsm")])])
    assert compare(both, described([make_cell(WORSE)])).exit_code is ExitCode.CHECK_FAILED


@pytest.mark.parametrize(
    ("dataset", "detail"),
    [
        ({"digest": "d2" * 32}, r"on other data: 'digits' d2d2d2d2, not 'digits' d1d1d1d1"),
        ({"indices": (*range(19), 99)}, "other images of the same data; use the same n_examples and seed"),
        ({"n": 10, "indices": tuple(range(10))}, "attacked 10 images, the reference 20"),
    ],
)
def test_other_images_are_not_comparable(reference, described, make_cell, dataset, detail):
    words = {"name": "digits", "digest": "d1" * 32, "n": 20, "indices": tuple(range(20))} | dataset
    run = described([make_cell(WORSE[: words["n"]])], dataset=DatasetRecord(**words))
    report = compare(reference, run)
    assert (only(report).verdict, report.exit_code) == ("not comparable", ExitCode.INCOMPLETE)
    assert detail in only(report).detail


def test_the_same_images_under_another_file_name_are_comparable(reference, described, make_cell):
    moved = DatasetRecord(name="copy", digest="d1" * 32, n=20, indices=tuple(range(20)))
    assert only(compare(reference, described([make_cell(OLD, dataset="copy")], dataset=moved))).verdict == "same"


def test_an_incomplete_run_is_refused(reference, described, make_cell):
    with pytest.raises(IncompleteRunError, match="the run is incomplete; the same 'dkd-bench run' command") as refused:
        compare(reference, described([make_cell(OLD)], complete=False))
    assert refused.value.exit_code is ExitCode.INCOMPLETE


def test_a_run_that_its_verification_does_not_bear_out_is_refused(reference, described, make_cell):
    run = LoadedRun(record=described([make_cell(OLD)]), doubt="verify found: image 3 is over its budget")
    with pytest.raises(
        IncompleteRunError,
        match=r"the run has numbers that its evidence does not bear out \(verify found: image 3 is over its budget\)",
    ):
        compare(reference, run)
    with pytest.raises(IncompleteRunError, match="run 2 of 2 has numbers that its evidence does not bear out"):
        reference_from([described([make_cell(OLD)]), run])


def test_the_same_cell_twice_is_refused(reference, described, make_cell):
    with pytest.raises(ConfigError, match="stands twice in the run"):
        compare(reference, described([make_cell(OLD), make_cell(OLD)]))


def test_too_few_outcomes_are_refused(reference, described, make_cell):
    with pytest.raises(StoreError, match="must have 20 outcomes, has 19"):
        compare(reference, described([make_cell(OLD[:19])], n=20))


def test_several_runs_make_spread_no_alarm(described, make_cell):
    low = "r" * 9 + "f" * 11
    several = reference_from([described([make_cell(OLD)]), described([make_cell(low)], training_seed=1)])
    cell = only(compare(several, described([make_cell(WORSE)])))
    assert (cell.verdict, cell.reference_accuracy, cell.p_value) == ("same", 0.45, 0.5)
    alike = reference_from([described([make_cell(OLD)]), described([make_cell("r" * 15 + "f" * 5)], training_seed=1)])
    assert only(compare(alike, described([make_cell("f" * 20)]))).verdict == "regressed"


def test_a_flag_that_the_reference_did_not_raise_is_a_warning(described, make_cell, with_defenses):
    def flags(*names):
        return tuple(FlagRecord(name=name, detail="seen") for name in names)

    old = with_defenses(described([make_cell(OLD)]), flags=flags("noise beats the attack"))
    new = with_defenses(described([make_cell(BETTER)]), flags=flags("noise beats the attack", "zero gradients"))
    report = compare(reference_from([old]), new)
    (warning,) = report.warnings
    assert warning.startswith("dkd raises the flag 'zero gradients', which it did not in the reference")
    assert report.exit_code is ExitCode.DONE
    assert compare(reference_from([new]), old).warnings == ()


class Replayed:
    """Gives what it is told to, and remembers what it was asked for."""

    def __init__(self, *answers):
        self.answers = answers
        self.asked = []

    def __call__(self, cell, run):
        self.asked.append((cell.key.attack, run))
        answer = self.answers[run]
        if isinstance(answer, Exception):
            raise answer
        return [float(letter == "r") for letter in answer]


def stronger_attack(described, make_cell, suite, outcomes=WORSE):
    return described([make_cell(outcomes)], suite=suite(pgd=400))


def test_another_attack_on_the_same_weights_is_the_attacks_doing(reference, described, make_cell, suite):
    replay = Replayed(WORSE)
    report = compare(reference, stronger_attack(described, make_cell, suite), replay=replay)
    cell = only(report)
    assert (cell.verdict, cell.moved, replay.asked) == ("attack changed", "attack", [])
    assert (cell.reference_accuracy, cell.new_accuracy, cell.p_value) == (0.8, 0.4, None)
    assert (cell.old_evidence_before, cell.old_evidence_now) == (None, None)
    assert (report.regressed, report.exit_code) == (False, ExitCode.DONE)


@pytest.fixture
def other_weights(described, make_cell, suite, with_defenses):
    return with_defenses(stronger_attack(described, make_cell, suite), weights_sha256="v" * 64)


def test_new_weights_that_fall_to_old_evidence_are_the_defences_doing(reference, other_weights):
    replay = Replayed("r" * 11 + "f" * 9)
    report = compare(reference, other_weights, replay=replay)
    cell = only(report)
    assert (cell.verdict, cell.moved, cell.regressed, replay.asked) == (
        "attack changed",
        "defense",
        True,
        [("pgd", 0)],
    )
    assert cell.p_value == pytest.approx(1 / 32)
    assert "survives 55.0%, 80.0% before" in cell.detail
    assert report.exit_code is ExitCode.CHECK_FAILED


@pytest.mark.parametrize(
    ("answer", "sentence", "now", "p_value"),
    [
        ("r" * 20, "the defence stands the old evidence better than before", 1.0, 1.0),
        (OLD, "the defence stands the old evidence no worse than before", 0.8, 1.0),
        ("r" * 18 + "f" * 2, "the defence stands the old evidence no worse than before", 0.9, 1.0),
        ("r" * 14 + "f" * 6, "nothing says that the defence is weaker", 0.7, 0.25),
    ],
)
def test_new_weights_that_stand_old_evidence_leave_the_attack(reference, other_weights, answer, sentence, now, p_value):
    """The p-value is that of less being survived, where more is too."""
    report = compare(reference, other_weights, replay=Replayed(answer), alpha=0.07)
    cell = only(report)
    assert (cell.moved, report.exit_code) == ("attack", ExitCode.DONE)
    assert f"; {sentence}: of the old" in cell.detail or f", and {sentence}: of the old" in cell.detail
    assert (cell.old_evidence_before, cell.old_evidence_now) == (0.8, now)
    assert (cell.reference_accuracy, cell.new_accuracy) == (0.8, 0.4)
    assert cell.p_value == cell.p_corrected == pytest.approx(p_value)


def test_replayed_cells_are_corrected_together(described, make_cell, suite, with_defenses):
    both = reference_from([described([make_cell(OLD), make_cell(OLD, attack="fgsm")])])
    run = described([make_cell(OLD), make_cell(OLD, attack="fgsm")], suite=suite(pgd=400, fgsm=2))
    report = compare(both, with_defenses(run, weights_sha256="v" * 64), replay=Replayed("r" * 10 + "f" * 10))
    assert [cell.p_value for cell in report.cells] == pytest.approx([1 / 64] * 2)
    assert [cell.p_corrected for cell in report.cells] == pytest.approx([2 / 64] * 2)
    assert [cell.moved for cell in report.cells] == ["defense"] * 2


def test_a_replay_obeys_alpha_and_tolerance(reference, other_weights):
    replay = Replayed("r" * 11 + "f" * 9)
    assert only(compare(reference, other_weights, replay=replay, alpha=0.03)).moved == "attack"
    assert only(compare(reference, other_weights, replay=replay, tolerance=0.25)).moved == "attack"


@pytest.mark.parametrize("error", [EvidenceError, StoreError])
def test_without_evidence_the_side_is_unknown_and_said_so(reference, other_weights, error):
    report = compare(reference, other_weights, replay=Replayed(error("the old evidence is gone")))
    assert (only(report).moved, report.exit_code) == ("unknown", ExitCode.INCOMPLETE)
    assert only(report).detail.endswith("which side moved is unknown: the old evidence is gone")


def test_without_a_replay_the_side_is_unknown(reference, other_weights):
    report = compare(reference, other_weights)
    assert "the old evidence was not looked for; 'dkd-bench check' does" in only(report).detail
    assert report.exit_code is ExitCode.INCOMPLETE


def test_regression_outranks_an_unknown_side(described, make_cell, suite, with_defenses):
    both = reference_from([described([make_cell(OLD), make_cell(OLD, attack="fgsm")])])
    run = described([make_cell(WORSE), make_cell(OLD, attack="fgsm")], suite=suite(fgsm=2))
    report = compare(both, with_defenses(run, weights_sha256="v" * 64))
    assert [cell.moved for cell in report.cells] == [None, "unknown"]
    assert report.exit_code is ExitCode.CHECK_FAILED


def test_old_evidence_of_several_runs_must_all_show_it(described, make_cell, other_weights):
    low = "r" * 11 + "f" * 9
    several = reference_from([described([make_cell(OLD)]), described([make_cell(low)], training_seed=1)])
    replay = Replayed(low, low)
    assert only(compare(several, other_weights, replay=replay)).moved == "attack"
    assert replay.asked == [("pgd", 0), ("pgd", 1)]
    assert only(compare(several, other_weights, replay=Replayed("f" * 20, "f" * 20))).moved == "defense"
    # What is not at hand cannot speak for the defence.
    assert only(compare(several, other_weights, replay=Replayed(low, EvidenceError("gone")))).moved == "defense"


def test_changed_cells_do_not_count_in_the_correction_of_others(described, make_cell, suite):
    lost = "r" * 11 + "f" * 9
    both = reference_from([described([make_cell(OLD), make_cell(OLD, attack="fgsm")])])
    report = compare(both, described([make_cell(lost), make_cell(lost, attack="fgsm")], suite=suite(fgsm=2)))
    assert [cell.verdict for cell in report.cells] == ["regressed", "attack changed"]


ELSEWHERE = {"versions": {"python": "3.11.7", "torch": "2.15.0"}, "environment": {"threads": "2"}}
"""What the run of the reference was not computed with; its threads are not told of."""


def test_another_environment_is_compared_and_named(reference, described, make_cell):
    report = compare(reference, described([make_cell(WORSE)], **ELSEWHERE))
    assert (only(report).verdict, report.exit_code) == ("regressed", ExitCode.CHECK_FAILED)
    assert report.environment == ("torch 2.4.0 to 2.15.0",)
    assert report.environment_note == "the environment changed too: torch 2.4.0 to 2.15.0"
    report = compare(reference, described([make_cell(OLD)], **ELSEWHERE))
    assert (only(report).verdict, report.exit_code) == ("same", ExitCode.DONE)


def test_the_same_environment_is_not_named(reference, described, make_cell):
    report = compare(reference, described([make_cell(OLD)]), strict_environment=True)
    assert (report.environment, report.environment_note, report.exit_code) == ((), "", ExitCode.DONE)


def test_a_strict_check_refuses_another_environment(reference, described, make_cell):
    report = compare(reference, described([make_cell(WORSE)], **ELSEWHERE), strict_environment=True)
    assert (only(report).verdict, report.exit_code) == ("not comparable", ExitCode.INCOMPLETE)
    assert only(report).detail == (
        "the environment is another one (torch 2.4.0 to 2.15.0); make the run where the reference was made, or check "
        "without strict_environment"
    )


def test_an_environment_that_one_run_of_the_reference_had_is_not_another(described, make_cell):
    runs = [described([make_cell(OLD)], training_seed=1, **ELSEWHERE), described([make_cell(OLD)])]
    report = compare(reference_from(runs), described([make_cell(OLD)], **ELSEWHERE))
    assert report.environment == ()
