"""Ranking of run records on a board: which rows are comparable with which."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from dkd_bench.budget import NORMS, Norm
from dkd_bench.errors import ConfigError, EvidenceError
from dkd_bench.leaderboard._board import (
    AttackScore,
    Board,
    Group,
    Row,
    RunSummary,
    Status,
    ThreatModelScore,
)
from dkd_bench.leaderboard._order import Standing, Training, rows_in_order, seed_spreads
from dkd_bench.records import (
    CellRecord,
    DatasetRecord,
    DefenseRecord,
    FlagRecord,
    ImageOutcomes,
    Interval,
    Outcome,
    RunRecord,
    worst_of,
)
from dkd_bench.records.environment import environment_in_words, environment_of
from dkd_bench.records.flags import row_status
from dkd_bench.records.rundir import LoadedRun, as_loaded
from dkd_bench.records.statistics import interval
from dkd_bench.threats import in_reading_order, sees_whole

MISSING = "not part of the run"
"""Reason given for a cell that comparable rows have and this one lacks."""


class _GroupKey(NamedTuple):
    dataset: str
    dataset_digest: str
    indices_digest: str
    n: int
    suite_fingerprint: str
    norm: Norm
    eps: float | None
    environment: str | None


class _RowKey(NamedTuple):
    defense: str
    decision: str
    run: str


class _AttackKey(NamedTuple):
    threat_model: str
    attack: str


_Cells = dict[_AttackKey, CellRecord]


def rank_runs(runs: Sequence[tuple[str, RunRecord | LoadedRun]], *, strict_environment: bool = False) -> Board:
    """Return the board of ``runs``, each with the label that tells it from the others.

    Every row of a run that was loaded with a doubt has it as a flag.
    The order of the runs and of their cells makes no difference. Runs of one suite rank together wherever they were
    made, unless ``strict_environment`` keeps those of another torch, processor or device apart.

    Raises:
        ConfigError: if there are no runs, or two with one label.
        EvidenceError: if a record contradicts itself; names the run and the cell.
    """
    loaded = {label: as_loaded(run) for label, run in runs}
    if not runs:
        raise ConfigError("expected at least one run to rank, got none")
    if len(loaded) < len(runs):
        labels = [label for label, _ in runs]
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ConfigError(f"each run needs its own label, got {twice!r} twice; rank a run once, or rename it")
    groups: defaultdict[_GroupKey, defaultdict[_RowKey, _Cells]] = defaultdict(lambda: defaultdict(dict))
    for label, record in ((label, run.record) for label, run in loaded.items()):
        indices_digest = _indices_digest(record.manifest.dataset)
        environment = environment_in_words(_environment(record)) if strict_environment else None
        for cell in record.cells:
            _check_cell(cell, record, label)
            key = _group_key(record, cell, indices_digest)._replace(environment=environment)
            cells = groups[key][_RowKey(cell.defense, cell.decision, label)]
            if cells.setdefault(_AttackKey(cell.threat_model, cell.attack), cell) is not cell:
                raise EvidenceError(f"run {label!r} has two cells for {cell.key}; expected one, make the run again")
    return Board(
        runs=tuple(_summary(label, loaded[label].record) for label in sorted(loaded)),
        groups=tuple(_group(key, groups[key], loaded) for key in sorted(groups, key=_group_order)),
    )


def _check_cell(cell: CellRecord, record: RunRecord, label: str) -> None:
    """Raise EvidenceError unless a cell with a number tells of every image of the run."""
    if cell.status != "ok":
        return
    n = record.manifest.dataset.n
    lengths = {cell.n, len(cell.outcomes)}
    got = f"{len(cell.outcomes)} outcomes"
    if cell.survival is not None:
        lengths.add(len(cell.survival))
        got += f" and {len(cell.survival)} shares"
    if lengths != {n}:
        raise EvidenceError(
            f"run {label!r}: {cell.key} should tell of {n} images, got {got} for n = {cell.n}; "
            "the record was damaged or edited, make the run again"
        )


def _indices_digest(dataset: DatasetRecord) -> str:
    return sha256(json.dumps(dataset.indices).encode()).hexdigest()


def _group_key(record: RunRecord, cell: CellRecord, indices_digest: str) -> _GroupKey:
    dataset = record.manifest.dataset
    return _GroupKey(
        dataset.name, dataset.digest, indices_digest, dataset.n, record.suite_fingerprint, cell.norm, cell.eps, None
    )


def _environment(record: RunRecord) -> dict[str, str]:
    manifest = record.manifest
    return environment_of(versions=manifest.versions, device=manifest.device, recorded=manifest.environment)


def _group_order(key: _GroupKey) -> tuple[object, ...]:
    """Sort by what was attacked, then linf, l2 and l0 by eps, then what had no budget."""
    return (*key[:5], key.environment or "", key.eps is None, NORMS.index(key.norm), key.eps or 0.0)


def _summary(label: str, record: RunRecord) -> RunSummary:
    manifest = record.manifest
    return RunSummary(
        label=label,
        complete=record.complete,
        dataset=manifest.dataset.name,
        dataset_digest=manifest.dataset.digest,
        indices_digest=_indices_digest(manifest.dataset),
        n=manifest.dataset.n,
        suite_fingerprint=record.suite_fingerprint,
        plan_digest=manifest.plan_digest,
        seed=manifest.seed,
        training_seed=manifest.training_seed,
        recipe=manifest.recipe,
        device=manifest.device,
        versions=manifest.versions,
        environment=_environment(record),
        command=manifest.command,
    )


def _group(key: _GroupKey, cells: Mapping[_RowKey, _Cells], runs: Mapping[str, LoadedRun]) -> Group:
    defenses = {row: runs[row.run].record.manifest.defenses.get(row.defense) for row in cells}
    rows = rows_in_order(
        [
            _standing(
                row,
                cells[row],
                defenses[row],
                doubt=runs[row.run].flag,
                expected=_expected(row, cells, defenses),
                ranks=key.eps is not None,
            )
            for row in cells
        ]
    )
    tries = {each for row in cells.values() for each in row}
    return Group(
        **key._asdict(),
        threat_models=in_reading_order({each.threat_model for each in tries}),
        attacks=tuple(sorted({each.attack for each in tries})),
        rows=rows,
        seed_spreads=seed_spreads(
            rows,
            {
                (row.run, row.defense): _training(runs[row.run].record, defense)
                for row, defense in defenses.items()
                if defense is not None
            },
        ),
    )


def _training(record: RunRecord, defense: DefenseRecord) -> Training:
    kind = json.dumps([record.manifest.recipe, defense.settings], sort_keys=True)
    return Training(seed=record.manifest.seed_of_training, kind=kind)


def _expected(
    row: _RowKey, cells: Mapping[_RowKey, _Cells], defenses: Mapping[_RowKey, DefenseRecord | None]
) -> set[_AttackKey]:
    """Return the attacks that a row must have stood to be compared with the others of its group.

    That is every threat model of the group, and in it the attacks of the rows of its kind: an attack made for
    randomised defences, or for those with detectors, is not missed in others, nor the reverse. A defence that was
    never trained, and so has no record, asks nothing of others.
    """
    known = {key: (defense.randomized, defense.access) for key, defense in defenses.items() if defense is not None}
    of_kind = set(cells[row]).union(*(cells[key] for key in known if known[key] == known.get(row)))
    covered = {each.threat_model for each in of_kind}
    return of_kind | {each for key in known for each in cells[key] if each.threat_model not in covered}


def _standing(
    key: _RowKey,
    cells: _Cells,
    defense: DefenseRecord | None,
    *,
    doubt: FlagRecord | None,
    expected: Collection[_AttackKey],
    ranks: bool,
) -> Standing:
    names = in_reading_order({each.threat_model for each in expected})
    scores = [_threat_model(name, cells, expected, ranks=ranks) for name in names]
    worst = [outcomes for _, outcomes in scores if outcomes is not None]
    whole = worst_of(worst) if len(worst) == len(scores) else None
    threat_models = tuple(score for score, _ in scores)
    clean = None if defense is None else defense.clean_accuracy.get(key.decision)
    rejected = None if defense is None else defense.clean_rejected.get(key.decision)
    flags = _flags(cells, defense, doubt)
    row = Row(
        rank=None,
        behind=None,
        run=key.run,
        defense=key.defense,
        title=key.defense if defense is None else defense.title,
        decision=key.decision,
        randomized=defense is not None and defense.randomized,
        abstains=defense is not None and defense.abstains,
        status=_status(score.status for score in threat_models),
        missing=_what_is_missing(threat_models),
        clean=clean,
        separation=None if defense is None else defense.separation,
        worst=whole and whole.robust,
        failed_majorities=whole and whole.count(Outcome.FAILED_MAJORITY),
        abstained=whole and whole.count(Outcome.ABSTAINED),
        trust=row_status(flag.name for flag in flags),
        flags=flags,
        clean_rejected=rejected,
        clean_accepted=_share_right(clean, rejected),
        surrogates=tuple(
            sorted(
                {each.name for what, cell in cells.items() if sees_whole(what.threat_model) for each in cell.candidates}
            )
        ),
        threat_models=threat_models,
    )
    return Standing(row=row, outcomes=whole)


def _flags(cells: _Cells, defense: DefenseRecord | None, doubt: FlagRecord | None) -> tuple[FlagRecord, ...]:
    """Return the flags of the whole defence and of each of the row's numbers; said once where they are the same."""
    found = [] if defense is None else [*defense.flags, *([doubt] if doubt else [])]
    found += [flag for what in sorted(cells) for flag in cells[what].flags]
    return tuple(sorted(dict.fromkeys(found), key=lambda flag: flag.name))


def _share_right(clean: Interval | None, rejected: Interval | None) -> float | None:
    """Return the clean accuracy on what is not rejected."""
    if clean is None or rejected is None or rejected.value >= 1:
        return None
    return min(1.0, clean.value / (1 - rejected.value))


def _threat_model(
    name: str, cells: _Cells, expected: Collection[_AttackKey], *, ranks: bool
) -> tuple[ThreatModelScore, ImageOutcomes | None]:
    """Return the score, and the worst per image: ``None`` if an attack is missing or nothing is ranked."""
    tries = sorted(each for each in expected if each.threat_model == name)
    attacks = tuple(_attack(each.attack, cells.get(each)) for each in tries)
    status = _status(attack.status for attack in attacks)
    worst = worst_of([cells[each].image_outcomes for each in tries]) if ranks and status == "ok" else None
    score = ThreatModelScore(
        threat_model=name,
        status=status,
        worst=worst and worst.robust,
        failed_majorities=worst and worst.count(Outcome.FAILED_MAJORITY),
        abstained=worst and worst.count(Outcome.ABSTAINED),
        attacks=attacks,
    )
    return score, worst


def _attack(attack: str, cell: CellRecord | None) -> AttackScore:
    ok = cell is not None and cell.status == "ok"
    return AttackScore(
        attack=attack,
        status="not_run" if cell is None else cell.status,
        reason=MISSING if cell is None else cell.reason,
        robust=cell.image_outcomes.robust if cell is not None and ok else None,
        mean_over_candidates=(
            cell.mean_robust_accuracy if cell is not None and ok and len(cell.candidates) > 1 else None
        ),
        failed_majorities=None if cell is None else cell.failed_majorities,
        abstained=None if cell is None else cell.abstained,
        accepted=_accepted(cell) if cell is not None and ok and cell.detectors else None,
        detectors=() if cell is None else cell.detectors,
        fooling_norms=None if cell is None else cell.fooling_norms,
        flags=() if cell is None else cell.flags,
        forward_passes=0 if cell is None else cell.forward_passes,
    )


def _accepted(cell: CellRecord) -> Interval | None:
    """Return the accuracy on what was right when clean and was not rejected."""
    right = cell.outcomes.count(Outcome.ROBUST)
    accepted = cell.n - cell.outcomes.count(Outcome.CLEAN_ERROR) - cell.outcomes.count(Outcome.ABSTAINED)
    return interval(right, accepted) if accepted else None


def _status(statuses: Iterable[Status]) -> Status:
    """Return the worst of ``statuses``."""
    found = set(statuses)
    return "error" if "error" in found else "not_run" if "not_run" in found else "ok"


def _what_is_missing(threat_models: Iterable[ThreatModelScore]) -> str | None:
    """Return one sentence for each reason, with the cells it holds for; ``None`` if nothing is missing."""
    where: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for score in threat_models:
        for attack in score.attacks:
            if attack.status != "ok":
                reason = attack.reason or {"error": "error", "not_run": "not run"}[attack.status]
                where[reason][score.threat_model].append(attack.attack)
    sentences = [
        "; ".join(f"{name} ({', '.join(attacks)})" for name, attacks in cells.items()) + f": {reason}"
        for reason, cells in where.items()
    ]
    return ". ".join(sentences) or None
