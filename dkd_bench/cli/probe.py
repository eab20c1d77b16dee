"""``dkd-bench probe``: look for every flag that one attack can raise on a defence."""

from __future__ import annotations

from dkd_bench.cli.asking import asking
from dkd_bench.cli.console import reported_progress, show
from dkd_bench.cli.options import ONE_DEFENSE, OutputFormat, Weights, ZooRoot, with_files
from dkd_bench.errors import ExitCode
from dkd_bench.steps.request import RunRequest
from dkd_bench.steps.words import Word
from dkd_bench.threats import STANDARD, sees_whole

_INSTEAD = {
    "defenses": ONE_DEFENSE,
    "attacks": Word(
        option="attack",
        metavar="NAME",
        help="The attack that is challenged, and must find planted examples.",
        once=True,
        default="pgd",
    ),
    "eps": Word(metavar="E", help="The budget, in [0, 1] pixel units.", once=True, shown_default="the dataset's own"),
    "norm": Word(help="The norm of the budget: linf or l2."),
    "n_examples": Word(metavar="N", help="Test images for the binarisation test.", default=64),
}


@asking(
    RunRequest,
    first=("defenses", "settings", "attacks"),
    without=("eot_draws", "batch_size", "out", "evidence"),
    instead=_INSTEAD,
    fixed={"threat_models": tuple(filter(sees_whole, STANDARD))},
)
def probe(
    request: RunRequest, weights: Weights = None, zoo_root: ZooRoot = None, output_format: OutputFormat = "markdown"
) -> int:
    """Train (or load) a defence and look for what would make its numbers suspicious; exit status 1 if it is found.

    Beside what every run looks for there is the binarisation test: does the attack find examples that are known to
    exist? They are put there by a read-out trained on the defence's own features (Zimmermann et al. 2022).
    """
    asked = with_files(request, weights=weights, zoo_root=zoo_root)
    with reported_progress() as progress:
        from dkd_bench.probe.report import probe_defense, render_probe

        report = probe_defense(asked, progress=progress)
    show(render_probe(report, output_format))
    return ExitCode.CHECK_FAILED if report.flags else ExitCode.DONE
