"""Commands ``dkd-bench reproduce`` and ``dkd-bench publish``; what is slow to import waits until one is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dkd_bench.cli.asking import asking
from dkd_bench.cli.console import note, report_error, reported_progress, show
from dkd_bench.cli.options import OutputFormat
from dkd_bench.errors import ExitCode
from dkd_paper.request import StudyRequest

Target = Annotated[str, typer.Argument(metavar="table2|table3|table4|figure5|baselines", help="What to reproduce.")]


@asking(StudyRequest)
def reproduce(request: StudyRequest, target: Target, output_format: OutputFormat = "markdown") -> None:
    """Measure a table or figure of the paper, with the authors' numbers and claims beside ours.

    baselines measures MagNet, PixelDefend, Defense-GAN, PGD training and TRADES instead, attacked as their authors did
    and by what is known to break them.

    Runs that were made before are found again; interrupted, the same command goes on from where it was.
    """
    with reported_progress() as progress:
        from dkd_paper.report import save_reproduction
        from dkd_paper.targets import reproduce as make

        made = make(target, request, progress)
    files = save_reproduction(made, request.folder)
    show(files[output_format].read_text())
    note(f"The reproduction is in {request.folder}.")


def publish(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folders of records: runs and reproductions.")],
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a page is stale.")] = False,
) -> int:
    """Write FOLDER/LEADERBOARD.md and the page of each folder in it again, from their records alone."""
    with reported_progress():
        from dkd_paper.pages import publish as write_pages
        from dkd_paper.pages import stale_pages

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
