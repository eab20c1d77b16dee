from __future__ import annotations

import pytest

from dkd_bench.leaderboard import rank_runs
from dkd_bench.records import Interval, SeparationRecord
from dkd_bench.sweep import Sweep, SweepPoint
from dkd_paper._figure5 import figure5, figure5_sweep
from dkd_paper.request import StudyRequest


@pytest.fixture
def sweep(make_cell, make_run):
    """A sweep whose margins and clean accuracies are given by label; ``None`` for no margin."""
    run = rank_runs([("run", make_run([make_cell()]))]).runs[0]

    def point(label, margin, clean):
        found = {"layer": "latent", "n": 500, "dimension": 64, "reason": None if margin else "no plane"}
        return SweepPoint(
            label=label,
            defense="any",
            decision="boosted",
            clean=Interval(value=clean, ci95=(clean - 0.01, clean + 0.01)),
            n_test=500,
            separation=SeparationRecord(**found, margin=margin, scaled_margin=margin and margin / 100),
            robust={"joint": Interval(value=clean / 2, ci95=(0.0, 1.0))},
            weights_sha256="w",
            run=run,
        )

    def of(points, levels):
        return Sweep(
            defense="dkd",
            setting="zeta",
            dataset="digits",
            attack="fgsm",
            norm="linf",
            eps=0.1,
            n=100,
            seed=0,
            threat_models=("standalone", "joint"),
            points=tuple(point(*each) for each in points),
            levels=tuple(point(*each) for each in levels),
        )

    return of


POINTS = [("0", 10.0, 0.99), ("0.5", 20.0, 0.98), ("0.9", 30.0, 0.97)]


def test_columns_are_the_threat_models_and_clean_counts_the_whole_test_set(sweep):
    margins, accuracies = figure5(sweep(POINTS, [("ri", 8.0, 0.99), ("kd", 5.0, 0.98)]), "MNIST").blocks

    assert [row.label for row in margins.rows] == ["DKD, zeta 0", "DKD, zeta 0.5", "DKD, zeta 0.9", "RI", "KD"]
    assert [entry.measured.value for entry in margins.rows[2].entries] == [30.0, 0.3]
    assert accuracies.columns == ("clean", "standalone", "joint")
    clean, standalone, joint = accuracies.rows[0].entries
    assert (clean.measured.n, clean.measured.ci95) == (500, (0.98, 1.0))
    assert standalone.measured is None
    assert (joint.measured.n, joint.measured.value) == (100, 0.495)


def test_claims_are_read_at_the_zeta_that_the_paper_chose_for_such_images(sweep):
    measured = sweep(POINTS, [("ri", 25.0, 0.99), ("kd", 5.0, 0.98)])

    assert [each.verdict for each in figure5(measured, "MNIST").trends] == ["confirmed"] * 4
    order = figure5(measured, "CIFAR10").trends[0]
    assert order.claim == "LSS of DKD (zeta 0.5) > RI > KD, raw."
    assert (order.verdict, order.evidence[:23]) == ("contradicted", "in 1 of 2 comparisons; ")


def test_latents_without_a_margin_decide_nothing(sweep):
    order, _, rises, _ = figure5(
        sweep([*POINTS[:2], ("0.9", None, 0.97)], [("ri", 8.0, 0.99), ("kd", None, 0.98)]), "MNIST"
    ).trends

    assert order.verdict == "not decided"
    assert order.evidence == "in 0 of 0 comparisons; no number for DKD over RI, RI over KD"
    assert (
        rises.evidence
        == "in 1 of 1 comparisons; zeta 0.5 over 0 20.000 against 10.000; no number for zeta 0.9 over 0.5"
    )


def test_the_sweep_takes_no_more_images_than_there_are():
    assert figure5_sweep(StudyRequest(), 500).run.n_examples == 500
    assert figure5_sweep(StudyRequest(n_slow=200), 500).run.n_examples == 200
