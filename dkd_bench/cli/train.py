"""``dkd-bench train``: train defences and keep their weights."""

from __future__ import annotations

from dkd_bench.cli.asking import asking
from dkd_bench.cli.console import report_error, reported_progress, show
from dkd_bench.cli.options import Weights, ZooRoot, with_files
from dkd_bench.errors import ExitCode
from dkd_bench.steps.request import TrainRequest


@asking(TrainRequest, first=("defenses", "settings"), without=("training_seed",))
def train(request: TrainRequest, weights: Weights = None, zoo_root: ZooRoot = None) -> int:
    """Train (or load) defences, and print their accuracy on the test set."""
    asked = with_files(request, weights=weights, zoo_root=zoo_root)
    with reported_progress() as progress:
        from dkd_bench.steps.resolve import resolve
        from dkd_bench.steps.train import train as train_resolved

        trained = train_resolved(resolve(asked), progress)
    for name, each in trained.defenses.items():
        accuracies = ", ".join(f"{rule} {value:.4f}" for rule, value in each.clean_accuracy.items())
        show(f"{name}: clean accuracy {accuracies} on {each.n_clean} images; weights {each.key}")
    for reason in trained.failures.values():
        report_error(reason)
    return ExitCode.INCOMPLETE if trained.failures else ExitCode.DONE
