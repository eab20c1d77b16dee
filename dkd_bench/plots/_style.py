"""Common style of all pictures: colours that colour-blind people tell apart, and type readable in a README."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Literal, ParamSpec, get_args

import matplotlib.style
from matplotlib.figure import Figure

from dkd_bench.budget import Norm

_P = ParamSpec("_P")

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito (2008), their yellow replaced by gray, since it does not show on white."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Marker shapes that go with the colours, for print without colour."""

Dashes = Literal["-", "--", "-.", ":"]
DASHES: tuple[Dashes, ...] = get_args(Dashes)

NORM_WORDS: dict[Norm, str] = {"linf": "Linf norm", "l2": "L2 norm", "l0": "L0: values changed"}
"""Axis title for norms, by norm."""

_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "errorbar.capsize": 2.5,
    "figure.titlesize": 11,
    "font.size": 9,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "svg.hashsalt": "dkd-bench",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def house_style() -> AbstractContextManager[None]:
    """Return a context in which matplotlib has its defaults and this look, whatever the user's own settings."""
    return matplotlib.style.context(["default", _STYLE])  # type: ignore[no-any-return, unused-ignore]


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Let ``draw`` work in the house style."""

    @wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with house_style():
            return draw(*args, **kwargs)

    return drawn


def color(position: int) -> str:
    """Return the colour of the line at ``position``; after the last, the first again."""
    return PALETTE[position % len(PALETTE)]


def marker(position: int) -> str:
    """Return the marker of the line at ``position``; shifted on each round of the colours."""
    return MARKERS[(position + position // len(PALETTE)) % len(MARKERS)]


def dashes(position: int) -> Dashes:
    """Return the line style of the line at ``position``."""
    return DASHES[position % len(DASHES)]
