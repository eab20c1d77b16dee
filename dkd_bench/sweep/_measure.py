"""From a request to a sweep: one run for each value and each level."""

from __future__ import annotations

from dkd_bench.errors import AttackError, ConfigError
from dkd_bench.leaderboard import rank_runs
from dkd_bench.pipeline import run
from dkd_bench.prepare import check_words
from dkd_bench.progress import Progress
from dkd_bench.records import CellRecord, Interval, RunRecord
from dkd_bench.sweep._record import Sweep, SweepPoint
from dkd_bench.sweep._request import SweepRequest


def carry_out(request: SweepRequest, progress: Progress) -> Sweep:
    """Run the sweep, or what of it was not run before, and return what it measured.

    Raises:
        ConfigError: if a value, a name or a setting is wrong; every value is looked at before the first run.
        AttackError: if a run fails; what was computed is kept, and the same sweep goes on from there.
    """
    asked = [*request.point_runs(), *request.level_runs()]
    for _, each in asked:
        check_words(each)
    task = progress.start(f"sweep over {request.setting}", len(asked))
    points: list[SweepPoint] = []
    cells: list[CellRecord] = []
    for label, each in asked:
        record, folder = run(each, progress=progress)
        if not record.complete:
            reason = next((cell.reason for cell in record.cells if cell.status == "error"), "it is incomplete")
            raise AttackError(f"the run of {label!r} in {folder} failed: {reason}")
        points.append(_point(label, record))
        cells.append(_deployed_cells(record)[0])
        task.advance(note=f"{request.setting if len(points) <= len(request.values) else 'level'} {label}")
    return Sweep(
        defense=request.defense,
        setting=request.setting,
        dataset=cells[0].dataset,
        attack=cells[0].attack,
        norm=cells[0].norm,
        eps=cells[0].eps,
        n=cells[0].n,
        seed=request.run.seed,
        points=tuple(points[: len(request.values)]),
        levels=tuple(points[len(request.values) :]),
    )


def _deployed_cells(record: RunRecord) -> list[CellRecord]:
    """Return the cells, one for each threat model, of the rule that a defence deploys: the last it is judged by.

    Within the budget if there is one.
    """
    scored = [cell for cell in record.cells if cell.status == "ok"]
    if not scored:
        raise ConfigError("the sweep's attack does not apply to its defence; choose another with --attack")
    deployed = [cell for cell in scored if cell.decision == scored[-1].decision]
    budgeted = [cell for cell in deployed if cell.eps is not None]
    return budgeted or deployed


def _point(label: str, record: RunRecord) -> SweepPoint:
    cells = _deployed_cells(record)
    (name, defense), *_ = record.manifest.defenses.items()
    decision = cells[0].decision
    robust = {}
    for cell in cells:
        assert cell.robust_accuracy is not None, "a cell that is ok has a number"
        assert cell.ci95 is not None, "a number has an interval"
        robust[cell.threat_model] = Interval(value=cell.robust_accuracy, ci95=cell.ci95)
    return SweepPoint(
        label=label,
        defense=name,
        decision=decision,
        clean=defense.clean_accuracy[decision],
        test_set_accuracy=defense.test_set_accuracy[decision],
        separation=defense.separation,
        robust=robust,
        weights_sha256=defense.weights_sha256,
        run=rank_runs([(label, record)]).runs[0],
    )
