"""Draws runs: the curves of all of them, the other pictures one by one, and the links to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from dkd_bench.errors import ConfigError, DatasetError, DkdBenchError, EvidenceError, PluginError, UnknownNameError
from dkd_bench.pictures._evidence import EvidenceKept
from dkd_bench.pictures._names import file_name
from dkd_bench.pictures._studio import LeftOutError, Studio
from dkd_bench.plots import PICTURE_FORMATS, Curve, CurvePoint, PictureFormat, curves_figure, figure_bytes
from dkd_bench.progress import Progress
from dkd_bench.records import CellRecord, RunRecord
from dkd_bench.records.rundir import PLOTS, load_run
from dkd_bench.steps.prepare import prepare
from dkd_bench.steps.request import DeviceName, RunRequest
from dkd_bench.steps.save import save_board
from dkd_bench.steps.weights import weights_store
from dkd_bench.store.digests import digest_json
from dkd_bench.store.files import write_file
from dkd_bench.threats import in_reading_order

log = logging.getLogger(__name__)


def draw(
    runs: Sequence[Path],
    *,
    out: Path | None,
    format: PictureFormat,
    device: DeviceName,
    data_root: Path | None,
    progress: Progress,
) -> list[Path]:
    """Draw the runs, link the pictures in their leaderboards, and return the files written.

    The curves show all runs together, the other pictures one defence of one run each. Without ``out`` each run
    keeps its pictures, and the curves of all, in its own folder; with it all go there, those of several runs
    into a folder for each. A picture whose evidence was not kept is left out, and the log says how to get it.

    Raises:
        EvidenceError: after all else is drawn, if the images, the weights or the evidence here are not the run's.
        DatasetError, PluginError: likewise, if the images or a defence cannot be loaded.
        ConfigError: if there is no run at a path, one is given twice or has no number, or the format is unknown.
        StoreError: if a record or evidence is damaged, or a picture cannot be written.
    """
    if format not in PICTURE_FORMATS:
        raise UnknownNameError("picture format", format, PICTURE_FORMATS, known_as="Known")
    found = _found_runs(runs)
    written: list[Path] = []
    refused: list[DkdBenchError] = []
    for path, figure in _figures(found, out, device, data_root, progress, refused):
        written.append(path.with_name(f"{path.name}.{format}"))
        write_file(written[-1], figure_bytes(figure, format))
    for run in found if out is None else ():
        save_board(run.record, run.folder.resolve())
    for error in refused:
        raise error
    return written


def _figures(
    runs: Sequence[_Run],
    out: Path | None,
    device: DeviceName,
    data_root: Path | None,
    progress: Progress,
    refused: list[DkdBenchError],
) -> Iterator[tuple[Path, Figure]]:
    """Yield every picture and where it goes, without suffix: the curves first, which need the records alone.

    Why the others of a run could not be drawn is added to ``refused``.
    """
    curves = _all_curves(runs)
    for folder in [out] if out is not None else [run.folder / PLOTS for run in runs]:
        yield folder / "curves", curves
    for run in runs:
        folder = run.folder / PLOTS if out is None else out / file_name(run.label) if len(runs) > 1 else out
        try:
            for name, figure in _run_figures(run, device, data_root, progress):
                yield folder / name, figure
        except (DatasetError, EvidenceError, PluginError) as error:
            refused.append(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    label: str
    folder: Path
    record: RunRecord


def _found_runs(paths: Sequence[Path]) -> list[_Run]:
    if not paths:
        raise ConfigError("expected at least one run to draw, got none")
    folders = [path if path.is_dir() else path.parent for path in paths]
    resolved = [folder.resolve() for folder in folders]
    names = [folder.name for folder in resolved]
    runs = []
    for path, folder, own, name in zip(paths, folders, resolved, names, strict=True):
        record = load_run(path)
        if resolved.count(own) > 1:
            raise ConfigError(f"each run is drawn once, got {path} twice; leave one out")
        if not any(cell.status == "ok" for cell in record.cells):
            raise ConfigError(f"no cell of {path} has a number, so there is nothing to draw; finish the run first")
        runs.append(_Run(label=name if names.count(name) == 1 else str(folder), folder=folder, record=record))
    return runs


def _all_curves(runs: Sequence[_Run]) -> Figure:
    """Return the curves of all runs; a curve names its run only where two would be told apart by nothing else."""
    curves = [curve for run in runs for curve in run_curves(run.record, label=None)]
    if len({(curve.row, curve.threat_model, curve.label) for curve in curves}) < len(curves):
        curves = [curve for run in runs for curve in run_curves(run.record, label=run.label)]
    return curves_figure(curves, threat_models=in_reading_order({curve.threat_model for curve in curves}))


def run_curves(record: RunRecord, *, label: str | None) -> list[Curve]:
    """Return a curve for each defence, rule, threat model, attack and norm that has a number.

    Args:
        record: of the run.
        label: what tells its defences from those of other runs; ``None`` if there are no others.
    """
    grouped: dict[tuple[str, str, str, str, str], list[CellRecord]] = {}
    for cell in record.cells:
        if cell.status == "ok":
            key = (cell.attack, cell.norm, cell.defense, cell.decision, cell.threat_model)
            grouped.setdefault(key, []).append(cell)
    where = "" if label is None else f", {label}"
    return [
        Curve(
            label=f"{cells[0].defense} ({cells[0].decision}{where})",
            threat_model=cells[0].threat_model,
            attack=cells[0].attack,
            norm=cells[0].norm,
            dataset=cells[0].dataset,
            n=cells[0].n,
            ground=digest_json(
                [record.manifest.dataset.digest, record.manifest.dataset.indices, record.suite_fingerprint]
            ),
            distances=next((cell.fooling_distances for cell in cells if cell.eps is None), ()),
            points=_points(cells, record),
        )
        for cells in grouped.values()
    ]


def _points(cells: Sequence[CellRecord], record: RunRecord) -> tuple[CurvePoint, ...]:
    """Return the accuracy within each budget, in ascending order, and before them that on the clean images."""
    points = [
        CurvePoint(cell.eps, cell.robust_accuracy, cell.ci95)
        for cell in cells
        if cell.eps is not None and cell.robust_accuracy is not None and cell.ci95 is not None
    ]
    clean = record.manifest.defenses[cells[0].defense].clean_accuracy.get(cells[0].decision)
    if points and clean is not None:
        points.append(CurvePoint(0.0, clean.value, clean.ci95))
    return tuple(sorted(points))


def _run_figures(
    run: _Run, device: DeviceName, data_root: Path | None, progress: Progress
) -> Iterator[tuple[str, Figure]]:
    """Yield the pictures of each defence of a run, with their names; a note in the log for each left out."""
    request = RunRequest.from_json(run.record.manifest.request, device=device, data_root=data_root)
    _check_weights(run.record)
    studio = Studio(EvidenceKept(run.record, run.folder, prepare(request, progress)))
    pictures: tuple[Callable[[str], tuple[str, Figure]], ...] = (studio.transfer, studio.examples, studio.latents)
    task = progress.start(f"pictures of {run.label}", len(run.record.manifest.defenses) * len(pictures))
    for defense in run.record.manifest.defenses:
        for picture in pictures:
            try:
                yield picture(defense)
            except LeftOutError as reason:
                log.info("%s", reason)
            task.advance(note=f"{defense} {picture.__name__}")


def _check_weights(record: RunRecord) -> None:
    """Raise EvidenceError if the weights of a run are not in the cache: a picture is no reason to train."""
    store = weights_store()
    for name, defense in record.manifest.defenses.items():
        if not store.path(defense.weights_key).is_file():
            raise EvidenceError(
                f"the weights of {name!r} are not in {store.folder}; '{record.manifest.command}' makes them again"
            )
