"""``dkd-bench verify``: re-score the evidence of a run, or of a stranger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dkd_bench.cli.console import note, report_error, reported_progress, show
from dkd_bench.cli.options import DataRoot, Device, OutputFormat, as_option
from dkd_bench.errors import ConfigError, ExitCode

MOST_SHOWN = 20
"""Number of findings that are listed, at most; ``--format json`` has all."""


Run = Annotated[Path | None, typer.Argument(metavar="RUN", help="The folder of a run.")]
Claim = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Instead of a run: a JSON with a claim about a file of adversarial images."),
]
OfClaim = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="With --claim: the defence, instead of the one it names; path/to/file.py:Class is run."
    ),
]


def verify(
    run: Run = None,
    claim: Claim = None,
    defense: OfClaim = None,
    device: Device = "auto",
    data_root: DataRoot = None,
    output_format: OutputFormat = "markdown",
) -> int:
    """Check a run's evidence against its record: digests, budget, box, order, and every image's outcome.

    With --claim, check a stranger's images instead, and measure what they are claimed to do. Code that a claim names
    is not run, unless you name it with --defense.
    """
    _check_words(run, claim, defense)
    with reported_progress() as progress:
        from dkd_bench.verify import AuditReport, Report, audit, check_claim, keep_verification, render_report

        where: dict[str, Any] = {"device": device, "data_root": data_root, "progress": progress}
        report: Report = audit(run, **where) if run else check_claim(claim or Path(), **where, defense=defense)
    _report_findings(report.findings)
    show(render_report(report, output_format))
    if run and isinstance(report, AuditReport):
        note(keep_verification(report, run).spelled(as_option))
    return ExitCode.CHECK_FAILED if report.findings else ExitCode.DONE


def _check_words(run: Path | None, claim: Path | None, defense: str | None) -> None:
    if (run is None) == (claim is None):
        raise ConfigError(f"verify takes RUN or --claim FILE, got {'neither' if run is None else 'both'}; give one")
    if defense is not None and claim is None:
        raise ConfigError("--defense goes with --claim FILE; the defences of RUN are in its record")


def _report_findings(findings: Sequence[str]) -> None:
    for finding in findings[:MOST_SHOWN]:
        report_error(finding)
    if len(findings) > MOST_SHOWN:
        note(f"and {len(findings) - MOST_SHOWN} more findings; --format json has all of them")
