from __future__ import annotations

import numpy as np

from dkd_bench.plots import TransferData, transfer_figure

DATA = TransferData(
    title="dkd: transfer\nfgsm linf 0.1; digits, n = 100",
    members=("member 1", "member 2"),
    fooled=((0.75, 0.125), (0.25, None)),
    counted=(96, 0),
)


def test_rows_are_sources_and_columns_judges():
    axes = transfer_figure(DATA).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), [[0.75, 0.125], [0.25, np.nan]])
    assert axes.images[0].get_clim() == (0, 1)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["member 1", "member 2"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["member 1\n(n = 96)", "member 2\n(n = 0)"]
    assert axes.get_ylabel() == "examples made on"
    assert axes.get_title() == DATA.title


def test_numbers_stand_in_their_cells_in_ink_that_shows():
    texts = {tuple(text.get_position()): text for text in transfer_figure(DATA).axes[0].texts}
    assert {place: text.get_text() for place, text in texts.items()} == {
        (0, 0): "75 %",
        (1, 0): "12 %",
        (0, 1): "25 %",
        (1, 1): "none right",
    }
    assert (texts[0, 0].get_color(), texts[1, 0].get_color()) == ("white", "black")
