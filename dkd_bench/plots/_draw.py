"""Drawing of runs: the curves of all of them, the other pictures one by one, and the links to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from dkd_bench.errors import ConfigError, DatasetError, DkdBenchError, EvidenceError, PluginError, UnknownNameError
from dkd_bench.plots._curves import curves_figure, run_curves
from dkd_bench.plots._evidence import LeftOutError, RunEvidence
from dkd_bench.plots._examples import examples_figure, gather_examples
from dkd_bench.plots._latents import gather_latents, latents_figure
from dkd_bench.plots._names import file_name
from dkd_bench.plots._save import PICTURE_FORMATS, PictureFormat, figure_bytes
from dkd_bench.plots._transfer import gather_transfer, transfer_figure
from dkd_bench.progress import Progress
from dkd_bench.records import RunRecord
from dkd_bench.records.rundir import PLOTS, load_run, load_with_doubt
from dkd_bench.steps.prepare import prepare
from dkd_bench.steps.request import DeviceName, RunRequest
from dkd_bench.steps.save import save_board
from dkd_bench.steps.weights import weights_store
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
        save_board(load_with_doubt(run.folder), run.folder.resolve())
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
    """Return the curves of all runs; a label names its run only where two curves would otherwise be labelled alike."""
    curves = [curve for run in runs for curve in run_curves(run.record, label=None)]
    if len({(curve.row, curve.threat_model, curve.label) for curve in curves}) < len(curves):
        curves = [curve for run in runs for curve in run_curves(run.record, label=run.label)]
    return curves_figure(curves, threat_models=in_reading_order({curve.threat_model for curve in curves}))


def _run_figures(
    run: _Run, device: DeviceName, data_root: Path | None, progress: Progress
) -> Iterator[tuple[str, Figure]]:
    """Yield the pictures of each defence of a run, with their names; a note in the log for each left out."""
    request = RunRequest.from_json(run.record.manifest.request, device=device, data_root=data_root)
    _check_weights(run.record)
    kept = RunEvidence(run.record, run.folder, prepare(request, progress))
    task = progress.start(f"pictures of {run.label}", len(run.record.manifest.defenses) * len(_PICTURES))
    for defense in run.record.manifest.defenses:
        for called, picture in _PICTURES.items():
            try:
                yield picture(kept, defense)
            except LeftOutError as reason:
                log.info("%s", reason)
            task.advance(note=f"{defense} {called}")


def _transfer(kept: RunEvidence, defense: str) -> tuple[str, Figure]:
    return f"transfer-{file_name(defense)}", transfer_figure(gather_transfer(kept, defense))


def _examples(kept: RunEvidence, defense: str) -> tuple[str, Figure]:
    data = gather_examples(kept, defense)
    figure = examples_figure(data.images, title=data.title)
    return f"examples-{file_name(defense)}-{file_name(data.threat_model)}", figure


def _latents(kept: RunEvidence, defense: str) -> tuple[str, Figure]:
    try:
        return f"latents-{file_name(defense)}", latents_figure(gather_latents(kept, defense))
    except ConfigError as error:
        raise LeftOutError(f"no picture of the latents of {defense}: {error}") from error


_PICTURES: Mapping[str, Callable[[RunEvidence, str], tuple[str, Figure]]] = {
    "transfer": _transfer,
    "examples": _examples,
    "latents": _latents,
}
"""Functions that make the pictures of one defence of a run: each returns the file's name and the figure."""


def _check_weights(record: RunRecord) -> None:
    """Raise EvidenceError if the weights of a run are not in the cache: a picture is no reason to train."""
    store = weights_store()
    for name, defense in record.manifest.defenses.items():
        if not store.path(defense.weights_key).is_file():
            raise EvidenceError(
                f"the weights of {name!r} are not in {store.folder}; '{record.manifest.command}' makes them again"
            )
