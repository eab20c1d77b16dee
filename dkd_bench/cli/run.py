"""``dkd-bench run``: attack defences and rank them."""

from __future__ import annotations

from dkd_bench.cli.asking import asking
from dkd_bench.cli.console import note, report_error, reported_progress, show
from dkd_bench.cli.options import OutputFormat, Weights, ZooRoot, with_files
from dkd_bench.errors import ExitCode
from dkd_bench.steps.request import RunRequest


@asking(RunRequest, first=("defenses", "attacks", "threat_models", "eps", "norm", "settings"))
def run(
    request: RunRequest, weights: Weights = None, zoo_root: ZooRoot = None, output_format: OutputFormat = "markdown"
) -> int:
    """Train (or load) defences, attack them, and print the leaderboard.

    What was computed before is found again: weights, adversarial images, whole runs.
    """
    asked = with_files(request, weights=weights, zoo_root=zoo_root)
    with reported_progress() as progress:
        from dkd_bench.leaderboard import rank_runs, render
        from dkd_bench.pipeline import run as run_request

        record, folder = run_request(asked, progress=progress)
    show(render(rank_runs([(folder.name, record)]), output_format))
    note(f"The run is in {folder}; 'dkd-bench verify {folder}' re-scores its evidence.")
    if not record.complete:
        report_error("the run is incomplete: rows marked error or invalid say why, and do not rank")
        return ExitCode.INCOMPLETE
    return ExitCode.DONE
