"""``dkd-bench reproduce``: the paper's tables and figures, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dkd_bench.cli.console import note, reported_progress, show
from dkd_bench.cli.options import DataRoot, Device, OutputFormat, RecipeName


def reproduce(
    target: Annotated[str, typer.Argument(metavar="table2|table3|table4|figure5|baselines", help="What to reproduce.")],
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="mnist, cifar10, digits, or any other; as for 'run'.")
    ] = "mnist",
    seed: Annotated[
        list[int] | None, typer.Option(metavar="S", help="Of training, images and attacks; repeats.  [default: 0]")
    ] = None,
    n_examples: Annotated[
        int | None, typer.Option(metavar="N", help="Caps the images of every run; else the whole test set.")
    ] = None,
    n_slow: Annotated[
        int | None,
        typer.Option(metavar="N", help="Caps the images of table4's minimum-norm attacks and of figure5; else 1000."),
    ] = None,
    recipe: RecipeName = "fast",
    device: Device = "auto",
    data_root: DataRoot = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Runs and reports; else runs/reproduce-<dataset>.")
    ] = None,
    existing: Annotated[
        bool, typer.Option("--existing", help="Only read runs that are there; say which command makes the others.")
    ] = False,
    output_format: OutputFormat = "markdown",
) -> None:
    """Measure a table or figure of the paper, with the authors' numbers and claims beside ours.

    baselines measures MagNet, PixelDefend, Defense-GAN, PGD training and TRADES instead, attacked as their authors did
    and by what is known to break them.

    Runs that were made before are found again; interrupted, the same command goes on from where it was.
    """
    with reported_progress() as progress:
        from dkd_bench.reproduction import StudyRequest, save_reproduction
        from dkd_bench.reproduction import reproduce as make

        request = StudyRequest(
            dataset=dataset,
            seeds=tuple(seed or (0,)),
            recipe=recipe,
            n_examples=n_examples,
            **({} if n_slow is None else {"n_slow": n_slow}),
            device=device,
            data_root=data_root,
            out=out,
            existing=existing,
        )
        made = make(target, request, progress)
    files = save_reproduction(made, request.folder)
    show(files[output_format].read_text())
    note(f"The reproduction is in {request.folder}.")
