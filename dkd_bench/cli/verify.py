"""``dkd-bench verify``: re-score the evidence of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dkd_bench.cli.console import report_error, reported_progress, show
from dkd_bench.cli.options import DataRoot, Device
from dkd_bench.errors import ExitCode


def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    device: Device = "auto",
    data_root: DataRoot = None,
) -> int:
    """Check a run's evidence against its record: digests, budget, box, order, and every image's outcome."""
    from dkd_bench.audit import audit

    with reported_progress() as progress:
        report = audit(run, device=device, data_root=data_root, progress=progress)
    for finding in report.findings:
        report_error(finding)
    show(report.summary)
    return ExitCode.CHECK_FAILED if report.findings else ExitCode.DONE
