"""``dkd-bench lss``: how far apart the members of ensembles are in latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dkd_bench.cli.asking import asking
from dkd_bench.cli.console import report_error, reported_progress, show
from dkd_bench.cli.options import OutputFormat, as_option
from dkd_bench.errors import ConfigError, ExitCode
from dkd_bench.steps.request import TrainRequest

if TYPE_CHECKING:
    from dkd_bench.separation.records import SeparationReport
    from dkd_bench.steps.train import Subjects

Layer = Annotated[str, typer.Option(metavar="NAME", help="The layer of every member to take latents from.")]
NExamples = Annotated[int | None, typer.Option(metavar="N", help="Test images to take latents of; else all of them.")]
NullDraws = Annotated[int, typer.Option(metavar="N", help="Permutations of the labels to compare with; 0 for none.")]


@asking(TrainRequest, first=("defenses", "settings", "dataset"), without=("training_seed",))
def lss(
    request: TrainRequest,
    layer: Layer = "latent",
    n_examples: NExamples = None,
    null_draws: NullDraws = 20,
    output_format: OutputFormat = "markdown",
) -> int:
    """Train (or load) ensembles, and print their latent space separation (LSS) with a certificate and a null."""
    if null_draws < 0:
        raise ConfigError(f"--null-draws must be at least 0, got {null_draws}")

    with reported_progress() as progress:
        from dkd_bench.leaderboard import render_separations
        from dkd_bench.steps.resolve import resolve
        from dkd_bench.steps.train import train

        trained = train(resolve(request), progress)
        reports, reasons = _measured(
            trained, layer=layer, n_examples=n_examples, null_draws=null_draws, seed=request.seed
        )
    if reports:
        show(render_separations(reports, output_format))
    for reason in (*reasons, *trained.failures.values()):
        report_error(reason)
    return ExitCode.INCOMPLETE if trained.failures else ExitCode.USAGE if reasons else ExitCode.DONE


def _measured(trained: Subjects, **what: Any) -> tuple[list[SeparationReport], list[str]]:
    """Return the separation of each defence, and why others have none."""
    from dkd_bench.separation.latents import measured_separation

    reports, reasons = [], []
    for each in trained.defenses.values():
        try:
            reports.append(measured_separation(each, trained.dataset, trained.dataset_digest, **what))
        except ConfigError as error:
            reasons.append(error.sentence.spelled(as_option))
    return reports, reasons
