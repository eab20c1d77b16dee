"""``dkd-bench leaderboard``: rank runs that were made before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dkd_bench.cli.console import show
from dkd_bench.cli.options import OutputFormat


def leaderboard(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN ...", help="Folders of runs, or their results.json.")],
    output_format: OutputFormat = "markdown",
) -> None:
    """Print the leaderboard of one or several runs; rows of unlike attacks, images or budgets rank apart."""
    from dkd_bench.leaderboard import rank_runs, render
    from dkd_bench.rundir import load_run

    board = rank_runs([(str(path), load_run(path)) for path in runs])
    show(render(board, output_format))
