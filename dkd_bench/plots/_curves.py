"""Curves of accuracy against perturbation norm: a row for each attack, a column for each threat model.

``run_curves`` gathers the curves from a run's record, ``curves_figure`` draws them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dkd_bench.budget import Norm
from dkd_bench.errors import ConfigError
from dkd_bench.plots._style import NORM_WORDS, color, marker, styled
from dkd_bench.records import CellRecord, RunRecord
from dkd_bench.records.statistics import wilson_interval
from dkd_bench.store.digests import digest_json
from dkd_bench.threats import sees_whole

_COLUMN_INCHES, _ROW_INCHES = 2.45, 2.15
_NARROWEST_INCHES = 6.4
_WHAT_LINES_MEAN = "Lines: share of images not yet fooled by minimum-norm examples. They tell how the examples transfer"
_NOT_TO_TRUST = ", not how robust a defence is."
_WHAT_MARKS_MEAN = "Marks (joined by dots): accuracy within a budget; at norm 0, on clean images."
_WHAT_BANDS_MEAN = "Bands and bars: 95 % Wilson intervals. Linf and L2 norms are in [0, 1] pixel units."


class CurvePoint(NamedTuple):
    """Accuracy within one budget."""

    eps: float
    """Budget in [0, 1] pixel units; 0 for the clean images."""
    accuracy: float
    ci95: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One defence under one decision rule, threat model and attack."""

    label: str
    """Name of the defence and its rule; curves with one label share a colour."""
    threat_model: str
    attack: str
    norm: Norm
    dataset: str
    n: int
    ground: str = ""
    """Digest of what else curves must share to be drawn together: images and attack."""
    distances: tuple[float | None, ...] = ()
    """Smallest norm at which each image is fooled: 0 if wrong when clean, ``None`` if never; empty if unknown."""
    points: tuple[CurvePoint, ...] = ()

    @property
    def row(self) -> tuple[str, int, str, Norm, str]:
        """Row of panels that it may be drawn in: images, attack and norm."""
        return self.dataset, self.n, self.attack, self.norm, self.ground


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyCurve:
    """A step function of the norm: each accuracy holds from its norm to the next."""

    norms: tuple[float, ...]
    """Perturbation norms, ascending, from 0."""
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def run_curves(record: RunRecord, *, label: str | None) -> list[Curve]:
    """Return a curve for each defence, rule, threat model, attack and norm that has a number.

    Args:
        record: of the run.
        label: what tells its defences from those of other runs; ``None`` if there are no others.
    """
    grouped: dict[tuple[str, str, str, str, str], list[CellRecord]] = {}
    for cell in record.cells:
        if cell.status == "ok":
            key = (cell.attack, cell.norm, cell.defense, cell.decision, cell.threat_model)
            grouped.setdefault(key, []).append(cell)
    where = "" if label is None else f", {label}"
    return [
        Curve(
            label=f"{cells[0].defense} ({cells[0].decision}{where})",
            threat_model=cells[0].threat_model,
            attack=cells[0].attack,
            norm=cells[0].norm,
            dataset=cells[0].dataset,
            n=cells[0].n,
            ground=digest_json(
                [record.manifest.dataset.digest, record.manifest.dataset.indices, record.suite_fingerprint]
            ),
            distances=next((cell.fooling_distances for cell in cells if cell.eps is None), ()),
            points=_points(cells, record),
        )
        for cells in grouped.values()
    ]


def _points(cells: Sequence[CellRecord], record: RunRecord) -> tuple[CurvePoint, ...]:
    """Return the accuracy within each budget, in ascending order, and before them that on the clean images."""
    points = [
        CurvePoint(cell.eps, cell.robust_accuracy, cell.ci95)
        for cell in cells
        if cell.eps is not None and cell.robust_accuracy is not None and cell.ci95 is not None
    ]
    clean = record.manifest.defenses[cells[0].defense].clean_accuracy.get(cells[0].decision)
    if points and clean is not None:
        points.append(CurvePoint(0.0, clean.value, clean.ci95))
    return tuple(sorted(points))


def accuracy_curve(distances: Sequence[float | None]) -> AccuracyCurve:
    """Return the share of images whose fooling distance is over each norm, with its 95 % Wilson interval.

    Raises:
        ConfigError: if there is no image to count.
    """
    if not distances:
        raise ConfigError("a curve needs the fooling distance of at least one image, got none")
    finite = sorted(distance for distance in distances if distance is not None)
    norms = sorted({0.0, *finite})
    standing = [len(distances) - bisect_right(finite, norm) for norm in norms]
    intervals = [_wilson(count, len(distances)) for count in standing]
    return AccuracyCurve(
        norms=tuple(norms),
        accuracy=tuple(count / len(distances) for count in standing),
        low=tuple(low for low, _ in intervals),
        high=tuple(high for _, high in intervals),
    )


_wilson = cache(wilson_interval)


@styled
def curves_figure(curves: Sequence[Curve], *, threat_models: Sequence[str]) -> Figure:
    """Return the accuracy of every defence against the norm of the perturbation.

    Args:
        curves: what is drawn, the rows and colours in the order in which they first appear.
        threat_models: the columns, in reading order.

    Raises:
        ConfigError: if there is nothing to draw.
    """
    if not curves:
        raise ConfigError("no cell has a number, so there is nothing to draw; finish the run first")
    rows = list(dict.fromkeys(curve.row for curve in curves))
    labels = list(dict.fromkeys(curve.label for curve in curves))
    width = max(_NARROWEST_INCHES, _COLUMN_INCHES * len(threat_models) + 0.6)
    figure = Figure(figsize=(width, _ROW_INCHES * len(rows) + 1.5), layout="constrained")
    figure.suptitle(_title(curves))
    axes = figure.subplots(len(rows), len(threat_models), squeeze=False, sharey=True, sharex="row")
    for panels, row in zip(axes, rows, strict=True):
        for panel, threat_model in zip(panels, threat_models, strict=True):
            here = [curve for curve in curves if (curve.row, curve.threat_model) == (row, threat_model)]
            _draw_panel(panel, here, labels, right=_right_end([each for each in curves if each.row == row]))
            panel.set_xlabel(NORM_WORDS[row[3]])
        panels[0].set_ylabel(_row_title(row, several_grounds=len({(curve.dataset, curve.n) for curve in curves}) > 1))
    for panel, threat_model in zip(axes[0], threat_models, strict=True):
        panel.set_title(f"{threat_model} (trust this)" if sees_whole(threat_model) else threat_model)
    _add_legend(figure, curves, labels)
    return figure


def _title(curves: Sequence[Curve]) -> str:
    grounds = dict.fromkeys(f"{curve.dataset}, n = {curve.n}" for curve in curves)
    return f"Accuracy under attack against the norm of the perturbation ({'; '.join(grounds)})"


def _row_title(row: tuple[str, int, str, Norm, str], *, several_grounds: bool) -> str:
    dataset, n, attack, _, _ = row
    ground = f"{dataset}, n = {n}\n" if several_grounds else ""
    return f"{ground}{attack}\naccuracy"


def _right_end(curves: Sequence[Curve]) -> float:
    """Return the largest norm on the axis of a row of panels."""
    distances = [distance for curve in curves for distance in curve.distances if distance is not None]
    return max([*distances, *(point.eps for curve in curves for point in curve.points)], default=0.0) or 1.0


def _draw_panel(panel: Axes, curves: Sequence[Curve], labels: Sequence[str], *, right: float) -> None:
    for curve in curves:
        place = labels.index(curve.label)
        if curve.distances:
            _draw_steps(panel, accuracy_curve(curve.distances), color(place), right=1.05 * right)
        if curve.points:
            _draw_points(panel, curve, place)
    if not curves:
        panel.text(0.5, 0.5, "no number", transform=panel.transAxes, ha="center", va="center", color="#777777")
    panel.set_xlim(-0.03 * right, 1.05 * right)
    panel.set_ylim(-0.03, 1.03)
    panel.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    panel.xaxis.set_major_locator(MaxNLocator(4))


def _draw_steps(panel: Axes, curve: AccuracyCurve, shade: str, *, right: float) -> None:
    norms = [*curve.norms, right]
    accuracy, low, high = ([*values, values[-1]] for values in (curve.accuracy, curve.low, curve.high))
    panel.fill_between(norms, low, high, step="post", color=shade, alpha=0.15, linewidth=0)
    panel.plot(norms, accuracy, drawstyle="steps-post", color=shade)


def _draw_points(panel: Axes, curve: Curve, place: int) -> None:
    eps = [point.eps for point in curve.points]
    below = [point.accuracy - point.ci95[0] for point in curve.points]
    above = [point.ci95[1] - point.accuracy for point in curve.points]
    panel.errorbar(
        eps,
        [point.accuracy for point in curve.points],
        yerr=(below, above),
        fmt=marker(place),
        color=color(place),
        elinewidth=1,
        linestyle="none" if curve.distances else ":",
    )


def _add_legend(figure: Figure, curves: Sequence[Curve], labels: Sequence[str]) -> None:
    handles = [
        Line2D([], [], color=color(place), marker=marker(place), label=label) for place, label in enumerate(labels)
    ]
    trusted = " and ".join(filter(sees_whole, dict.fromkeys(curve.threat_model for curve in curves)))
    meanings = [
        _WHAT_LINES_MEAN + (f"; trust the {trusted} column." if trusted else _NOT_TO_TRUST)
        if any(curve.distances for curve in curves)
        else "",
        _WHAT_MARKS_MEAN if any(curve.points for curve in curves) else "",
        _WHAT_BANDS_MEAN,
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(4, len(labels)),
        title="\n".join(meaning for meaning in meanings if meaning),
        title_fontsize=8,
    )
