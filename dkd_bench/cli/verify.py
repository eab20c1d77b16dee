"""``dkd-bench verify``: re-score the evidence of a run, or of a stranger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dkd_bench.cli.console import note, report_error, reported_progress, show
from dkd_bench.cli.options import DataRoot, Device, OutputFormat
from dkd_bench.errors import ConfigError, ExitCode

MOST_SHOWN = 20
"""Findings told one by one; ``--format json`` has all."""


def verify(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="The folder of a run.")] = None,
    claim: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead of a run: a JSON with a claim about a file of adversarial images."),
    ] = None,
    defense: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --claim: the defence, instead of the one it names; path/to/file.py:Class is run.",
        ),
    ] = None,
    device: Device = "auto",
    data_root: DataRoot = None,
    output_format: OutputFormat = "markdown",
) -> int:
    """Check a run's evidence against its record: digests, budget, box, order, and every image's outcome.

    With --claim, check a stranger's images instead, and measure what they are claimed to do. Code that a claim names
    is not run, unless you name it with --defense.
    """
    if (run is None) == (claim is None):
        raise ConfigError(f"verify takes RUN or --claim FILE, got {'neither' if run is None else 'both'}; give one")
    if defense is not None and claim is None:
        raise ConfigError("--defense goes with --claim FILE; the defences of RUN are in its record")
    with reported_progress() as progress:
        from dkd_bench.verify import AuditReport, Report, audit, check_claim, keep_verification, render_report

        report: Report = (
            audit(run, device=device, data_root=data_root, progress=progress)
            if run is not None
            else check_claim(claim or Path(), device=device, data_root=data_root, progress=progress, defense=defense)
        )
    for finding in report.findings[:MOST_SHOWN]:
        report_error(finding)
    if len(report.findings) > MOST_SHOWN:
        note(f"and {len(report.findings) - MOST_SHOWN} more findings; --format json has all of them")
    show(render_report(report, output_format))
    if run is not None and isinstance(report, AuditReport):
        note(keep_verification(report, run))
    return ExitCode.CHECK_FAILED if report.findings else ExitCode.DONE
