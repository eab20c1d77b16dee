"""``dkd-bench sweep``: one defence at several values of a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dkd_bench.budget import Norm
from dkd_bench.cli.console import note, reported_progress, show
from dkd_bench.cli.options import (
    DataRoot,
    DatasetName,
    Defense,
    Device,
    NExamples,
    OutputFormat,
    PictureFormat,
    RecipeName,
    Seed,
    Settings,
    ThreatModels,
)
from dkd_bench.errors import ConfigError
from dkd_bench.steps.request import RunRequest


def sweep(
    defense: Defense,
    vary: Annotated[str, typer.Option(metavar="NAME=V,V,...", help="The setting and its values, as zeta=0,0.5,0.9.")],
    threat_model: ThreatModels,
    setting: Settings,
    attack: Annotated[str, typer.Option(metavar="NAME", help="The attack that accuracy is measured under.")] = "pgd",
    level: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A defence that stands beside it as it is. Repeats.")
    ] = None,
    norm: Annotated[Norm, typer.Option(help="The norm of the budget.")] = "linf",
    eps: Annotated[float | None, typer.Option(metavar="E", help="The budget; else the dataset's own.")] = None,
    dataset: DatasetName = "digits",
    n_examples: NExamples = None,
    seed: Seed = 0,
    recipe: RecipeName = "fast",
    device: Device = "auto",
    data_root: DataRoot = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The sweep's folder; else runs/sweep-<name>.")] = None,
    figure: PictureFormat = "png",
    output_format: OutputFormat = "markdown",
) -> None:
    """Measure a defence at each value of a setting: LSS, clean accuracy, accuracy under one attack; draw Figure 5.

    Interrupted, the same command goes on from where it was.
    """
    name, equals, values = vary.partition("=")
    if not equals:
        raise ConfigError(f"--vary takes NAME=VALUE,VALUE,..., such as zeta=0,0.5,0.9; got {vary!r}")
    from dkd_bench.plots import sweep_picture
    from dkd_bench.sweep import SweepRequest, carry_out, save_sweep

    request = SweepRequest(
        run=RunRequest(
            defenses=(defense,),
            attacks=(attack,),
            threat_models=tuple(threat_model),
            dataset=dataset,
            norm=norm,
            eps=() if eps is None else (eps,),
            n_examples=n_examples,
            seed=seed,
            recipe=recipe,
            settings=tuple(setting),
            device=device,
            data_root=data_root,
            out=out,
        ),
        setting=name,
        values=tuple(values.split(",")),
        levels=tuple(level or ()),
    )
    with reported_progress() as progress:
        measured = carry_out(request, progress)
    picture = sweep_picture(measured, figure)
    files = save_sweep(measured, request.folder, picture=picture, picture_format=figure)
    show(files[output_format].read_text())
    note(f"The sweep is in {request.folder}, its picture in {files['picture']}.")
