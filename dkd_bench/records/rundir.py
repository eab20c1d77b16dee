"""The folder of a run: its record, its leaderboard, its evidence."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from dkd_bench.errors import ConfigError, StoreError
from dkd_bench.leaderboard import rank_runs, render
from dkd_bench.records import SCHEMA_VERSION, FlagRecord, RunRecord
from dkd_bench.records.flags import UNVERIFIED
from dkd_bench.records.verification import VERIFICATION, Verification
from dkd_bench.store.files import TensorStore, delete_file, read_file, write_file, write_json

RESULTS = "results.json"
PLOTS = "plots"
"""The folder, in a run's, of its pictures."""

_PICTURE_SUFFIXES = (".png", ".svg")


def evidence_store(folder: Path) -> TensorStore:
    """Return where a run keeps its evidence."""
    return TensorStore(folder / "evidence")


def save_run(record: RunRecord, folder: Path) -> None:
    """Write the record and the leaderboard, and forget what was verified; raise StoreError if that cannot be done."""
    delete_file(folder / VERIFICATION)
    save_board(record, folder)
    write_json(folder / RESULTS, record.model_dump(mode="json"))


def save_board(record: RunRecord, folder: Path) -> None:
    """Write the leaderboard, with links to the pictures there are; raise StoreError if it cannot be written."""
    board = rank_runs([(folder.name, record)])
    write_file(folder / "leaderboard.md", with_pictures(render(board, "markdown"), folder))
    write_file(folder / "leaderboard.json", render(board, "json"))


def with_pictures(board: str, folder: Path) -> str:
    """Return the board's Markdown followed by the pictures in ``folder``; as it is if there are none.

    Of one drawn in several formats the first of ``_PICTURE_SUFFIXES`` is shown.
    """
    names = sorted({file.stem for file in (folder / PLOTS).glob("*") if file.suffix in _PICTURE_SUFFIXES})
    if not names:
        return board
    kinds = {
        name: next(kind for kind in _PICTURE_SUFFIXES if (folder / PLOTS / (name + kind)).is_file()) for name in names
    }
    links = "\n\n".join(f"![{name}]({PLOTS}/{name}{kind})" for name, kind in kinds.items())
    return f"{board}\n## Pictures\n\n{links}\n"


def forget_pictures(folder: Path) -> None:
    """Delete the pictures of a run that is about to be made; they would show other numbers.

    Raises:
        StoreError: if one cannot be deleted.
    """
    for file in (folder / PLOTS).glob("*"):
        if file.suffix in _PICTURE_SUFFIXES:
            delete_file(file)


def load_run(path: Path) -> RunRecord:
    """Return the record in a run's folder, or in a ``results.json``.

    Raises:
        ConfigError: if there is no run at ``path``.
        StoreError: if its record is damaged or of another schema version.
    """
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"no run at {path}; expected a folder with {RESULTS}, as 'dkd-bench run' writes it")
    try:
        return RunRecord.model_validate_json(read_file(file))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise StoreError(
            f"{file} is not a run record of schema version {SCHEMA_VERSION}: {where}: {first['msg']}; run it again"
        ) from error


def load_for_ranking(path: Path) -> RunRecord:
    """Return the record as ``load_run``; if a verification beside it does not bear it out, every defence is flagged.

    A run that nobody verified is as it is.

    Raises:
        ConfigError: if there is no run at ``path``.
        StoreError: if its record is damaged or of another schema version.
    """
    record = load_run(path)
    file = path / RESULTS if path.is_dir() else path
    doubt = _doubt(file) if file.name == RESULTS else None
    if doubt is None:
        return record
    flag = FlagRecord(name=UNVERIFIED, detail=doubt, share=None)
    defenses = {
        name: defense.model_copy(update={"flags": (*defense.flags, flag)})
        for name, defense in record.manifest.defenses.items()
    }
    return record.model_copy(update={"manifest": record.manifest.model_copy(update={"defenses": defenses})})


def found_fault(record: RunRecord) -> str | None:
    """Return what the verification of a record that ``load_for_ranking`` gave has against it; ``None`` for nothing."""
    flags = (flag for defense in record.manifest.defenses.values() for flag in defense.flags)
    return next((flag.detail for flag in flags if flag.name == UNVERIFIED), None)


def _doubt(results: Path) -> str | None:
    """Return why the verification beside a record does not bear it out; ``None`` if it does, or there is none."""
    file = results.with_name(VERIFICATION)
    if not file.is_file():
        return None
    try:
        verification = Verification.model_validate_json(read_file(file))
    except (ValidationError, StoreError):
        return f"{VERIFICATION} cannot be read"
    if verification.results_sha256 != sha256(read_file(results)).hexdigest():
        return f"{RESULTS} was changed since it was verified"
    if verification.findings:
        more = len(verification.findings) - 1
        return f"verify found: {verification.findings[0]}" + (f" (and {more} more)" if more else "")
    return None
