"""``dkd-bench publish``: pages out of published records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dkd_bench.cli.console import note, report_error, reported_progress, show
from dkd_bench.errors import ExitCode


def publish(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folders of records: runs and reproductions.")],
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a page is stale.")] = False,
) -> int:
    """Write FOLDER/LEADERBOARD.md and the page of each folder in it again, from their records alone."""
    with reported_progress():
        from dkd_bench.published import publish as write_pages
        from dkd_bench.published import stale_pages

    if not check:
        for path in write_pages(folder):
            show(str(path))
        return ExitCode.DONE
    stale = stale_pages(folder)
    for path in stale:
        report_error(f"{path} is not what its records give; write it again with 'dkd-bench publish {folder}'")
    if not stale:
        note(f"Every page in {folder} is what its records give.")
    return ExitCode.CHECK_FAILED if stale else ExitCode.DONE
