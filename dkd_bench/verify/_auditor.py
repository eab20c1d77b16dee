"""Audit of a run: its record is compared, trial by trial, with what its request makes here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import final

import torch
from pydantic import TypeAdapter, ValidationError

from dkd_bench.budget import Budget
from dkd_bench.errors import ConfigError, EvidenceError
from dkd_bench.progress import Progress
from dkd_bench.records import CellRecord, RunRecord
from dkd_bench.records.rundir import RESULTS, evidence_store, load_run
from dkd_bench.steps.plan import Trial
from dkd_bench.steps.prepare import Prepared, prepare
from dkd_bench.steps.request import DeviceName, RunRequest
from dkd_bench.store.files import read_file
from dkd_bench.verify._answers import Rescored, joined
from dkd_bench.verify._clean import CleanAnswers
from dkd_bench.verify._compare import is_whole, left_out_problems, problems, record_problems
from dkd_bench.verify._evidence import EvidenceReader
from dkd_bench.verify._flags import flag_problems
from dkd_bench.verify._report import AuditReport, Checked, RoundedCell, summarised
from dkd_bench.verify._rescore import Rescorer
from dkd_bench.verify._structure import cell_problems, evidence_problems, ground_problems, planned_cells


def audit(run: Path, *, device: DeviceName, data_root: Path | None, progress: Progress) -> AuditReport:
    """Re-score the evidence of the run in folder ``run`` and compare with its record.

    Evidence that the run did not keep is made again from its key; of evidence kept for broken images only,
    those images are re-scored. Flags are raised again by the probe, by the numbers and by challenges of the attacks.
    Detectors' curves and latent separation are not made again, nor is a defence asked whether it keeps a state.

    A request in the record that cannot be carried out is a finding.

    Raises:
        ConfigError: if there is no run at ``run``, or ``device`` is not there.
        StoreError: if its record is damaged.
        DatasetError: if its images cannot be loaded.
    """
    record = load_run(run)
    file = run / RESULTS if run.is_dir() else run
    digest = sha256(read_file(file)).hexdigest()
    try:
        prepared = prepare(_request(record, device=device, data_root=data_root), progress)
    except (ConfigError, TypeError) as error:
        if device == "cuda" and not torch.cuda.is_available():
            raise
        return _refused(record, digest, f"the request in the record cannot be carried out: {error}")
    auditor = _Auditor(record, prepared, EvidenceReader(record, prepared, evidence_store(file.parent)))
    if auditor.ground_holds():
        auditor.check_clean(progress)
        auditor.check_cells()
        auditor.check_trials(progress)
        auditor.check_flags()
    return auditor.report(digest)


def _request(record: RunRecord, *, device: DeviceName, data_root: Path | None) -> RunRequest:
    """Return the request in the record; raises ConfigError if no run can be asked for that."""
    words = record.manifest.request
    request = RunRequest.from_json(words, device=device, data_root=data_root)
    try:
        TypeAdapter(RunRequest).validate_json(json.dumps(words), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}") from error
    return request


def _refused(record: RunRecord, results_sha256: str, finding: str) -> AuditReport:
    """Return the report on a record of which nothing can be re-scored."""
    checked = Checked(
        cells=0,
        cells_recorded=len(record.cells),
        images=0,
        evidence=0,
        evidence_made_again=0,
        evidence_in_part=0,
        outcomes_unchecked=0,
    )
    return AuditReport(
        findings=(finding,),
        summary=summarised(checked, findings=1, other_code=False),
        rounded=(),
        checked=checked,
        results_sha256=results_sha256,
    )


@final
class _Auditor:
    def __init__(self, record: RunRecord, prepared: Prepared, reader: EvidenceReader) -> None:
        self._findings: list[str] = []
        self._record = record
        self._prepared = prepared
        self._reader = reader
        self._clean = CleanAnswers(prepared)
        self._rescorer = Rescorer(prepared, reader, self._clean)
        self._rounded: list[RoundedCell] = []
        self._cells = 0
        self._images = 0
        self._unchecked = 0
        self._other_code = False

    def report(self, results_sha256: str) -> AuditReport:
        """Return the report on the audit."""
        findings = (*self._findings, *self._reader.findings)
        checked = Checked(
            cells=self._cells,
            cells_recorded=len(self._record.cells),
            images=self._images,
            evidence=len(self._reader.read),
            evidence_made_again=len(self._reader.made_again),
            evidence_in_part=len(self._reader.in_part),
            outcomes_unchecked=self._unchecked,
        )
        return AuditReport(
            findings=findings,
            summary=summarised(checked, findings=len(findings), other_code=self._other_code),
            rounded=tuple(self._rounded),
            checked=checked,
            results_sha256=results_sha256,
        )

    def ground_holds(self) -> bool:
        """Return whether dataset, images, weights and attacks are those of the manifest."""
        self._findings.extend(ground_problems(self._record, self._prepared))
        # The same words, data, weights and attacks: what else goes into the digest is this package.
        holds = not self._findings
        self._other_code = holds and self._record.manifest.plan_digest != self._prepared.plan_digest
        return holds

    def check_clean(self, progress: Progress) -> None:
        """Ask every defence for its answers to the clean images, and compare what the record says of them."""
        task = progress.start("clean images", len(self._prepared.subjects.defenses))
        for name in self._prepared.subjects.defenses:
            self._findings.extend(self._clean.problems(name, self._record.manifest.defenses[name]))
            task.advance(note=name)

    def check_cells(self) -> None:
        """Compare cells and evidence with the plan, and the numbers of each cell with one another."""
        self._findings.extend(cell_problems(self._record, self._prepared, self._rules()))
        self._findings.extend(evidence_problems(self._record, self._prepared))
        for cell in self._record.cells:
            defense = self._record.manifest.defenses.get(cell.defense)
            found = record_problems(cell, defense, n=len(self._prepared.images))
            self._findings.extend(f"{cell.key}: {problem}" for problem in found)

    def check_trials(self, progress: Progress) -> None:
        """Re-score every cell that has a number."""
        task = progress.start("re-scoring", len(self._prepared.plan.trials))
        planned, dataset = planned_cells(self._prepared, self._rules()), self._prepared.subjects.dataset.name
        scored = [
            (cell, planned.get(cell.key.with_dataset(dataset))) for cell in self._record.cells if cell.status == "ok"
        ]
        for trial in self._prepared.plan.trials:
            for budget in trial.budgets:
                cells = [cell for cell, planned_as in scored if planned_as is trial and cell.key.budget == budget]
                if cells:
                    self._check_budget(trial, budget, cells)
            task.advance(note=f"{trial.defense} {trial.threat_model} {trial.attack}")

    def check_flags(self) -> None:
        """Find flags that were left out; of numbers that do not hold anyway, nothing is asked."""
        if not self._findings and not self._reader.findings:
            self._findings.extend(flag_problems(self._record, self._prepared, self._rules()))

    def _rules(self) -> dict[str, tuple[str, ...]]:
        return {name: self._clean.rules(name) for name in self._prepared.subjects.defenses}

    def _check_budget(self, trial: Trial, budget: Budget, cells: Sequence[CellRecord]) -> None:
        try:
            parts = self._rescorer.rescored(trial, budget)
        except EvidenceError as error:
            self._findings.append(f"{cells[0].key}: {error}")
            return
        for cell in cells if parts else ():
            if cell.decision in parts[0]:
                self._check_cell(cell, joined([part[cell.decision] for part in parts]))

    def _check_cell(self, cell: CellRecord, now: Rescored) -> None:
        name = str(cell.key)
        self._cells += 1
        self._images += int(now.covered.sum())
        self._unchecked += int((~now.covered).sum())
        if now.covered.all():
            self._rounded.append(_rounded_cell(name, now))
        if is_whole(cell, self._record.manifest.defenses[cell.defense], n=now.n):
            indices, evidence = self._record.manifest.dataset.indices, self._record.evidence
            self._findings.extend(f"{name}: {problem}" for problem in problems(cell, now, indices))
            gone = left_out_problems(cell, self._reader.in_part, evidence, indices)
            self._findings.extend(f"{name}: {problem}" for problem in gone)


def _rounded_cell(name: str, now: Rescored) -> RoundedCell:
    before, after = now.survival, now.rounded_survival
    return RoundedCell(
        cell=name,
        robust_accuracy=float(before.mean()),
        rounded_robust_accuracy=float(after.mean()),
        changed=int(((before > 0.5) != (after > 0.5)).sum()),
    )
