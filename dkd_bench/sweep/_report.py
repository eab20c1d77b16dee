"""Report of a sweep: a table and JSON, beside its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dkd_bench.leaderboard import margins, one_line, percent_interval, table
from dkd_bench.records import Interval
from dkd_bench.store.files import write_file, write_json
from dkd_bench.sweep._record import Sweep, SweepPoint


def save_sweep(sweep: Sweep, folder: Path, *, picture: bytes, picture_format: str) -> dict[str, Path]:
    """Write the sweep as Markdown, JSON and picture, and return the files by those names.

    Args:
        sweep: what was measured.
        folder: where the files go.
        picture: as ``sweep_picture`` of ``dkd_bench.plots`` draws it.
        picture_format: its suffix, ``png`` or ``svg``.

    Raises:
        StoreError: if a file cannot be written.
    """
    files = {
        "markdown": folder / "sweep.md",
        "json": folder / "sweep.json",
        "picture": folder / f"sweep.{picture_format}",
    }
    write_file(files["picture"], picture)
    write_json(files["json"], sweep.model_dump(mode="json"))
    write_file(files["markdown"], render_sweep(sweep) + f"\n![{sweep.title}]({files['picture'].name})\n")
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
        "\n\n".join((f"# {sweep.title}", table(header, rows, left=2), "\n".join(f"- {line}" for line in legend))) + "\n"
    )


def _line(point: SweepPoint, threat_models: Sequence[str]) -> list[str]:
    robust: list[Interval | None] = [point.robust.get(name) for name in threat_models]
    return [
        point.label,
        point.decision,
        *margins(point.separation),
        percent_interval(point.clean),
        *(percent_interval(each) for each in robust),
    ]


def _ground(sweep: Sweep) -> str:
    return (
        f"{sweep.dataset}, {sweep.under_attack}, n = {sweep.n}, seed {sweep.seed}, recipe {sweep.points[0].run.recipe}"
    )
