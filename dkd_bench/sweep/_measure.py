"""Measurement of a sweep: one run for each value and each level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dkd_bench.errors import AttackError, ConfigError, FieldName, PluginError
from dkd_bench.leaderboard import rank_runs
from dkd_bench.pipeline import run_whole
from dkd_bench.progress import Progress
from dkd_bench.records import CellRecord, Interval, RunRecord
from dkd_bench.records.rules import deployed_rule
from dkd_bench.records.statistics import mean_interval
from dkd_bench.steps.request import RunRequest, TrainRequest
from dkd_bench.steps.resolve import resolve
from dkd_bench.sweep._record import Sweep, SweepPoint
from dkd_bench.sweep._request import SweepRequest


def carry_out(request: SweepRequest, progress: Progress) -> Sweep:
    """Run the sweep, or what of it was not run before, and return what it measured.

    Raises:
        ConfigError: if a value, a name or a setting is wrong; every value is looked at before the first run.
        AttackError: if a run fails; what was computed is kept, and the same sweep goes on from there.
    """
    asked = runs_of(request)
    task = progress.start(f"sweep over {request.setting}", len(asked))
    records = {}
    for label, each in asked.items():
        records[label] = run_whole(each, progress=progress)
        task.advance(note=label)
    return sweep_of(request, records)


def runs_of(request: SweepRequest) -> dict[str, RunRequest]:
    """Return the run of each value and then of each level, by its label, all checked.

    A setting that is not given for one defence goes to the runs that know it.

    Raises:
        ConfigError: if a value, a name or a setting is wrong.
    """
    asked = request.runs(_called(request.defense))
    concerned = {label: resolve(each, drop_settings_of_others=True).request for label, each in asked.items()}
    known = {word for each in concerned.values() for word in each.settings}
    stray = tuple(word for word in request.run.settings if word not in known)
    resolve(replace(next(iter(asked.values())), settings=stray))
    return concerned


def _called(defense: str) -> str:
    """Return the own name of a defence that a user names, perhaps by its file."""
    cast = resolve(TrainRequest(defenses=(defense,)))
    for reason in cast.failures.values():
        raise PluginError(reason)
    return next(iter(cast.defenses))


def sweep_of(request: SweepRequest, records: Mapping[str, RunRecord]) -> Sweep:
    """Return the sweep that the runs, by their labels, measured.

    Raises:
        ConfigError: if the attack does not apply to a defence.
    """
    points = {label: _point(label, record) for label, record in records.items()}
    cells = [cell for record in records.values() for cell in _deployed_cells(record)]
    first = next(iter(records.values())).manifest
    return Sweep(
        defense=points[request.values[0]].defense,
        setting=request.setting,
        dataset=first.dataset.name,
        attack=cells[0].attack,
        norm=cells[0].norm,
        eps=cells[0].eps,
        n=first.dataset.n,
        seed=first.seed,
        threat_models=tuple(dict.fromkeys(cell.threat_model for cell in cells)),
        points=tuple(points[value] for value in request.values),
        levels=tuple(points[level] for level in request.levels),
    )


def _deployed_cells(record: RunRecord) -> list[CellRecord]:
    """Return the cells, one for each threat model, of the rule that a defence deploys; within the budget if any."""
    rules = [cell.decision for cell in record.cells if cell.status == "ok"]
    if not rules:
        raise ConfigError(
            f"no number came of '{record.manifest.command}': {record.cells[0].reason}; choose another ",
            FieldName("attacks"),
        )
    (defense, *_) = record.manifest.defenses.values()
    deployed = [cell for cell in record.cells if cell.decision == deployed_rule(defense.deployed, rules)]
    budgeted = [cell for cell in deployed if cell.eps is not None]
    return budgeted or deployed


def _point(label: str, record: RunRecord) -> SweepPoint:
    cells = _deployed_cells(record)
    (name, defense), *_ = record.manifest.defenses.items()
    decision = cells[0].decision
    robust: dict[str, Interval] = {}
    for cell in cells:
        if cell.robust_accuracy is not None and cell.ci95 is not None:
            robust[cell.threat_model] = Interval(value=cell.robust_accuracy, ci95=cell.ci95)
    n_test = record.manifest.dataset.n_test
    if n_test is None:
        raise AttackError(f"the run '{record.manifest.command}' is of an older version; delete it and run again")
    return SweepPoint(
        label=label,
        defense=name,
        decision=decision,
        clean=mean_interval([defense.test_set_accuracy[decision]] * n_test),
        n_test=n_test,
        separation=defense.separation,
        robust=robust,
        weights_sha256=defense.weights_sha256,
        run=rank_runs([(label, record)]).runs[0],
    )
