"""``dkd-bench probe``: look for every flag that one attack can raise on a defence."""

from __future__ import annotations

from typing import Annotated

import typer

from dkd_bench.budget import Norm
from dkd_bench.cli.console import reported_progress, show
from dkd_bench.cli.options import (
    DataRoot,
    DatasetName,
    Defense,
    Device,
    OutputFormat,
    RecipeName,
    Seed,
    Settings,
    TrainingSeed,
    Weights,
    ZooRoot,
    with_files,
)
from dkd_bench.errors import ExitCode
from dkd_bench.steps.request import RunRequest
from dkd_bench.threats import STANDARD, sees_whole


def probe(
    defense: Defense,
    setting: Settings,
    attack: Annotated[
        str, typer.Option(metavar="NAME", help="The attack that is challenged, and must find planted examples.")
    ] = "pgd",
    dataset: DatasetName = "digits",
    eps: Annotated[
        float | None,
        typer.Option(metavar="E", help="The budget, in [0, 1] pixel units.", show_default="the dataset's own"),
    ] = None,
    norm: Annotated[Norm, typer.Option(help="The norm of the budget: linf or l2.")] = "linf",
    n_examples: Annotated[int, typer.Option(metavar="N", help="Test images for the binarisation test.")] = 64,
    seed: Seed = 0,
    training_seed: TrainingSeed = None,
    recipe: RecipeName = "fast",
    device: Device = "auto",
    data_root: DataRoot = None,
    weights: Weights = None,
    zoo_root: ZooRoot = None,
    output_format: OutputFormat = "markdown",
) -> int:
    """Train (or load) a defence and look for what would make its numbers suspicious; exit status 1 if it is found.

    Beside what every run looks for there is the binarisation test: does the attack find examples that are known to
    exist? They are put there by a read-out trained on the defence's own features (Zimmermann et al. 2022).
    """
    request = RunRequest(
        defenses=(defense,),
        attacks=(attack,),
        threat_models=tuple(filter(sees_whole, STANDARD)),
        dataset=dataset,
        eps=() if eps is None else (eps,),
        norm=norm,
        n_examples=n_examples,
        seed=seed,
        training_seed=training_seed,
        recipe=recipe,
        settings=with_files(setting, weights=weights, zoo_root=zoo_root),
        device=device,
        data_root=data_root,
    )
    with reported_progress() as progress:
        from dkd_bench.probe.report import probe_defense, render_probe

        report = probe_defense(request, progress=progress)
    show(render_probe(report, output_format))
    return ExitCode.CHECK_FAILED if report.flags else ExitCode.DONE
