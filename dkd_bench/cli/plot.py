"""``dkd-bench plot``: draw the pictures of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dkd_bench.cli.console import reported_progress, show
from dkd_bench.cli.options import DataRoot, Device

Runs = Annotated[list[Path], typer.Argument(metavar="RUN ...", help="Folders of runs, or their results.json.")]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where they go; else RUN/plots, linked in leaderboard.md.")
]
Format = Annotated[Literal["png", "svg"], typer.Option("--format", help="Of the pictures.")]


def plot(
    runs: Runs, out: Out = None, picture_format: Format = "png", device: Device = "auto", data_root: DataRoot = None
) -> None:
    """Draw runs: accuracy against the norm, transfer between members, examples, latents; print the files written.

    The curves show all runs together. All but them need the weights, and evidence that the run or the cache kept.
    """
    with reported_progress() as progress:
        from dkd_bench.plots import draw

        written = draw(runs, out=out, format=picture_format, device=device, data_root=data_root, progress=progress)
    for path in written:
        show(str(path))
