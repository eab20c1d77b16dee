"""``dkd-bench reference``: write what later runs are checked against."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dkd_bench.cli.console import reported_progress, show


def reference(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN ...", help="A run's folder; or several, made with other --training-seed."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write, small enough to commit.")],
) -> None:
    """Write the reference that 'dkd-bench check' holds later runs against: outcomes and digests, no images."""
    with reported_progress():
        from dkd_bench.check import make_reference

    show(make_reference(runs, out))
