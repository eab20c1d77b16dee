"""``dkd-bench sweep``: measure one defence at several values of a setting."""

from __future__ import annotations

from typing import Annotated

import typer

from dkd_bench.cli.asking import asking
from dkd_bench.cli.console import note, reported_progress, show
from dkd_bench.cli.options import ONE_DEFENSE, OutputFormat, PictureFormat
from dkd_bench.errors import ConfigError
from dkd_bench.steps.request import RunRequest
from dkd_bench.steps.words import Word

Vary = Annotated[str, typer.Option(metavar="NAME=V,V,...", help="The setting and its values, as zeta=0,0.5,0.9.")]
Level = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A defence that stands beside it as it is. Repeats.")
]
_INSTEAD = {
    "defenses": ONE_DEFENSE,
    "attacks": Word(
        option="attack", metavar="NAME", help="The attack that accuracy is measured under.", once=True, default="pgd"
    ),
    "eps": Word(metavar="E", help="The budget; else the dataset's own.", once=True),
    "norm": Word(help="The norm of the budget."),
    "out": Word(metavar="DIR", help="The sweep's folder; else runs/sweep-<name>."),
}


@asking(
    RunRequest,
    first=("defenses", "threat_models", "settings", "attacks"),
    without=("training_seed", "eot_draws", "batch_size", "evidence"),
    instead=_INSTEAD,
)
def sweep(
    request: RunRequest,
    vary: Vary,
    level: Level = None,
    figure: PictureFormat = "png",
    output_format: OutputFormat = "markdown",
) -> None:
    """Measure a defence at each value of a setting: LSS, clean accuracy, accuracy under one attack; draw Figure 5.

    Interrupted, the same command goes on from where it was.
    """
    name, equals, values = vary.partition("=")
    if not equals:
        raise ConfigError(f"--vary takes NAME=VALUE,VALUE,..., such as zeta=0,0.5,0.9; got {vary!r}")

    with reported_progress() as progress:
        from dkd_bench.plots import sweep_picture
        from dkd_bench.sweep import SweepRequest, carry_out, save_sweep

        asked = SweepRequest(run=request, setting=name, values=tuple(values.split(",")), levels=tuple(level or ()))
        measured = carry_out(asked, progress)
    picture = sweep_picture(measured, figure)
    files = save_sweep(measured, asked.folder, picture=picture, picture_format=figure)
    show(files[output_format].read_text())
    note(f"The sweep is in {asked.folder}, its picture in {files['picture']}.")
