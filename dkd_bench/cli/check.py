"""``dkd-bench check``: holds a run against a reference, to see whether a defence became weaker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dkd_bench.cli.asking import asking
from dkd_bench.cli.console import report_error, reported_progress, show
from dkd_bench.cli.options import as_option
from dkd_bench.errors import ExitCode
from dkd_bench.steps.request import CheckRequest

CheckFormat = Annotated[
    Literal["text", "json", "junit", "markdown"], typer.Option("--format", help="How the result is printed.")
]
Junit = Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML there too.")]
Summary = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Add Markdown to this file too, such as $GITHUB_STEP_SUMMARY.")
]


@asking(CheckRequest)
def check(
    request: CheckRequest, output_format: CheckFormat = "text", junit: Junit = None, summary: Summary = None
) -> int:
    """Compare a run with a reference, cell by cell on the same images: 1 if it regressed, 3 if not all was compared."""
    with reported_progress() as progress:
        from dkd_bench.check import check_run, render_check, save_check

        report = check_run(request, progress)
    show(render_check(report, output_format, as_option))
    problems = save_check(report, junit=junit, summary=summary, spell=as_option)
    for problem in problems:
        report_error(problem.spelled(as_option))
    return ExitCode.INCOMPLETE if problems and not report.regressed else report.exit_code
