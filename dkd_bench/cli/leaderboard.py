"""``dkd-bench leaderboard``: rank runs that were made before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from dkd_bench.cli.console import show
from dkd_bench.errors import ConfigError

BoardFormat = Literal["markdown", "json", "robustbench"]

Runs = Annotated[list[Path], typer.Argument(metavar="RUN ...", help="Folders of runs, or their results.json.")]
Fields = Annotated[
    list[str],
    typer.Option(
        "--field",
        metavar="NAME=VALUE",
        default_factory=list,
        show_default=False,
        help="For --format robustbench: what a run does not know, such as venue='ICML 2020'. Repeats.",
    ),
]
Published = Annotated[
    list[Path],
    typer.Option(
        "--robustbench",
        metavar="PATH",
        default_factory=list,
        show_default=False,
        help="A JSON file of RobustBench, or a folder of them, to show below the board. Repeats.",
    ),
]
RowName = Annotated[
    str | None, typer.Option("--row", metavar="DEFENCE/RULE", help="For --format robustbench: which row, of several.")
]
StrictEnvironment = Annotated[
    bool,
    typer.Option("--strict-environment", help="Rank runs of another torch, numpy, processor, device or threads apart."),
]
OutputFormat = Annotated[
    BoardFormat,
    typer.Option("--format", help="How the result is printed; robustbench is one row as RobustBench's JSON."),
]


def leaderboard(
    runs: Runs,
    field: Fields,
    published: Published,
    row: RowName = None,
    strict_environment: StrictEnvironment = False,
    output_format: OutputFormat = "markdown",
) -> None:
    """Print the leaderboard of one or several runs; rows of unlike attacks, images or budgets rank apart."""
    if output_format == "robustbench":
        show(_robustbench(runs, published, row=row, fields=field))
        return
    if row is not None or field:
        raise ConfigError(f"--row and --field belong to --format robustbench, got --format {output_format}")
    from dkd_bench.leaderboard import rank_runs, read_published, render
    from dkd_bench.records.rundir import load_with_doubt

    rows = dict.fromkeys(each for path in published for each in read_published(path))
    loaded = [(str(path), load_with_doubt(path)) for path in runs]
    board = rank_runs(loaded, strict_environment=strict_environment)
    show(render(board.model_copy(update={"published": tuple(rows)}), output_format))


def _robustbench(runs: Sequence[Path], published: Sequence[Path], *, row: str | None, fields: Sequence[str]) -> str:
    from dkd_bench.leaderboard import render_robustbench
    from dkd_bench.records.rundir import load_with_doubt

    if len(runs) > 1 or published:
        got = f"{len(runs)} runs" if len(runs) > 1 else "--robustbench, which adds rows to a board"
        raise ConfigError(f"--format robustbench prints one row of one run, got {got}; name one run")
    return render_robustbench(load_with_doubt(runs[0]), row=row, fields=fields)
