from __future__ import annotations

from math import isnan

import pytest

from dkd_bench.errors import ConfigError
from dkd_bench.leaderboard import rank_runs
from dkd_bench.plots import SweepFigureData, gather_sweep, sweep_figure
from dkd_bench.records import Interval, SeparationRecord
from dkd_bench.sweep import Sweep, SweepPoint


def data(**changes) -> SweepFigureData:
    values = {
        "setting": "zeta",
        "values": (0.0, 0.5, 0.9),
        "series": {
            "LSS": ((1.0, None), None, (3.0, None)),
            "joint": ((0.5, (0.4, 0.6)), (0.6, (0.5, 0.7)), None),
            "standalone": ((0.7, None), (0.8, None), (0.9, None)),
        },
        "levels": {"ri": {"LSS": (1.5, (1.25, 1.75)), "joint": (0.3, None)}},
        "panels": {"separation": ("LSS",), "accuracy under pgd": ("joint", "standalone")},
        "note": "bars are 95 % Wilson intervals",
    }
    return SweepFigureData(**(values | changes))


def test_panels_group_the_series_and_name_the_setting():
    figure = sweep_figure(data(title="dkd over zeta"))
    assert [axes.get_title() for axes in figure.axes] == ["separation", "accuracy under pgd"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"zeta"}
    assert figure.get_suptitle() == "dkd over zeta"


def test_without_groups_each_series_has_its_panel():
    assert [axes.get_title() for axes in sweep_figure(data(panels={})).axes] == ["LSS", "joint", "standalone"]


def test_line_breaks_where_nothing_was_measured():
    line = sweep_figure(data()).axes[0].get_lines()[0]
    assert line.get_xdata().tolist() == [0.0, 0.5, 0.9]
    first, gap, last = line.get_ydata().tolist()
    assert (first, last) == (1.0, 3.0)
    assert isnan(gap)


def test_bars_are_the_intervals():
    (container,) = sweep_figure(data()).axes[1].containers
    segments = [segment.tolist() for segment in container[2][0].get_segments()]
    assert segments == [
        [[0.0, pytest.approx(0.4)], [0.0, pytest.approx(0.6)]],
        [[0.5, pytest.approx(0.5)], [0.5, pytest.approx(0.7)]],
    ]


def test_levels_are_lines_across_with_a_band_where_the_panel_is_theirs():
    figure = sweep_figure(data())
    level = figure.axes[0].get_lines()[-1]
    assert (level.get_label(), set(level.get_ydata())) == ("ri", {1.5})
    assert [patch.get_bbox().intervaly.tolist() for patch in figure.axes[0].patches] == [[1.25, 1.75]]
    assert not figure.axes[1].patches


def test_legend_explains_colours_levels_and_intervals():
    (legend,) = sweep_figure(data()).legends
    assert [text.get_text() for text in legend.get_texts()] == ["joint", "standalone", "ri"]
    assert legend.get_title().get_text() == "bars are 95 % Wilson intervals"


def test_series_without_any_value_is_an_empty_panel():
    line = sweep_figure(data(series={"LSS": (None, None, None)}, panels={}, levels={}, note="")).axes[0].get_lines()[0]
    assert all(isnan(value) for value in line.get_ydata())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"values": ()}, "at least one value of its setting"),
        ({"values": (0.0,)}, "series 'LSS' needs 1 values, got 3"),
        ({"panels": {"separation": ("LSS",)}}, "these are not matched"),
    ],
)
def test_data_that_do_not_fit_together_are_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        data(**changes)


@pytest.fixture
def sweep(make_cell, make_run):
    """A sweep over two values, by their labels; the second has no margin, and ``ri`` stands beside both."""
    run = rank_runs([("run", make_run([make_cell()]))]).runs[0]

    def point(label, margin):
        found = {"layer": "latent", "n": 500, "dimension": 64, "reason": None if margin else "no plane"}
        return SweepPoint(
            label=label,
            defense="any",
            decision="boosted",
            clean=Interval(value=0.9, ci95=(0.8, 0.95)),
            n_test=500,
            separation=SeparationRecord(**found, margin=margin, scaled_margin=margin and margin / 100),
            robust={"joint": Interval(value=0.5, ci95=(0.4, 0.6))},
            weights_sha256="w",
            run=run,
        )

    def of(first, second):
        ground = {"defense": "any", "setting": "how", "dataset": "digits", "attack": "fgsm", "norm": "linf", "eps": 0.1}
        names = ("standalone", "joint")
        points = (point(first, 10.0), point(second, None))
        return Sweep(**ground, n=100, seed=0, threat_models=names, points=points, levels=(point("ri", 8.0),))

    return of


def test_what_was_not_measured_is_a_gap(sweep):
    gathered = gather_sweep(sweep("0", "0.5"))
    assert gathered.values == (0.0, 0.5)
    assert gathered.series["LSS (raw margin)"] == ((10.0, None), None)
    assert gathered.series["standalone fgsm"] == (None, None)
    assert gathered.series["joint fgsm"][0] == (0.5, (0.4, 0.6))
    assert gathered.levels["ri"]["LSS, scale-free"] == (0.08, None)
    assert list(gathered.panels)[-1] == "accuracy under fgsm linf 0.1"
    assert gathered.title == "any over how, digits"


def test_values_that_are_words_stand_at_their_positions_and_are_named(sweep):
    gathered = gather_sweep(sweep("one", "other"))
    assert gathered.values == (0.0, 1.0)
    assert gathered.note.endswith("; 0 is one, 1 is other")
