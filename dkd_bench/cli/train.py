"""``dkd-bench train``: train defences and keep their weights."""

from __future__ import annotations

from dkd_bench.cli.console import report_error, reported_progress, show
from dkd_bench.cli.options import (
    DataRoot,
    DatasetName,
    Defenses,
    Device,
    RecipeName,
    Seed,
    Settings,
    Weights,
    ZooRoot,
    with_files,
)
from dkd_bench.errors import ExitCode
from dkd_bench.steps.request import TrainRequest


def train(
    defense: Defenses,
    setting: Settings,
    dataset: DatasetName = "digits",
    recipe: RecipeName = "fast",
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
    weights: Weights = None,
    zoo_root: ZooRoot = None,
) -> int:
    """Train (or load) defences, and print their accuracy on the test set."""
    request = TrainRequest(
        defenses=tuple(defense),
        dataset=dataset,
        recipe=recipe,
        seed=seed,
        settings=with_files(setting, weights=weights, zoo_root=zoo_root),
        device=device,
        data_root=data_root,
    )
    with reported_progress() as progress:
        from dkd_bench.steps.resolve import resolve
        from dkd_bench.steps.train import train as train_resolved

        trained = train_resolved(resolve(request), progress)
    for name, each in trained.defenses.items():
        accuracies = ", ".join(f"{rule} {value:.4f}" for rule, value in each.clean_accuracy.items())
        show(f"{name}: clean accuracy {accuracies} on {each.n_clean} images; weights {each.key}")
    for reason in trained.failures.values():
        report_error(reason)
    return ExitCode.INCOMPLETE if trained.failures else ExitCode.DONE
