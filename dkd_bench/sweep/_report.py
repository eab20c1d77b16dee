"""A sweep as a table, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dkd_bench.leaderboard import margins, one_line, percent_interval, table
from dkd_bench.plots import PictureFormat, SweepFigureData, figure_bytes, sweep_figure
from dkd_bench.records import Interval
from dkd_bench.store.files import write_file, write_json
from dkd_bench.sweep._record import Sweep, SweepPoint

LSS, SCALE_FREE, CLEAN = "LSS (raw margin)", "LSS, scale-free", "clean accuracy"


def save_sweep(sweep: Sweep, folder: Path, *, figure: PictureFormat) -> dict[str, Path]:
    """Write the sweep as Markdown, JSON and picture, and return the files by those names.

    Raises:
        StoreError: if a file cannot be written.
    """
    files = {
        "markdown": folder / "sweep.md",
        "json": folder / "sweep.json",
        "picture": folder / f"sweep.{figure}",
    }
    write_file(files["picture"], sweep_picture(sweep, figure))
    write_json(files["json"], sweep.model_dump(mode="json"))
    write_file(files["markdown"], render_sweep(sweep) + f"\n![{_title(sweep)}]({files['picture'].name})\n")
    return files


def render_sweep(sweep: Sweep) -> str:
    """Return the sweep as a Markdown table with a legend."""
    threat_models = sweep.threat_models
    header = [sweep.setting, "rule", "LSS", "scale-free", "clean", *threat_models]
    rows = [_line(point, threat_models) for point in (*sweep.points, *sweep.levels)]
    refused = sorted(
        {
            f"{point.label}: {one_line(point.separation.reason)}"
            for point in (*sweep.points, *sweep.levels)
            if point.separation is not None and point.separation.reason is not None
        }
    )
    legend = [
        f"{_ground(sweep)}; accuracies in percent with 95 % Wilson intervals, clean on the whole test set.",
        "LSS: the mean hard margin between a member's latents and all others' (Eq. 5, 6); it grows with the scale "
        "of the latents, so compare the scale-free one, in units of their RMS radius, between defences.",
        *refused,
    ]
    return (
        "\n\n".join((f"# {_title(sweep)}", table(header, rows, left=2), "\n".join(f"- {line}" for line in legend)))
        + "\n"
    )


def sweep_picture(sweep: Sweep, format: PictureFormat) -> bytes:
    """Return the sweep as a picture after the paper's Figure 5: LSS, clean accuracy and accuracy under attack."""
    named = {name: f"{name} {sweep.attack}" for name in sweep.threat_models}
    panels = {"LSS": (LSS,), SCALE_FREE: (SCALE_FREE,), CLEAN: (CLEAN,), _under(sweep): tuple(named.values())}
    points = [_measured(point, named) for point in sweep.points]
    data = SweepFigureData(
        setting=sweep.setting,
        values=_axis(sweep.points),
        series={label: tuple(point.get(label) for point in points) for labels in panels.values() for label in labels},
        levels={point.label: _measured(point, named) for point in sweep.levels},
        panels=panels,
        title=_title(sweep),
        note=_note(sweep),
    )
    return figure_bytes(sweep_figure(data), format)


def _measured(point: SweepPoint, named: dict[str, str]) -> dict[str, tuple[float, tuple[float, float] | None]]:
    measured: dict[str, tuple[float, tuple[float, float] | None]] = {CLEAN: (point.clean.value, point.clean.ci95)}
    if point.separation is not None and point.separation.margin is not None:
        measured[LSS] = (point.separation.margin, None)
    if point.separation is not None and point.separation.scaled_margin is not None:
        measured[SCALE_FREE] = (point.separation.scaled_margin, None)
    measured |= {named[name]: (found.value, found.ci95) for name, found in point.robust.items()}
    return measured


def _axis(points: Sequence[SweepPoint]) -> tuple[float, ...]:
    """Return the values as numbers; their positions where they are words."""
    try:
        return tuple(float(point.label) for point in points)
    except ValueError:
        return tuple(float(position) for position in range(len(points)))


def _line(point: SweepPoint, threat_models: Sequence[str]) -> list[str]:
    robust: list[Interval | None] = [point.robust.get(name) for name in threat_models]
    return [
        point.label,
        point.decision,
        *margins(point.separation),
        percent_interval(point.clean),
        *(percent_interval(each) for each in robust),
    ]


def _title(sweep: Sweep) -> str:
    return f"{sweep.defense} over {sweep.setting}, {sweep.dataset}"


def _under(sweep: Sweep) -> str:
    budget = "" if sweep.eps is None else f" {sweep.norm} {sweep.eps:g}"
    return f"accuracy under {sweep.attack}{budget}"


def _ground(sweep: Sweep) -> str:
    return f"{sweep.dataset}, {_under(sweep)}, n = {sweep.n}, seed {sweep.seed}, recipe {sweep.points[0].run.recipe}"


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
