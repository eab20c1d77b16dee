"""``dkd-bench check``: holds a run against a reference, to see whether a defence became weaker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dkd_bench.cli.console import report_error, reported_progress, show
from dkd_bench.cli.options import DataRoot, Device
from dkd_bench.errors import ExitCode


def check(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or its results.json.")],
    against: Annotated[Path, typer.Option(metavar="FILE", help="A reference, as 'dkd-bench reference' writes it.")],
    alpha: Annotated[
        float, typer.Option(metavar="P", help="How likely a false alarm may be, over all cells together.")
    ] = 0.05,
    tolerance: Annotated[
        float, typer.Option(metavar="T", help="A drop of accuracy, a fraction, that is no regression.")
    ] = 0.02,
    output_format: Annotated[
        Literal["text", "json", "junit", "markdown"], typer.Option("--format", help="How the result is printed.")
    ] = "text",
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML there too.")] = None,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Add Markdown to this file too, such as $GITHUB_STEP_SUMMARY.")
    ] = None,
    evidence: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Where old evidence is, to replay where the attack changed. Repeats."),
    ] = None,
    strict_environment: Annotated[
        bool,
        typer.Option(
            "--strict-environment", help="Compare nothing that another torch, numpy, processor or device computed."
        ),
    ] = False,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> int:
    """Compare a run with a reference, cell by cell on the same images: 1 if it regressed, 3 if not all was compared."""
    with reported_progress() as progress:
        from dkd_bench.check import CheckRequest, check_run, render_check, save_check

        request = CheckRequest(
            against=against,
            run=run,
            alpha=alpha,
            tolerance=tolerance,
            strict_environment=strict_environment,
            evidence=tuple(evidence or ()),
            device=device,
            data_root=data_root,
        )
        report = check_run(request, progress)
    show(render_check(report, output_format))
    problems = save_check(report, junit=junit, summary=summary)
    for problem in problems:
        report_error(problem)
    return ExitCode.INCOMPLETE if problems and not report.regressed else report.exit_code
