"""Retention of a run's evidence: all of it, only the images that broke something, or none."""

from __future__ import annotations

from collections.abc import Collection

from dkd_bench.records import BROKEN, RunRecord
from dkd_bench.records.evidence import read_evidence, write_part
from dkd_bench.steps.request import KeepEvidence
from dkd_bench.store.files import TensorStore, delete_file, link_file


def keep_evidence(
    record: RunRecord,
    crafts: TensorStore,
    kept: TensorStore,
    *,
    keep: KeepEvidence,
    unused: Collection[str] = (),
) -> None:
    """Put into ``kept`` what ``keep`` asks for; unless it is ``all``, take the crafts out of the cache.

    ``broken`` keeps, of each craft, the images with which some cell was broken, and ``rows``, their places in
    the chunk. ``unused`` are keys of crafts that are no evidence of any cell: they are never kept.

    Raises:
        StoreError: if a file cannot be written.
    """
    rows = _broken_rows(record) if keep == "broken" else {}
    for key in record.evidence:
        if keep == "all":
            link_file(crafts.path(key), kept.path(key))
            continue
        if rows.get(key):
            whole = read_evidence(crafts, key)
            assert whole is not None, "a craft stays in the cache until its run is recorded"
            write_part(kept, key, whole, sorted(rows[key]))
    if keep != "all" and record.complete:
        for key in (*record.evidence, *unused):
            delete_file(crafts.path(key))


def _broken_rows(record: RunRecord) -> dict[str, set[int]]:
    """Return, for each craft, the rows of its chunk that were broken in some cell that used it."""
    sizes: dict[int, int] = {evidence.chunk: evidence.n for evidence in record.evidence.values()}
    starts = {chunk: sum(size for other, size in sizes.items() if other < chunk) for chunk in sizes}
    rows: dict[str, set[int]] = {}
    for cell in record.cells:
        for key in cell.evidence:
            evidence = record.evidence[key]
            start = starts[evidence.chunk]
            outcomes = cell.outcomes[start : start + evidence.n]
            rows.setdefault(key, set()).update(row for row, outcome in enumerate(outcomes) if outcome in BROKEN)
    return rows
