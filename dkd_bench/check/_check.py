"""Steps of ``dkd-bench check``: reads reference and run, looks for old evidence, writes what CI shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dkd_bench.check._compare import compare
from dkd_bench.check._reference import load_reference, reference_from, save_reference
from dkd_bench.check._render import render_check
from dkd_bench.check._replay import EvidenceReplay
from dkd_bench.check._report import CheckReport
from dkd_bench.errors import Sentence, Spelling, StoreError
from dkd_bench.progress import Progress
from dkd_bench.records.rundir import load_with_doubt
from dkd_bench.steps.request import CheckRequest
from dkd_bench.store.files import append_file, write_file


def check_run(request: CheckRequest, progress: Progress) -> CheckReport:
    """Return the report of ``compare``, with old evidence replayed where the attack changed.

    Raises:
        ConfigError: if there is no run or reference, or a word of the request is wrong.
        StoreError: if run or reference is damaged, edited, or of another schema version.
        IncompleteRunError: if the run is incomplete, or its verification does not bear it out.
    """
    reference, run = load_reference(request.against), load_with_doubt(request.run)
    assert run.folder is not None, "it was read from one"
    replay = EvidenceReplay(
        reference,
        run.record,
        folders=(*request.evidence, run.folder),
        device=request.device,
        data_root=request.data_root,
        progress=progress,
    )
    return compare(
        reference,
        run,
        alpha=request.alpha,
        tolerance=request.tolerance,
        strict_environment=request.strict_environment,
        replay=replay,
    )


def make_reference(runs: Sequence[Path], out: Path) -> str:
    """Write the reference that the runs in these folders make up to ``out``; return a sentence on what it holds.

    Raises:
        ConfigError: as ``reference_from``, and if there is no run at one of ``runs``.
        StoreError: if a run is damaged, or ``out`` cannot be written.
        IncompleteRunError: if a run is incomplete, or its verification does not bear it out.
    """
    reference = reference_from([load_with_doubt(run) for run in runs])
    save_reference(reference, out)
    noun = "run" if len(runs) == 1 else "runs"
    return (
        f"{out}: {len(reference.cells)} cells of {reference.dataset.n} images of {reference.dataset.name}, "
        f"from {len(runs)} {noun}; digest {reference.digest[:8]}"
    )


def save_check(
    report: CheckReport, *, junit: Path | None = None, summary: Path | None = None, spell: Spelling = str
) -> tuple[Sentence, ...]:
    """Write the report as JUnit XML to ``junit``, and add it as Markdown to what is in ``summary``.

    Returns:
        A sentence for each file that could not be written; what was there before is still there, and what can be
        written is.
    """
    problems = []
    try:
        if junit is not None:
            write_file(junit, render_check(report, "junit", spell))
    except StoreError as error:
        problems.append(error.sentence)
    try:
        if summary is not None:
            append_file(summary, render_check(report, "markdown", spell))
    except StoreError as error:
        problems.append(error.sentence)
    return tuple(problems)
