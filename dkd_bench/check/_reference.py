"""Making of a reference from runs, and reading and writing of its small file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dkd_bench.check._outcomes import packed
from dkd_bench.check._records import (
    REFERENCE_VERSION,
    RecordedOutcomes,
    Reference,
    ReferenceCell,
    ReferenceDataset,
    ReferenceDefense,
    ReferenceRun,
    first_repeated,
)
from dkd_bench.errors import ConfigError, FieldName, IncompleteRunError, StoreError
from dkd_bench.records import CellKey, CellRecord, Fraction, RunRecord
from dkd_bench.records.rundir import LoadedRun, as_loaded
from dkd_bench.steps.scoring import SCORING_DRAWS
from dkd_bench.store.digests import digest_json
from dkd_bench.store.files import read_json, write_json

_AGAIN = "make it again with 'dkd-bench reference RUN --out FILE'"


def reference_from(runs: Sequence[RunRecord | LoadedRun]) -> Reference:
    """Return the reference that ``runs`` make up: one, or several of one request under other training seeds.

    Cells without a number are left out.

    Raises:
        ConfigError: if there is no run or no number, if the runs differ in more than their training seed or do not
            differ in that, or a cell stands twice in one.
        IncompleteRunError: if a run is incomplete, or its verification does not bear it out.
        StoreError: if a run's outcomes are not one for each image.
    """
    if not runs:
        raise ConfigError("a reference needs at least one run; name one, as 'dkd-bench run' writes it")
    for number, run in enumerate(runs, start=1):
        check_usable(as_loaded(run), called=f"run {number} of {len(runs)}")
    records = [as_loaded(run).record for run in runs]
    datasets = [dataset_of(record) for record in records]
    for number, dataset in enumerate(datasets, start=1):
        if (dataset.digest, dataset.indices_sha256) != (datasets[0].digest, datasets[0].indices_sha256):
            raise ConfigError(
                f"the runs of a reference must have the same images; those of run {number} are not run 1's. "
                "Make them with the same ",
                FieldName("dataset"),
                ", ",
                FieldName("n_examples"),
                " and ",
                FieldName("seed"),
                ", and with other ",
                FieldName("training_seed"),
            )
    _check_only_seeds_differ(records)
    made = [_run(record) for record in records]
    content: dict[str, Any] = {
        "schema_version": REFERENCE_VERSION,
        "dataset": datasets[0].model_dump(mode="json"),
        "runs": [each.model_dump(mode="json") for each in made],
        "cells": [cell.model_dump(mode="json") for cell in _cells(records, made, datasets[0].name)],
    }
    return Reference.model_validate({**content, "digest": digest_json(content)})


def save_reference(reference: Reference, path: Path) -> None:
    """Write ``reference`` as JSON; raise StoreError if it cannot be written."""
    write_json(path, reference.model_dump(mode="json"))


def load_reference(path: Path) -> Reference:
    """Return the reference in a file that ``save_reference`` wrote.

    Raises:
        ConfigError: if there is no file at ``path``.
        StoreError: if it is damaged, was edited, or is of another schema version.
    """
    if not path.is_file():
        raise ConfigError(f"no reference at {path}; expected a file, as 'dkd-bench reference RUN --out FILE' writes it")
    try:
        content = read_json(path)
    except StoreError as error:
        raise StoreError(f"{path} is no whole reference ({error.__cause__}); {_AGAIN}") from error
    if not isinstance(content, dict) or "digest" not in content or "schema_version" not in content:
        raise StoreError(f"{path} is no reference: it states no schema_version and digest; {_AGAIN}")
    if content["schema_version"] != REFERENCE_VERSION:
        raise StoreError(
            f"{path} is a reference of schema version {content['schema_version']!r}, this is dkd-bench for version "
            f"{REFERENCE_VERSION}; {_AGAIN}"
        )
    stated = content.pop("digest")
    try:
        found = _digest(content)
        if found != stated:
            raise StoreError(
                f"{path} states digest {stated}, what it holds has {found}: it was edited or damaged; {_AGAIN}, "
                "or take the file as it was committed"
            )
        return Reference.model_validate({**content, "digest": stated})
    except RecursionError as error:
        raise StoreError(f"{path} is no reference: it is nested too deeply; {_AGAIN}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise StoreError(f"{path} is no reference: {where}: {first['msg']}; {_AGAIN}") from error


def attack_digest(run: RunRecord, attack: str) -> str:
    """Return a digest of all that determines ``attack`` in ``run``; other attacks of its suite do not change it.

    Raises:
        ConfigError: if the run does not say what the attack was.
    """
    entries = [entry for entry in run.suite.get("attacks", ()) if entry.get("name") == attack]
    if len(entries) != 1:
        raise ConfigError(
            f"the suite in the run's record must describe attack {attack!r} once, does so {len(entries)} times; "
            "make the run again"
        )
    return digest_json(
        {"attack": entries[0], "eot_draws": run.suite.get("eot_draws"), "chunk_size": run.suite.get("chunk_size")}
    )


def dataset_of(run: RunRecord) -> ReferenceDataset:
    """Return the identity of the images that a run attacked."""
    dataset = run.manifest.dataset
    return ReferenceDataset(
        name=dataset.name, digest=dataset.digest, n=dataset.n, indices_sha256=digest_json(list(dataset.indices))
    )


def cells_with_a_number(run: RunRecord, *, dataset: str) -> dict[CellKey, CellRecord]:
    """Return the cells of a run that have a number, by key; ``dataset`` is what its images are called.

    Raises:
        ConfigError: if a cell stands in it twice.
    """
    keys = [cell.key.with_dataset(dataset) for cell in run.cells]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"the cell {first_repeated(keys)} stands twice in the run; make the run again")
    return {key: cell for key, cell in zip(keys, run.cells, strict=True) if cell.status == "ok"}


def check_usable(run: LoadedRun, *, called: str) -> None:
    """Raise IncompleteRunError if the run is incomplete, or its verification does not bear it out.

    ``called`` is its name in the sentence. A run that nobody verified is as good as one that was.
    """
    if not run.record.complete:
        reason = next((f": {cell.reason}" for cell in run.record.cells if cell.status != "ok" and cell.reason), "")
        raise IncompleteRunError(
            f"{called} is incomplete{reason}; the same 'dkd-bench run' command goes on from what was done"
        )
    if run.doubt is not None:
        raise IncompleteRunError(
            f"{called} has numbers that its evidence does not bear out ({run.doubt}); make the run again, or verify "
            "it again with 'dkd-bench verify'"
        )


def shares_of(cell: CellRecord, *, n: int) -> tuple[Fraction, ...]:
    """Return the share of draws that each image of a cell survived: 0 or 1 where the defence is not randomised.

    Raises:
        StoreError: if there are not ``n``.
    """
    shares = cell.shares
    if len(shares) != n:
        raise StoreError(
            f"the cell {cell.key} must have {n} outcomes, has {len(shares)}; its record is damaged, make the run again"
        )
    return shares


def flags_of(run: RunRecord, defense: str) -> tuple[str, ...]:
    """Return the names of the flags that a defence raised, in its cells too, in alphabetical order."""
    raised = [*run.manifest.defenses[defense].flags] if defense in run.manifest.defenses else []
    raised += [flag for cell in run.cells if cell.defense == defense for flag in cell.flags]
    return tuple(sorted({flag.name for flag in raised}))


def _check_only_seeds_differ(runs: Sequence[RunRecord]) -> None:
    """Raise ConfigError unless the runs are of one request but for the training seed, and no two of one seed."""
    first = _request_but_seed(runs[0])
    seen: dict[int, int] = {}
    for number, run in enumerate(runs, start=1):
        words = _request_but_seed(run)
        odd = next((name for name in {**first, **words} if first.get(name) != words.get(name)), None)
        if odd is not None:
            raise ConfigError(
                "the runs of a reference must differ in ",
                FieldName("training_seed"),
                f" alone; the {odd} of run {number} must be "
                f"{first.get(odd)!r} as in run 1, got {words.get(odd)!r}. Make them with the same other words",
            )
        seed = run.manifest.seed_of_training
        if seed in seen:
            raise ConfigError(
                f"the runs of a reference must be of unlike training seeds; run {seen[seed]} and run {number} are both "
                f"of {seed}, and show nothing of how seeds differ. Make each with another ",
                FieldName("training_seed"),
            )
        seen[seed] = number


def _request_but_seed(run: RunRecord) -> dict[str, Any]:
    """Return all that a run was asked for, but for the training seed."""
    manifest = run.manifest
    settings = {f"settings of {name!r}": defense.settings for name, defense in manifest.defenses.items()}
    words = {name: word for name, word in manifest.request.items() if name != "training_seed"}
    return {**words, **settings, "recipe": manifest.recipe, "seed": manifest.seed}


def _run(run: RunRecord) -> ReferenceRun:
    manifest = run.manifest
    kept = dict.fromkeys(key for cell in run.cells if cell.status == "ok" for key in cell.evidence)
    lost = [key for key in kept if key not in run.evidence]
    if lost:
        raise ConfigError(f"a cell names evidence {lost[0]}, which the run does not hold; make the run again")
    return ReferenceRun(
        command=manifest.command,
        request=manifest.request,
        versions=manifest.versions,
        device=manifest.device,
        environment=manifest.environment,
        plan_digest=manifest.plan_digest,
        suite_fingerprint=run.suite_fingerprint,
        defenses={
            name: ReferenceDefense(weights_sha256=defense.weights_sha256, flags=flags_of(run, name))
            for name, defense in manifest.defenses.items()
        },
        evidence=tuple((key, run.evidence[key].sha256) for key in kept),
    )


def _cells(runs: Sequence[RunRecord], made: Sequence[ReferenceRun], dataset: str) -> list[ReferenceCell]:
    numbered = [cells_with_a_number(run, dataset=dataset) for run in runs]
    for number, cells in enumerate(numbered, start=1):
        odd = next(iter(cells.keys() ^ numbered[0].keys()), None)
        if odd is not None:
            raise ConfigError(
                f"the runs of a reference must have the same cells; {odd} has a number in run 1 or in run {number} "
                "alone. Make them with the same ",
                FieldName("defenses"),
                ", ",
                FieldName("attacks"),
                ", ",
                FieldName("threat_models"),
                " and ",
                FieldName("eps"),
            )
    if not numbered[0]:
        raise ConfigError("no cell of the run has a number, so there is nothing to check against")
    return [_cell(key, runs, made, [cells[key] for cells in numbered]) for key in numbered[0]]


def _cell(
    key: CellKey, runs: Sequence[RunRecord], made: Sequence[ReferenceRun], cells: Sequence[CellRecord]
) -> ReferenceCell:
    digests = [attack_digest(run, key.attack) for run in runs]
    if len(set(digests)) > 1:
        raise ConfigError(
            f"the runs of a reference must have the same attacks; {key.attack!r} is not the same in all. "
            "Make them with the same ",
            FieldName("settings"),
            " and the same version",
        )
    if len({cell.survival is None for cell in cells}) > 1:
        raise ConfigError(f"{key.defense!r} is randomised in some runs of the reference only; make them again")
    draws = 1 if cells[0].survival is None else SCORING_DRAWS
    recorded = []
    for run, record, cell in zip(made, runs, cells, strict=True):
        try:
            survived = packed(shares_of(cell, n=record.manifest.dataset.n), draws=draws)
        except ValueError as error:
            raise ConfigError(f"the cell {key} cannot be kept: {error}; make the run again") from error
        recorded.append(RecordedOutcomes(survived=survived, evidence=_places(cell, record, run)))
    return ReferenceCell(key=key, attack_digest=digests[0], draws=draws, runs=tuple(recorded))


def _places(cell: CellRecord, record: RunRecord, run: ReferenceRun) -> tuple[tuple[int, ...], ...]:
    """Return for each target in turn where its crafts stand in the run's evidence; each begins with chunk 0."""
    places = {key: place for place, (key, _) in enumerate(run.evidence)}
    targets: list[list[int]] = []
    for key in cell.evidence:
        if record.evidence[key].chunk == 0:
            targets.append([])
        if not targets:
            raise ConfigError(f"the evidence of {cell.key} does not begin with chunk 0")
        targets[-1].append(places[key])
    return tuple(tuple(target) for target in targets)


def _digest(content: Any) -> str:
    try:
        return digest_json(content)
    except ValueError:  # NaN, which JSON has not, and json reads all the same
        return "none, for a number that is not finite"
