"""The audit behind ``dkd-bench verify``: evidence on disk, re-scored against the record, image by image.

It knows the run only by its folder. How outcomes are counted is written here once more, on purpose: an error
in ``score`` must not be able to confirm itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from dkd_bench.budget import Budget
from dkd_bench.craft import Chunk
from dkd_bench.defense import ABSTAIN, NO_MAJORITY, Defense
from dkd_bench.digests import digest_tensors
from dkd_bench.errors import AttackError, EvidenceError, StoreError
from dkd_bench.plan import Craft, Trial
from dkd_bench.prepare import Workbench, prepare
from dkd_bench.progress import Progress
from dkd_bench.records import SURVIVED, CellRecord, Outcome, RunRecord
from dkd_bench.request import DeviceName, RunRequest
from dkd_bench.rundir import evidence_store, load_run
from dkd_bench.score import SCORING_DRAWS
from dkd_bench.store import TensorStore
from dkd_bench.verify import check_images

CellKey = tuple[str, str, str, str, str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What an audit found."""

    findings: tuple[str, ...]
    """One sentence for each thing that is wrong; empty if all holds."""
    summary: str


def audit(run: Path, *, device: DeviceName, data_root: Path | None, progress: Progress) -> AuditReport:
    """Re-score the evidence of the run in folder ``run`` and compare with its record.

    Evidence that the run did not keep is made again from its key; of evidence kept for broken images only,
    those images are re-scored.

    Raises:
        ConfigError: if there is no run at ``run``.
        StoreError: if its record is damaged.
        DatasetError: if its images cannot be loaded.
    """
    record = load_run(run)
    request = RunRequest.from_json(record.manifest.request, device=device, data_root=data_root)
    bench = prepare(request, progress)
    folder = run if run.is_dir() else run.parent
    auditor = _Auditor(record, bench, evidence_store(folder))
    auditor.check_ground()
    if not auditor.findings:
        auditor.check_trials(progress)
    return AuditReport(findings=tuple(auditor.findings), summary=auditor.summary())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """Evidence of one chunk, and the rows of the chunk it covers."""

    images: Tensor
    """Shape ``(n, C, H, W)`` for the whole chunk; rows not covered hold the clean image."""
    covered: Tensor
    """bool, shape ``(n,)``."""


@final
class _Auditor:
    def __init__(self, record: RunRecord, bench: Workbench, store: TensorStore) -> None:
        self.findings: list[str] = []
        self._record = record
        self._bench = bench
        self._store = store
        self._cells = {_cell_key(cell): cell for cell in record.cells}
        self._checked_cells = 0
        self._checked_images = 0
        self._refused: set[str] = set()

    def summary(self) -> str:
        """Return one sentence on what was checked."""
        found = f"{len(self.findings)} findings" if self.findings else "all of it as recorded"
        return (
            f"re-scored {self._checked_cells} of {len(self._record.cells)} cells, "
            f"{self._checked_images} images against their outcomes: {found}"
        )

    def check_ground(self) -> None:
        """Compare dataset, images and weights with the manifest."""
        manifest, trained = self._record.manifest, self._bench.trained
        self._expect("dataset digest", manifest.dataset.digest, trained.dataset_digest)
        self._expect("positions of the images", manifest.dataset.indices, tuple(self._bench.indices.tolist()))
        for name, defense in manifest.defenses.items():
            here = trained.defenses.get(name)
            found = here.sha256 if here else trained.failures.get(name, "no such defence")
            self._expect(f"weights digest of {name!r}", defense.weights_sha256, found)

    def check_trials(self, progress: Progress) -> None:
        """Re-score every cell that has a number."""
        task = progress.start("re-scoring", len(self._bench.plan.trials))
        for trial in self._bench.plan.trials:
            scored = [key for key, cell in self._cells.items() if _belongs(cell, trial) and cell.status == "ok"]
            if scored:
                self._check_trial(trial, [self._cells[key] for key in scored])
            task.advance(note=f"{trial.defense} {trial.threat_model} {trial.attack}")

    def _check_trial(self, trial: Trial, cells: list[CellRecord]) -> None:
        defense = self._bench.trained.defenses[trial.defense].defense
        counts = {_cell_key(cell): _Count(cell, abstains=defense.meta.abstains) for cell in cells}
        for chunk in self._bench.chunks():
            kept = {name: self._kept(craft, chunk) for name, craft in trial.crafts.items()}
            whole = {name: each for name, each in kept.items() if each is not None}
            if len(whole) < len(kept):
                return
            covered = torch.stack([each.covered for each in whole.values()]).all(dim=0)
            clean = _answers(defense, chunk.images, seed=self._bench.request.seed)
            for budget in trial.budgets:
                here = [cell for cell in cells if (cell.norm, cell.eps) == (budget.norm, budget.eps)]
                answers = self._candidate_answers(trial, budget, chunk, whole)
                for cell in here:
                    by_candidate = [each[cell.decision] for each in answers]
                    counts[_cell_key(cell)].add(chunk, covered, clean[cell.decision], by_candidate)
        for cell in cells:
            count = counts[_cell_key(cell)]
            self._checked_cells += 1
            self._checked_images += count.compared
            self.findings.extend(f"{_called(cell)}: {problem}" for problem in count.problems())

    def _candidate_answers(
        self, trial: Trial, budget: Budget, chunk: Chunk, kept: Mapping[str, _Kept]
    ) -> list[dict[str, Tensor]]:
        defense = self._bench.trained.defenses[trial.defense].defense
        threat_model = self._bench.threat_models[trial.threat_model]
        crafted = {name: each.images.to(chunk.images.device) for name, each in kept.items()}
        return [
            _answers(defense, images, seed=self._bench.request.seed)
            for _, images in threat_model.candidates(chunk.images, crafted, budget)
        ]

    def _kept(self, craft: Craft, chunk: Chunk) -> _Kept | None:
        """Return checked evidence, or ``None`` after reporting what is wrong with it."""
        key = craft.keys[chunk.number]
        if key in self._refused:
            return None
        try:
            return self._load(key, craft, chunk)
        except (EvidenceError, StoreError, AttackError) as error:
            self._refused.add(key)
            self.findings.append(str(error))
            return None

    def _load(self, key: str, craft: Craft, chunk: Chunk) -> _Kept:
        recorded = self._record.evidence.get(key)
        if recorded is None:
            raise EvidenceError(
                f"evidence {key} is wanted by the plan but not in the record; the run was made otherwise"
            )
        source = f"evidence {key} ({recorded.attack} on {recorded.target}, chunk {chunk.number})"
        found = self._store.get_with_metadata(key)
        clean = chunk.images.cpu()
        if found is None:
            images, rows, digest = self._made_again(key, craft, chunk), None, None
        else:
            tensors, metadata = found
            images, rows = tensors["adversarial"], tensors.get("rows")
            digest = metadata.get("of_sha256") if rows is not None else None
        digest = digest or digest_tensors({"adversarial": images})
        if digest != recorded.sha256:
            raise EvidenceError(
                f"{source}: expected digest {recorded.sha256}, got {digest}; the images are not the run's"
            )
        covered = torch.ones(len(clean), dtype=torch.bool)
        if rows is not None:
            covered = torch.zeros(len(clean), dtype=torch.bool).index_fill(0, rows, value=True)
            images = clean.index_copy(0, rows, images)
        check_images(clean, images, craft.budget, source=source)
        return _Kept(images=images, covered=covered)

    def _made_again(self, key: str, craft: Craft, chunk: Chunk) -> Tensor:
        attack, target = self._bench.attacks[craft.attack], self._bench.target(craft)
        return attack.run(target, chunk.images, chunk.labels, craft.budget, seed=int(key[:15], 16)).cpu()

    def _expect(self, what: str, expected: object, found: object) -> None:
        if expected != found:
            self.findings.append(f"{what}: the record says {_short(expected)}, here it is {_short(found)}")


@final
class _Count:
    """Compares the outcomes of one cell with what the defence answers now."""

    def __init__(self, cell: CellRecord, *, abstains: bool) -> None:
        self.compared = 0
        self._cell = cell
        self._abstains = abstains
        self._seen = 0
        self._differing: list[int] = []
        self._survival = 0.0
        self._failed = 0
        self._whole = True

    def add(self, chunk: Chunk, covered: Tensor, clean: Tensor, candidates: list[Tensor]) -> None:
        """Compare one chunk; answers have shape ``(draws, N)``."""
        truth = chunk.labels.cpu()
        stands = clean == truth
        failed = torch.zeros_like(truth, dtype=torch.bool)
        shares = []
        for answers in candidates:
            held = answers == truth
            if self._abstains:
                held = held | (answers == ABSTAIN)
            shares.append((held & stands).double().mean(dim=0))
            failed |= (answers == NO_MAJORITY).any(dim=0)
        survival = torch.stack(shares).amin(dim=0)
        self._survival += float(survival.sum())
        self._failed += int(failed.sum())
        self._whole = self._whole and bool(covered.all())
        if self._cell.survival is None:
            recorded = self._cell.outcomes[self._seen : self._seen + len(truth)]
            self._compare(recorded, survival > 0.5, covered)
        self._seen += len(truth)

    def _compare(self, recorded: tuple[Outcome, ...], survived: Tensor, covered: Tensor) -> None:
        for row, (outcome, now, seen) in enumerate(zip(recorded, survived.tolist(), covered.tolist(), strict=False)):
            if seen:
                self.compared += 1
                if (outcome in SURVIVED) != now:
                    self._differing.append(self._seen + row)

    def problems(self) -> list[str]:
        """Return a sentence for each thing that is not as recorded."""
        cell, problems = self._cell, []
        if len(cell.outcomes) != self._seen or cell.n != self._seen:
            problems.append(f"expected {self._seen} outcomes, the record has {len(cell.outcomes)} and n = {cell.n}")
        if self._differing:
            first = self._differing[0]
            problems.append(
                f"image {first} is recorded as {cell.outcomes[first].value}, re-scored it is not so "
                f"({len(self._differing)} such images)"
            )
        assert cell.robust_accuracy is not None, "only cells with a number are audited"
        if cell.survival is None:
            counted = sum(outcome in SURVIVED for outcome in cell.outcomes) / max(1, cell.n)
            if abs(counted - cell.robust_accuracy) > 1e-9:
                problems.append(
                    f"robust accuracy is recorded as {cell.robust_accuracy:.6g}, its outcomes count {counted:.6g}"
                )
        elif cell.ci95 is not None and not cell.ci95[0] <= self._survival / max(1, self._seen) <= cell.ci95[1]:
            problems.append(
                f"robust accuracy is recorded as {cell.robust_accuracy:.6g}, "
                f"re-scored it is {self._survival / max(1, self._seen):.6g}"
            )
        if self._whole and cell.survival is None and self._failed != cell.failed_majorities:
            problems.append(
                f"{cell.failed_majorities} failed majorities are recorded, re-scored there are {self._failed}"
            )
        return problems


@torch.no_grad()
def _answers(defense: Defense, images: Tensor, *, seed: int) -> dict[str, Tensor]:
    """Return the labels by decision rule, shape ``(draws, N)``, on the CPU."""
    answers: dict[str, list[Tensor]] = {}
    for draw in range(SCORING_DRAWS if defense.meta.randomized else 1):
        generator = torch.Generator(device=images.device).manual_seed(seed + draw)
        for rule, labels in defense.decide(images, generator=generator).items():
            answers.setdefault(rule, []).append(labels.cpu())
    return {rule: torch.stack(labels) for rule, labels in answers.items()}


def _cell_key(cell: CellRecord) -> CellKey:
    return (cell.defense, cell.decision, cell.threat_model, cell.attack, cell.norm, cell.eps)


def _belongs(cell: CellRecord, trial: Trial) -> bool:
    return (cell.defense, cell.threat_model, cell.attack) == (trial.defense, trial.threat_model, trial.attack) and any(
        (cell.norm, cell.eps) == (budget.norm, budget.eps) for budget in trial.budgets
    )


def _called(cell: CellRecord) -> str:
    return f"{cell.defense} {cell.decision}, {cell.threat_model}, {cell.attack} {Budget(norm=cell.norm, eps=cell.eps)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
