"""Which member's examples fool which other member: a matrix as a heat map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dkd_bench.plots._style import styled

_CELL_INCHES = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferData:
    """How the examples made on each member fare on all of them."""

    title: str
    """Which defence, attack, budget and images."""
    members: tuple[str, ...]
    fooled: tuple[tuple[float | None, ...], ...]
    """Row: the member on which the examples were made; column: the member that judges. The share, of the images
    it has right when clean, that it gets wrong under attack; ``None`` if it has none right."""
    counted: tuple[int, ...]
    """For each judge, the images it has right when clean."""


@styled
def transfer_figure(data: TransferData) -> Figure:
    """Return the matrix as a heat map, the numbers in percent in its cells."""
    size = len(data.members)
    side = _CELL_INCHES * max(size, 3)
    figure = Figure(figsize=(side + 2.6, side + 1.5), layout="constrained")
    axes = figure.subplots()
    shares = np.array([[np.nan if share is None else share for share in row] for row in data.fooled], dtype=float)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(data.title)
    judges = [f"{name}\n(n = {n})" for name, n in zip(data.members, data.counted, strict=True)]
    axes.set_xticks(range(size), judges)
    axes.set_yticks(range(size), data.members)
    axes.set_xlabel("judged by (percent of the n images it has right when clean)")
    axes.set_ylabel("examples made on")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(shares.shape):
        share = data.fooled[row][column]
        text = "none right" if share is None else f"{100 * share:.0f} %"
        ink = "white" if share is not None and share > 0.6 else "black"
        axes.text(column, row, text, ha="center", va="center", color=ink)
    bar = figure.colorbar(image, ax=axes, format=PercentFormatter(xmax=1), shrink=0.8)
    bar.set_label("wrong under attack")
    return figure
