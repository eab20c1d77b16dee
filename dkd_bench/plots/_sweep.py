"""Figure of a sweep (paper, Fig. 5): panels over the values of a setting, other defences as levels.

``gather_sweep`` takes the numbers from a sweep, ``sweep_figure`` draws them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dkd_bench.errors import ConfigError
from dkd_bench.plots._save import PictureFormat, figure_bytes
from dkd_bench.plots._style import color, dashes, marker, styled
from dkd_bench.sweep import Sweep, SweepPoint

Measured = tuple[float, tuple[float, float] | None]
"""A value, and its interval if it has one."""

_SINGLE_SERIES_COLOR = "#333333"
"""Colour of a series that is alone in its panel, and of the levels beside it."""

_PANEL_INCHES, _HEIGHT_INCHES = 2.6, 3.3

_LSS, _SCALE_FREE, _CLEAN = "LSS (raw margin)", "LSS, scale-free", "clean accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFigureData:
    """Measurements at each value of a setting, and of other defences once."""

    setting: str
    values: tuple[float, ...]
    """Values of the setting, in the order of each series."""
    series: Mapping[str, tuple[Measured | None, ...]]
    """Measurements by label of the series, one for each value; ``None`` leaves a gap."""
    levels: Mapping[str, Mapping[str, Measured]] = field(default_factory=dict)
    """Measurements of other defences: the defence's name to label of the series to measurement."""
    panels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Labels of the series in each panel, by the panel's title; empty: each series has its own."""
    title: str = ""
    note: str = ""
    """Explanation of bars and bands, with the number of images: one or two lines below the panels."""

    def __post_init__(self) -> None:
        if not self.values or not self.series:
            raise ConfigError("a sweep needs at least one value of its setting and one series")
        for label, measured in self.series.items():
            if len(measured) != len(self.values):
                raise ConfigError(f"series {label!r} needs {len(self.values)} values, got {len(measured)}")
        shown = {label for labels in self.panels.values() for label in labels}
        if shown and shown != set(self.series):
            raise ConfigError(f"each series needs one panel; these are not matched: {shown ^ set(self.series)}")


def sweep_picture(sweep: Sweep, format: PictureFormat) -> bytes:
    """Return the sweep as a picture after the paper's Figure 5: LSS, clean accuracy and accuracy under attack."""
    return figure_bytes(sweep_figure(gather_sweep(sweep)), format)


def gather_sweep(sweep: Sweep) -> SweepFigureData:
    """Return a sweep as the panels of the paper's Figure 5: LSS, clean accuracy, accuracy under attack."""
    named = {name: f"{name} {sweep.attack}" for name in sweep.threat_models}
    panels = {"LSS": (_LSS,), _SCALE_FREE: (_SCALE_FREE,), _CLEAN: (_CLEAN,), sweep.under_attack: tuple(named.values())}
    points = [_measured(point, named) for point in sweep.points]
    return SweepFigureData(
        setting=sweep.setting,
        values=_axis(sweep.points),
        series={label: tuple(point.get(label) for point in points) for labels in panels.values() for label in labels},
        levels={point.label: _measured(point, named) for point in sweep.levels},
        panels=panels,
        title=sweep.title,
        note=_note(sweep),
    )


def _measured(point: SweepPoint, named: dict[str, str]) -> dict[str, tuple[float, tuple[float, float] | None]]:
    measured: dict[str, tuple[float, tuple[float, float] | None]] = {_CLEAN: (point.clean.value, point.clean.ci95)}
    if point.separation is not None and point.separation.margin is not None:
        measured[_LSS] = (point.separation.margin, None)
    if point.separation is not None and point.separation.scaled_margin is not None:
        measured[_SCALE_FREE] = (point.separation.scaled_margin, None)
    measured |= {named[name]: (found.value, found.ci95) for name, found in point.robust.items()}
    return measured


def _axis(points: Sequence[SweepPoint]) -> tuple[float, ...]:
    """Return the values as numbers; their positions where they are words."""
    try:
        return tuple(float(point.label) for point in points)
    except ValueError:
        return tuple(float(position) for position in range(len(points)))


def _note(sweep: Sweep) -> str:
    axis = _axis(sweep.points)
    words = [f"{position:g} is {point.label}" for position, point in zip(axis, sweep.points, strict=True)]
    named = "" if all(_is_number(point.label) for point in sweep.points) else "; " + ", ".join(words)
    return f"n = {sweep.n} under attack, bars are 95 % Wilson intervals; clean and LSS on the whole test set{named}"


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


@styled
def sweep_figure(data: SweepFigureData) -> Figure:
    """Return a panel for each group of series over the setting's values.

    Intervals of levels are drawn as bands where a panel has one series, and left out where it has several.
    """
    panels = data.panels or {label: (label,) for label in data.series}
    width = max(6.4, _PANEL_INCHES * len(panels))
    figure = Figure(figsize=(width, _HEIGHT_INCHES + (0.3 if data.title else 0)), layout="constrained")
    if data.title:
        figure.suptitle(data.title)
    for panel, (title, labels) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        panel.set_title(title)
        panel.set_xlabel(data.setting)
        for label, (shade, sign) in _looks(labels).items():
            _draw_series(panel, data, label, (shade, sign))
            _draw_levels(panel, data, label, shade if len(labels) > 1 else _SINGLE_SERIES_COLOR, bands=len(labels) == 1)
    _add_legend(figure, data, panels)
    return figure


def _looks(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each series of a panel; one alone needs none that means anything."""
    if len(labels) == 1:
        return {labels[0]: (_SINGLE_SERIES_COLOR, "o")}
    return {label: (color(place), marker(place)) for place, label in enumerate(labels)}


def _draw_series(panel: Axes, data: SweepFigureData, label: str, look: tuple[str, str]) -> None:
    """Draw what was measured, joined up to each gap, with bars where there are intervals."""
    measured = data.series[label]
    shade, sign = look
    values = [nan if each is None else each[0] for each in measured]
    panel.plot(data.values, values, color=shade, marker=sign, label=label)
    barred = [
        (x, each[0], each[1])
        for x, each in zip(data.values, measured, strict=True)
        if each is not None and each[1] is not None
    ]
    if barred:
        below = [value - low for _, value, (low, _) in barred]
        above = [high - value for _, value, (_, high) in barred]
        x, y = [x for x, _, _ in barred], [value for _, value, _ in barred]
        panel.errorbar(x, y, yerr=(below, above), fmt="none", ecolor=shade, elinewidth=1)


def _draw_levels(panel: Axes, data: SweepFigureData, label: str, shade: str, *, bands: bool) -> None:
    """Draw each other defence as a line across."""
    for position, (defense, levels) in enumerate(data.levels.items(), start=1):
        if label not in levels:
            continue
        value, interval = levels[label]
        panel.axhline(value, color=shade, linestyle=dashes(position), linewidth=1.1, label=defense)
        if bands and interval is not None:
            panel.axhspan(*interval, color=shade, alpha=0.07, linewidth=0)


def _add_legend(figure: Figure, data: SweepFigureData, panels: Mapping[str, tuple[str, ...]]) -> None:
    """Explain the colours of panels with several series and the dashes of levels, and put the note above."""
    looks = {label: look for labels in panels.values() if len(labels) > 1 for label, look in _looks(labels).items()}
    handles = [Line2D([], [], color=shade, marker=sign, label=label) for label, (shade, sign) in looks.items()]
    handles += [
        Line2D([], [], color=_SINGLE_SERIES_COLOR, linestyle=dashes(position), linewidth=1.1, label=defense)
        for position, defense in enumerate(data.levels, start=1)
    ]
    if handles or data.note:
        columns = min(8, len(handles)) or 1
        figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, title=data.note or None, title_fontsize=8
        )
