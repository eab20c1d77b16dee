"""Targets of ``dkd-bench reproduce``: from the name of a table or figure to what was measured of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from dkd_bench.api import ConfigError, Progress, UnknownNameError
from dkd_bench.errors import FieldName
from dkd_bench.leaderboard import rank_runs
from dkd_bench.plots import sweep_picture
from dkd_bench.records import RunRecord
from dkd_bench.sweep import carry_out, runs_of, sweep_of
from dkd_paper._baselines import BASELINE_PARTS, baselines
from dkd_paper._figure5 import figure5, figure5_sweep
from dkd_paper._paper import PaperDataset, paper_dataset
from dkd_paper._tables import Tables, table2, table3, table4
from dkd_paper.record import Reproduction, Source
from dkd_paper.request import StudyRequest
from dkd_paper.study import (
    BLACK_BOX_PARTS,
    WHITE_BOX_PARTS,
    Ground,
    Part,
    finished_run,
    ground_of,
    study_runs,
)


@dataclass(frozen=True, slots=True)
class _Table:
    parts: tuple[Part, ...]
    build: Callable[[Mapping[tuple[str, int], RunRecord], PaperDataset], Tables]


_TABLES = {
    "table2": _Table(BLACK_BOX_PARTS, table2),
    "table3": _Table(BLACK_BOX_PARTS, table3),
    "table4": _Table(WHITE_BOX_PARTS, table4),
    "baselines": _Table(BASELINE_PARTS, baselines),
}
FIGURE5 = "figure5"
TARGETS = (*_TABLES, FIGURE5)
"""Names of the tables and figures that can be reproduced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduced:
    """Reproduced table or figure, and the figure's picture."""

    reproduction: Reproduction
    picture: bytes | None
    """Picture as SVG; ``None`` for a table."""


def reproduce(target: str, request: StudyRequest, progress: Progress) -> Reproduced:
    """Measure ``target``, or read what was measured before.

    Raises:
        UnknownNameError: if there is no such target.
        ConfigError: if the request does not fit it, or a run is missing that may not be made.
        DatasetError: if the dataset cannot be loaded.
        AttackError: if a run fails; what was computed is kept, and the same command goes on from there.
    """
    if target not in TARGETS:
        raise UnknownNameError("table or figure", target, TARGETS, known_as="To be reproduced")
    ground = ground_of(request)
    if target == FIGURE5:
        return _figure5(request, ground, progress)
    table = _TABLES[target]
    runs = study_runs(request, target, table.parts, ground, progress)
    built = table.build(runs, paper_dataset(ground.channels))
    sources = [_source(part, record) for (part, _), record in runs.items()]
    return Reproduced(reproduction=_reproduction(target, built, request, ground, sources), picture=None)


def _figure5(request: StudyRequest, ground: Ground, progress: Progress) -> Reproduced:
    if len(request.seeds) > 1:
        raise ConfigError(
            f"{FIGURE5} is drawn for one seed, got {len(request.seeds)}; give one ", FieldName("seeds", option="seed")
        )
    paper = paper_dataset(ground.channels)
    asked = figure5_sweep(request, ground.n_test)
    if request.existing:
        sweep = sweep_of(asked, {label: finished_run(each, request, FIGURE5) for label, each in runs_of(asked).items()})
    else:
        sweep = carry_out(asked, progress)
    sources = [
        Source(part=point.label, run=point.run, weights_sha256={point.defense: point.weights_sha256})
        for point in (*sweep.points, *sweep.levels)
    ]
    picture = sweep_picture(sweep, "svg")
    reproduction = _reproduction(FIGURE5, figure5(sweep, paper), request, ground, sources).model_copy(
        update={"picture": f"{FIGURE5}.svg", "picture_sha256": sha256(picture).hexdigest()}
    )
    return Reproduced(reproduction=reproduction, picture=picture)


def _source(part: str, record: RunRecord) -> Source:
    return Source(
        part=part,
        run=rank_runs([(f"{part}-seed-{record.manifest.seed}", record)]).runs[0],
        weights_sha256={name: each.weights_sha256 for name, each in record.manifest.defenses.items()},
    )


def _reproduction(
    target: str, built: Tables, request: StudyRequest, ground: Ground, sources: Sequence[Source]
) -> Reproduction:
    return Reproduction(
        target=target,
        title=built.title,
        dataset=ground.name,
        paper_dataset=paper_dataset(ground.channels),
        seeds=request.seeds,
        command=request.command(target),
        blocks=built.blocks,
        trends=built.trends,
        notes=built.notes,
        sources=tuple(sources),
    )
