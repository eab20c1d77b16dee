"""Run from request to record, readable from top to bottom: resolve, train, plan, craft, score, doubt, record."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from dkd_bench.doubts import Doubts, doubt, doubt_interrupted, doubt_state
from dkd_bench.errors import AttackError, ConfigError, FieldName
from dkd_bench.executors.local import crafted_ahead
from dkd_bench.progress import Progress, SilentProgress
from dkd_bench.records import RunRecord
from dkd_bench.records.flags import row_status
from dkd_bench.records.rundir import RESULTS, evidence_store, load_with_doubt
from dkd_bench.separation.latents import separations
from dkd_bench.steps.craft import craft
from dkd_bench.steps.crafter import Crafter, crafts_store
from dkd_bench.steps.prepare import Prepared, prepare
from dkd_bench.steps.record import Findings, all_cells, record
from dkd_bench.steps.request import RunRequest
from dkd_bench.steps.retention import keep_evidence
from dkd_bench.steps.save import forget_pictures, save_run
from dkd_bench.steps.score import CleanAnswers, ask_clean, score, score_clean

log = logging.getLogger(__name__)


def run(request: RunRequest, *, progress: Progress | None = None) -> tuple[RunRecord, Path]:
    """Carry out ``request`` and return the record with the folder it was written to.

    What was computed before is found again: weights and crafts by their keys, a finished run whole. Interrupted,
    it writes what was scored, the rest as not run, and lets the interruption pass.

    Raises:
        DkdBenchError: if the request is wrong, or nothing can be written. A failing plugin or attack does not
            raise: its cells say ``error``, and the record is not complete.
    """
    progress = progress or SilentProgress()
    prepared = prepare(request, progress)
    for reason in prepared.subjects.failures.values():
        log.error(reason)
    folder = request.out or Path("runs") / _default_name(prepared)
    finished = _finished(prepared, folder)
    if finished is not None:
        log.info("%s holds this very run; nothing to compute", folder)
        return finished, folder
    forget_pictures(folder)

    crafter = Crafter(crafts_store())
    answers = ask_clean(prepared)
    findings = Findings(clean=score_clean(prepared, answers))
    try:
        doubts = measure(prepared, findings, answers, crafter, progress)
    except KeyboardInterrupt:
        doubts = doubt_interrupted(prepared, all_cells(prepared, findings), findings.evidence)
        save_run(record(prepared, findings, doubts, interrupted=True), folder)
        raise
    found = record(prepared, findings, doubts)

    keep_evidence(found, crafter.store, evidence_store(folder), keep=request.evidence, unused=doubts.unused)
    save_run(found, folder)
    return found, folder


def measure(
    prepared: Prepared, findings: Findings, answers: dict[str, CleanAnswers], crafter: Crafter, progress: Progress
) -> Doubts:
    """Craft and score every trial of the plan into ``findings``, and return every doubt in what was found.

    Args:
        prepared: what the first steps made.
        findings: takes what is found as it is found, so that an interruption loses none of it.
        answers: of each defence to the clean images.
        crafter: makes evidence, or finds it.
        progress: where crafting and challenging report to.
    """
    findings.separations = separations(prepared.subjects, progress)
    for crafted in craft(prepared, crafter, progress, ahead=crafted_ahead):
        findings.trials[crafted.position] = score(crafted, prepared, crafter, answers, findings.clean)
    doubts = doubt(prepared, all_cells(prepared, findings), findings.evidence, crafter, progress)
    learnt = doubt_state(prepared, {name: chunks[0] for name, chunks in answers.items()})
    return replace(doubts, raised=(*doubts.raised, *learnt))


def run_whole(request: RunRequest, *, progress: Progress) -> RunRecord:
    """Carry out ``request`` and return its record, which is complete; for what rests on several runs.

    Raises:
        AttackError: if something of it failed; what was computed is kept, and the same request goes on from there.
        DkdBenchError: as ``run``.
    """
    record, folder = run(request, progress=progress)
    if not record.complete:
        failed = [cell.reason for cell in record.cells if cell.status == "error"]
        flags = [flag for each in record.manifest.defenses.values() for flag in each.flags]
        doubted = [flag.detail for flag in flags if row_status([flag.name]) == "invalid"]
        raise AttackError(f"the run in {folder} failed: {[*failed, *doubted, 'it is incomplete'][0]}")
    return record


def _default_name(prepared: Prepared) -> str:
    subjects = prepared.subjects
    names = [*subjects.defenses, *(name for name in subjects.failures if "/" not in name)]
    called = f"{'+'.join(names) or 'failed'}-{subjects.dataset.name}".replace(":", "-")
    return f"{called}-{prepared.plan_digest[:8]}"


def _finished(prepared: Prepared, folder: Path) -> RunRecord | None:
    """Return the record in ``folder`` if it is this very run, done; refuse to write over another request's run.

    A run of the same request under another version of the code or the data is made again in its place.
    """
    if not (folder / RESULTS).is_file():
        return None
    found = load_with_doubt(folder)
    record = found.record
    if record.manifest.request != prepared.request.as_json():
        raise ConfigError(
            f"{folder} holds another run ({record.manifest.command}); choose another ",
            FieldName("out"),
            ", or move that one away",
        )
    if record.manifest.plan_digest != prepared.plan_digest:
        log.info("%s was made by other code or from other data; making it again", folder)
        return None
    if found.doubt is not None:
        log.warning("%s was found not to be as recorded; making it again", folder)
        return None
    kept = evidence_store(folder)
    whole = prepared.request.evidence != "all" or all(kept.path(key).is_file() for key in record.evidence)
    return record if record.complete and whole else None
