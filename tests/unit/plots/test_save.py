from __future__ import annotations

import pytest

from dkd_bench.errors import UnknownNameError
from dkd_bench.plots import PICTURE_FORMATS, Curve, CurvePoint, curves_figure, figure_bytes


def figure():
    curve = Curve(
        label="dkd (majority)",
        threat_model="joint",
        attack="deepfool",
        norm="l2",
        dataset="digits",
        n=3,
        distances=(0.0, 0.5, None),
        points=(CurvePoint(0.3, 0.5, (0.25, 0.75)),),
    )
    return curves_figure([curve], threat_models=["joint"])


@pytest.mark.parametrize("format", PICTURE_FORMATS)
def test_same_data_give_the_same_bytes(format):
    assert figure_bytes(figure(), format) == figure_bytes(figure(), format)


def test_files_are_what_their_format_says():
    assert figure_bytes(figure(), "png").startswith(b"\x89PNG\r\n\x1a\n")
    svg = figure_bytes(figure(), "svg")
    assert svg.startswith(b"<?xml")
    assert b"<dc:date>" not in svg


def test_unknown_format_is_refused():
    with pytest.raises(UnknownNameError, match=r"no picture format named 'pgn'\. Did you mean 'png'\? Known: png, svg"):
        figure_bytes(figure(), "pgn")
