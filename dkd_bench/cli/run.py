"""``dkd-bench run``: attack defences and rank them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dkd_bench.budget import Norm
from dkd_bench.cli.console import note, report_error, reported_progress, show
from dkd_bench.cli.options import (
    Attacks,
    DataRoot,
    DatasetName,
    Defenses,
    Device,
    Epsilons,
    NExamples,
    OutputFormat,
    RecipeName,
    Seed,
    Settings,
    ThreatModels,
    TrainingSeed,
    Weights,
    ZooRoot,
    batch_size,
    with_files,
)
from dkd_bench.errors import ExitCode
from dkd_bench.steps.request import KeepEvidence, RunRequest


def run(
    defense: Defenses,
    attack: Attacks,
    threat_model: ThreatModels,
    eps: Epsilons,
    setting: Settings,
    dataset: DatasetName = "digits",
    norm: Annotated[Norm, typer.Option(help="The norm of the budgets.")] = "linf",
    n_examples: NExamples = None,
    seed: Seed = 0,
    training_seed: TrainingSeed = None,
    recipe: RecipeName = "fast",
    batch_size_: Annotated[
        str, typer.Option("--batch-size", metavar="N|auto", help="Images in one model evaluation; changes no result.")
    ] = "auto",
    device: Device = "auto",
    data_root: DataRoot = None,
    weights: Weights = None,
    zoo_root: ZooRoot = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder; else runs/<name>.")] = None,
    eot_draws: Annotated[
        int,
        typer.Option(
            metavar="N", help="Evaluations averaged in each answer of a randomised target, for attacks (EOT)."
        ),
    ] = 16,
    evidence: Annotated[KeepEvidence, typer.Option(help="Which adversarial images the run keeps.")] = "all",
    output_format: OutputFormat = "markdown",
) -> int:
    """Train (or load) defences, attack them, and print the leaderboard.

    What was computed before is found again: weights, adversarial images, whole runs.
    """
    request = RunRequest(
        defenses=tuple(defense),
        attacks=tuple(attack),
        threat_models=tuple(threat_model),
        dataset=dataset,
        eps=tuple(eps),
        norm=norm,
        n_examples=n_examples,
        seed=seed,
        training_seed=training_seed,
        recipe=recipe,
        settings=with_files(setting, weights=weights, zoo_root=zoo_root),
        batch_size=batch_size(batch_size_),
        device=device,
        data_root=data_root,
        out=out,
        eot_draws=eot_draws,
        evidence=evidence,
    )
    with reported_progress() as progress:
        from dkd_bench.leaderboard import rank_runs, render
        from dkd_bench.pipeline import run as run_request

        record, folder = run_request(request, progress=progress)
    show(render(rank_runs([(folder.name, record)]), output_format))
    note(f"The run is in {folder}; 'dkd-bench verify {folder}' re-scores its evidence.")
    if not record.complete:
        report_error("the run is incomplete: rows marked error or invalid say why, and do not rank")
        return ExitCode.INCOMPLETE
    return ExitCode.DONE
