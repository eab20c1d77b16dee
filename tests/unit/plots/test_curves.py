from __future__ import annotations

import matplotlib
import pytest

from dkd_bench.errors import ConfigError
from dkd_bench.plots import Curve, CurvePoint, accuracy_curve, curves_figure
from dkd_bench.records.statistics import wilson_interval

DISTANCES = (0.0, 0.5, None, 0.25, 0.5)


def make_curve(**changes) -> Curve:
    values = {"label": "dkd (majority)", "threat_model": "joint", "attack": "deepfool", "norm": "l2"}
    return Curve(**(values | {"dataset": "digits", "n": 5, "distances": DISTANCES} | changes))


def test_curve_counts_images_whose_distance_is_over_the_norm():
    curve = accuracy_curve(DISTANCES)
    assert curve.norms == (0.0, 0.25, 0.5)
    assert curve.accuracy == (0.8, 0.6, 0.2)
    assert tuple(zip(curve.low, curve.high, strict=True)) == tuple(wilson_interval(k, 5) for k in (4, 3, 1))


def test_curve_of_images_that_were_never_fooled_stays_at_one():
    curve = accuracy_curve((None, None))
    assert (curve.norms, curve.accuracy) == ((0.0,), (1.0,))


def test_curve_of_no_image_is_refused():
    with pytest.raises(ConfigError, match="fooling distance of at least one image, got none"):
        accuracy_curve(())


def test_steps_hold_each_accuracy_until_the_next_norm_and_to_the_edge():
    panel = curves_figure([make_curve()], threat_models=["joint"]).axes[0]
    (line,) = panel.get_lines()
    assert line.get_drawstyle() == "steps-post"
    assert line.get_xdata().tolist() == pytest.approx([0.0, 0.25, 0.5, 0.525])
    assert line.get_ydata().tolist() == [0.8, 0.6, 0.2, 0.2]
    band = panel.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(wilson_interval(1, 5)[0])
    assert band.max() == pytest.approx(wilson_interval(4, 5)[1])


def test_budgets_are_points_with_their_intervals():
    points = (CurvePoint(0.0, 0.9, (0.8, 0.95)), CurvePoint(0.1, 0.4, (0.3, 0.55)))
    panel = curves_figure([make_curve(distances=(), points=points, norm="linf")], threat_models=["joint"]).axes[0]
    ((marks, _, (bars,)),) = panel.containers
    assert marks.get_xdata().tolist() == [0.0, 0.1]
    assert marks.get_ydata().tolist() == [0.9, 0.4]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [
        pytest.approx([0.8, 0.95]),
        pytest.approx([0.3, 0.55]),
    ]
    assert panel.get_xlabel() == "Linf norm"


def test_rows_are_attacks_and_columns_threat_models():
    curves = [
        make_curve(threat_model="standalone"),
        make_curve(),
        make_curve(label="dkd (boosted)"),
        make_curve(attack="fgsm", norm="linf"),
    ]
    figure = curves_figure(curves, threat_models=["standalone", "joint"])
    assert [axes.get_title() for axes in figure.axes] == ["standalone", "joint (trust this)", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["deepfool\naccuracy", "", "fgsm\naccuracy", ""]
    assert [len(axes.get_lines()) for axes in figure.axes] == [1, 2, 0, 1]
    assert [text.get_text() for text in figure.axes[2].texts] == ["no number"]
    assert figure.get_suptitle().endswith("(digits, n = 5)")


def test_legend_names_each_defence_once_and_says_what_to_trust():
    curves = [make_curve(), make_curve(label="none (deployed)"), make_curve(threat_model="standalone")]
    (legend,) = curves_figure(curves, threat_models=["standalone", "joint"]).legends
    assert [text.get_text() for text in legend.get_texts()] == ["dkd (majority)", "none (deployed)"]
    assert "trust the joint column" in legend.get_title().get_text()
    assert "95 % Wilson intervals. Linf and L2 norms are in [0, 1] pixel units" in legend.get_title().get_text()


def test_without_the_joint_column_the_legend_warns_of_the_others():
    (legend,) = curves_figure([make_curve(threat_model="standalone")], threat_models=["standalone"]).legends
    assert "not how robust a defence is" in legend.get_title().get_text()


def test_unlike_attacks_of_one_name_do_not_share_a_panel():
    figure = curves_figure([make_curve(), make_curve(ground="of other parameters")], threat_models=["joint"])
    assert len(figure.axes) == 2


def test_unlike_images_do_not_share_a_panel():
    figure = curves_figure([make_curve(), make_curve(n=7, distances=(None,) * 7)], threat_models=["joint"])
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "digits, n = 5\ndeepfool\naccuracy",
        "digits, n = 7\ndeepfool\naccuracy",
    ]


def test_nothing_to_draw_is_refused():
    with pytest.raises(ConfigError, match="no cell has a number"):
        curves_figure([], threat_models=["joint"])


def test_settings_of_the_user_are_left_alone():
    before = dict(matplotlib.rcParams)
    curves_figure([make_curve()], threat_models=["joint"])
    assert dict(matplotlib.rcParams) == before
