"""Reading of a run's folder: its record, what its verification says of it, its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import final

from pydantic import ValidationError

from dkd_bench.errors import ConfigError, StoreError
from dkd_bench.records import SCHEMA_VERSION, FlagRecord, RunRecord
from dkd_bench.records.flags import UNVERIFIED
from dkd_bench.records.verification import VERIFICATION, Verification
from dkd_bench.store.files import TensorStore, read_file

RESULTS = "results.json"
PLOTS = "plots"
"""Name of the folder, in a run's, that holds its pictures."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRun:
    """Record of a run as it was read, with the doubt that its verification casts on it."""

    record: RunRecord
    folder: Path | None = None
    """Folder of the run; ``None`` for a record that was read from none."""
    doubt: str | None = None
    """Reason why the verification does not bear the record out; ``None`` if it does, or nobody verified the run."""

    @property
    def flag(self) -> FlagRecord | None:
        """Flag of the doubt on every defence of the run; ``None`` without a doubt."""
        return None if self.doubt is None else FlagRecord(name=UNVERIFIED, detail=self.doubt)


def evidence_store(folder: Path) -> TensorStore:
    """Return where a run keeps its evidence."""
    return TensorStore(folder / "evidence")


def load_run(path: Path) -> RunRecord:
    """Return the record in a run's folder, or in a ``results.json``.

    Raises:
        ConfigError: if there is no run at ``path``.
        StoreError: if its record is damaged or of another schema version.
    """
    file = _results(path)
    try:
        return RunRecord.model_validate_json(read_file(file))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise StoreError(
            f"{file} is not a run record of schema version {SCHEMA_VERSION}: {where}: {first['msg']}; run it again"
        ) from error


def load_with_doubt(path: Path) -> LoadedRun:
    """Return the record as ``load_run``, with the doubt of the verification beside it; raises as ``load_run`` does."""
    record, file = load_run(path), _results(path)
    return LoadedRun(record=record, folder=file.parent, doubt=_doubt(file) if file.name == RESULTS else None)


def as_loaded(run: RunRecord | LoadedRun) -> LoadedRun:
    """Return a run as one that was loaded; a bare record is one that nobody verified."""
    return run if isinstance(run, LoadedRun) else LoadedRun(record=run)


def _results(path: Path) -> Path:
    """Return the file of a run's record; raise ConfigError if there is none at ``path``."""
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"no run at {path}; expected a folder with {RESULTS}, as 'dkd-bench run' writes it")
    return file


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
