"""Keeping of an audit's outcome beside the run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from platform import python_version

import dkd_bench
from dkd_bench.errors import Sentence, StoreError
from dkd_bench.records.rundir import RESULTS, load_with_doubt
from dkd_bench.records.verification import VERIFICATION, Verification
from dkd_bench.steps.record import LIBRARIES
from dkd_bench.steps.save import save_board
from dkd_bench.store.digests import library_versions
from dkd_bench.store.files import write_json
from dkd_bench.verify._report import AuditReport


def keep_verification(report: AuditReport, run: Path) -> Sentence:
    """Write what an audit of ``run`` found beside its record, and into its board; return a sentence on where it is.

    A published run that cannot be written to can be verified all the same.
    """
    if not run.is_dir() and run.name != RESULTS:
        return Sentence(f"No {VERIFICATION} is written: {run} is not named {RESULTS}.")
    file = (run if run.is_dir() else run.parent) / VERIFICATION
    verification = Verification(
        results_sha256=report.results_sha256,
        findings=report.findings,
        summary=report.summary,
        tolerance=report.tolerance,
        checked=asdict(report.checked),
        versions={
            **library_versions(*LIBRARIES),
            "dkd-bench": dkd_bench.__version__,
            "python": python_version(),
        },
    )
    try:
        write_json(file, verification.model_dump(mode="json"))
        if report.findings:
            save_board(load_with_doubt(file.parent), file.parent)
    except StoreError as error:
        return Sentence(f"No {VERIFICATION} is written: ", error.sentence, ".")
    return Sentence(f"What was found is in {file}.")
