"""``dkd-bench lss``: how far apart the members of ensembles are in latent space."""

from __future__ import annotations

from typing import Annotated

import typer

from dkd_bench.cli.console import report_error, reported_progress, show
from dkd_bench.cli.options import DataRoot, DatasetName, Defenses, Device, OutputFormat, RecipeName, Seed, Settings
from dkd_bench.errors import ConfigError, ExitCode
from dkd_bench.steps.request import TrainRequest


def lss(
    defense: Defenses,
    setting: Settings,
    dataset: DatasetName = "digits",
    layer: Annotated[str, typer.Option(metavar="NAME", help="The layer of every member to take latents from.")] = (
        "latent"
    ),
    n_examples: Annotated[
        int | None, typer.Option(metavar="N", help="Test images to take latents of; else all of them.")
    ] = None,
    null_draws: Annotated[
        int, typer.Option(metavar="N", help="Permutations of the labels to compare with; 0 for none.")
    ] = 20,
    recipe: RecipeName = "fast",
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
    output_format: OutputFormat = "markdown",
) -> int:
    """Train (or load) ensembles, and print their latent space separation (LSS) with a certificate and a null."""
    request = TrainRequest(
        defenses=tuple(defense),
        dataset=dataset,
        recipe=recipe,
        seed=seed,
        settings=tuple(setting),
        device=device,
        data_root=data_root,
    )
    if null_draws < 0:
        raise ConfigError(f"--null-draws must be at least 0, got {null_draws}")
    reports, reasons = [], []
    with reported_progress() as progress:
        from dkd_bench.leaderboard import render_separations
        from dkd_bench.separation.latents import measured_separation
        from dkd_bench.steps.resolve import resolve
        from dkd_bench.steps.train import train

        trained = train(resolve(request), progress)
        for each in trained.defenses.values():
            try:
                reports.append(
                    measured_separation(
                        each,
                        trained.dataset,
                        trained.dataset_digest,
                        layer=layer,
                        n_examples=n_examples,
                        null_draws=null_draws,
                        seed=seed,
                    )
                )
            except ConfigError as error:
                reasons.append(str(error))
    if reports:
        show(render_separations(reports, output_format))
    for reason in (*reasons, *trained.failures.values()):
        report_error(reason)
    if trained.failures:
        return ExitCode.INCOMPLETE
    return ExitCode.USAGE if reasons else ExitCode.DONE
