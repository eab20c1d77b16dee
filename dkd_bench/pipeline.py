"""The run: craft, verify and score what the plan wants, and record it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import final

from torch import Tensor

from dkd_bench.defense import ABSTAIN
from dkd_bench.doubts.challenges import Challenged, Challenger
from dkd_bench.doubts.contradictions import diagnosed
from dkd_bench.errors import AttackError, ConfigError, EvidenceError, FieldName, PluginError
from dkd_bench.executors.local import crafted_ahead
from dkd_bench.plugins.suites import suite_fingerprint
from dkd_bench.progress import Progress, SilentProgress, Task
from dkd_bench.records import CellRecord, EvidenceRecord, FlagRecord, RunRecord, SeparationRecord
from dkd_bench.records.flags import INTERRUPTED, NOT_ADAPTIVE, RANDOM, UNVERIFIED, row_status
from dkd_bench.records.retention import keep_evidence
from dkd_bench.records.rundir import RESULTS, evidence_store, forget_pictures, found_fault, load_for_ranking, save_run
from dkd_bench.records.statistics import mean_interval
from dkd_bench.separation.latents import separations
from dkd_bench.steps.cells import Cost, Examined, empty_cells, scored_cell, trials_without_crafts
from dkd_bench.steps.craft import Chunk, Crafter, Evidence, crafts_store
from dkd_bench.steps.manifest import make_manifest, suite_record
from dkd_bench.steps.plan import Craft, Trial, budgets_of
from dkd_bench.steps.prepare import Workbench, prepare
from dkd_bench.steps.request import RunRequest
from dkd_bench.steps.score import TrialScorer, decided

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
    bench = prepare(request, progress)
    for reason in bench.trained.failures.values():
        log.error(reason)
    folder = request.out or Path("runs") / _default_name(bench)
    finished = _finished(bench, folder)
    if finished is not None:
        log.info("%s holds this very run; nothing to compute", folder)
        return finished, folder
    forget_pictures(folder)
    runner = Runner(bench, progress, Crafter(crafts_store()))
    try:
        runner.run_trials()
    except KeyboardInterrupt:
        save_run(runner.record(), folder)
        raise
    record = runner.record()
    keep_evidence(record, runner.crafter.store, evidence_store(folder), keep=request.evidence, unused=runner.unused)
    save_run(record, folder)
    return record, folder


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


def _default_name(bench: Workbench) -> str:
    names = [*bench.trained.defenses, *(name for name in bench.trained.failures if "/" not in name)]
    called = f"{'+'.join(names) or 'failed'}-{bench.trained.dataset.name}".replace(":", "-")
    return f"{called}-{bench.plan_digest[:8]}"


def _finished(bench: Workbench, folder: Path) -> RunRecord | None:
    """Return the record in ``folder`` if it is this very run, done; refuse to write over another request's run.

    A run of the same request under another version of the code or the data is made again in its place.
    """
    if not (folder / RESULTS).is_file():
        return None
    record = load_for_ranking(folder)
    if record.manifest.request != bench.request.as_json():
        raise ConfigError(
            f"{folder} holds another run ({record.manifest.command}); choose another ",
            FieldName("out"),
            ", or move that one away",
        )
    if record.manifest.plan_digest != bench.plan_digest:
        log.info("%s was made by other code or from other data; making it again", folder)
        return None
    if found_fault(record) is not None:
        log.warning("%s was found not to be as recorded; making it again", folder)
        return None
    kept = evidence_store(folder)
    whole = bench.request.evidence != "all" or all(kept.path(key).is_file() for key in record.evidence)
    return record if record.complete and whole else None


@final
class Runner:
    """Carries out a plan, trial by trial; what trials share is computed once."""

    def __init__(self, bench: Workbench, progress: Progress, crafter: Crafter) -> None:
        """Work on ``bench``, keep evidence by ``crafter``."""
        self.bench = bench
        self.crafter = crafter
        self._progress = progress
        self._cells: dict[int, list[CellRecord]] = {}
        self._evidence: dict[str, EvidenceRecord] = {}
        self._failed: dict[tuple[str, ...], str] = {}
        self._tasks: dict[tuple[str, ...], Task] = {}
        self._clean: dict[str, list[dict[str, Tensor]]] = {}
        self._examinations: dict[str, Examined] = {}
        self._reported: set[str] = set()
        self._separations: dict[str, SeparationRecord] = {}
        self._challenged: dict[str, Challenged] = {}
        self._challenger = Challenger(bench, crafter)
        self._all_crafts = progress.start("crafts", sum(len(craft.keys) for craft in bench.plan.crafts))

    def run_trials(self) -> None:
        """Craft and score every trial of the plan; a failing attack leaves ``error`` in its cells and no more."""
        self._separations = separations(self.bench.trained, self._progress)
        for craft, number in crafted_ahead(self.bench, self.crafter):
            made = self.crafter.find(craft.keys[number])
            if made is not None:
                self._report(craft, number, made)
        for position, trial in enumerate(self.bench.plan.trials):
            self._cells[position] = self._trial_cells(trial)
        self._challenge()

    def record(self) -> RunRecord:
        """Return the record of what was done so far; trials not reached are ``not_run``."""
        cells: list[CellRecord] = []
        for position, trial in enumerate(self.bench.plan.trials):
            if position in self._cells:
                cells += self._cells[position]
            else:
                reason = "interrupted before it was run; the same command goes on from here"
                cells += empty_cells(trial, examined=self._examined(trial.defense), status="not_run", reason=reason)
        for name, flag in self.bench.trained.failure_flags.items():
            for trial in self._trials_of_failed(name):
                examined = self._examined(name)
                cells += empty_cells(trial, examined=examined, status="error", reason=flag.detail, flags=[flag])
        cells = self._flagged(cells)
        whole = len(self._cells) == len(self.bench.plan.trials) and not self._unchallenged()
        failed = any(cell.status == "error" for cell in cells) or any(each.failed for each in self._challenged.values())
        return RunRecord(
            complete=whole and not failed,
            suite=suite_record(self.bench),
            suite_fingerprint=suite_fingerprint(
                list(self.bench.attacks.values()),
                n_classes=self.bench.trained.dataset.n_classes,
                eot_draws=self.bench.request.eot_draws,
            ),
            manifest=make_manifest(
                self.bench,
                {name: self._examined(name).clean_intervals for name in self.bench.trained.defenses},
                {name: self._examined(name).clean_rejected for name in self.bench.trained.defenses},
                self._separations,
                self._flags(),
            ),
            evidence=self._evidence,
            cells=tuple(cells),
        )

    def _trial_cells(self, trial: Trial) -> list[CellRecord]:
        examined = self._examined(trial.defense)
        if not trial.crafts:
            reason = "the defence offers no differentiable surrogate"
            flags = [FlagRecord(name=NOT_ADAPTIVE, detail=reason)]
            return empty_cells(trial, examined=examined, status="not_run", reason=reason, flags=flags)
        failed = [self._failed[craft.keys] for craft in trial.crafts.values() if craft.keys in self._failed]
        if failed:
            return empty_cells(trial, examined=examined, status="error", reason=failed[0])
        try:
            return self._scored_cells(trial, examined)
        except EvidenceError as error:
            log.error(error)
            flags = [FlagRecord(name=UNVERIFIED, detail=str(error))]
            return empty_cells(trial, examined=examined, status="error", reason=str(error), flags=flags)
        except (AttackError, PluginError) as error:
            log.error(error)
            return empty_cells(trial, examined=examined, status="error", reason=str(error))

    @property
    def unused(self) -> Collection[str]:
        """Keys of crafts that challenges made and no cell uses."""
        return self._challenger.keys

    def _challenge(self) -> None:
        """Challenge what was scored."""
        task = self._progress.start("challenging the attacks", len(self.bench.trained.defenses))
        for name in self.bench.trained.defenses:
            cells = [cell for cells in self._cells.values() for cell in cells if cell.defense == name]
            self._challenged[name] = self._challenger.challenge(name, cells)
            task.advance(note=name)

    def _unchallenged(self) -> list[str]:
        return [name for name in self.bench.trained.defenses if name not in self._challenged]

    def _flags(self) -> dict[str, tuple[FlagRecord, ...]]:
        """Return what concerns each defence as a whole."""
        interrupted = FlagRecord(name=INTERRUPTED, detail="before its attacks were challenged")
        flags = {}
        for name, probed in self.bench.flags.items():
            found = [*probed, *(raised.flag for raised in self._challenged_of(name).raised if raised.cell is None)]
            found += [interrupted] if name in self._unchallenged() else self._state(name)
            flags[name] = tuple(found)
        return flags

    def _challenged_of(self, name: str) -> Challenged:
        return self._challenged.get(name, Challenged())

    def _state(self, name: str) -> list[FlagRecord]:
        """Ask again what was asked first: a defence that has learnt from the attacks since answers otherwise."""
        defense = self.bench.trained.defenses[name].defense
        if defense.meta.randomized or defense.meta.optimizes:
            return []
        again = decided(defense, self.bench.chunk(0).images, seed=self.bench.request.seed)
        first = self._clean_answers(name)[0]
        changed = max(int((again[rule] != labels).sum()) for rule, labels in first.items())
        if not changed:
            return []
        detail = f"{changed} clean images are answered otherwise after the attacks than before"
        return [FlagRecord(name=RANDOM, detail=detail, share=changed / len(self.bench.chunk(0).images))]

    def _flagged(self, cells: list[CellRecord]) -> list[CellRecord]:
        """Return ``cells`` with what concerns each of them."""
        raised: dict[int, list[FlagRecord]] = {}
        for each in (each for found in self._challenged.values() for each in found.raised if each.cell is not None):
            raised.setdefault(id(each.cell), []).append(each.flag)
        told = [cell.model_copy(update={"flags": (*cell.flags, *raised.get(id(cell), ()))}) for cell in cells]
        attacks = {name: attack.meta for name, attack in self.bench.attacks.items()}
        threat_models = {name: each.meta for name, each in self.bench.threat_models.items()}
        return list(diagnosed(told, attacks, threat_models, self._evidence))

    def _scored_cells(self, trial: Trial, examined: Examined) -> list[CellRecord]:
        defense = self.bench.trained.defenses[trial.defense].defense
        threat_model = self.bench.threat_models[trial.threat_model]
        seed = self.bench.request.seed
        scorers = {budget: TrialScorer(defense, threat_model, budget, seed=seed) for budget in trial.budgets}
        cost = Cost()
        for chunk, clean in zip(self.bench.chunks(), self._clean_answers(trial.defense), strict=True):
            crafted = {}
            for target, craft in trial.crafts.items():
                evidence = self._chunk_evidence(craft, chunk)
                cost.add(target, craft.keys[chunk.number], evidence)
                crafted[target] = evidence.images.to(chunk.images.device)
            for scorer in scorers.values():
                scorer.add(chunk, clean, crafted)
        return [
            scored_cell(trial, budget, rule, score=score, examined=examined, cost=cost)
            for budget, scorer in scorers.items()
            for rule, score in scorer.scores().items()
        ]

    def _chunk_evidence(self, craft: Craft, chunk: Chunk) -> Evidence:
        key = craft.keys[chunk.number]
        called = self.bench.networks[craft.target][0]
        try:
            evidence = self.crafter.evidence(craft, self.bench.attacks[craft.attack], self.bench.target(craft), chunk)
        except (AttackError, EvidenceError) as error:
            self._failed[craft.keys] = str(error)
            raise
        self._report(craft, chunk.number, evidence)
        self._evidence[key] = EvidenceRecord(
            sha256=evidence.sha256,
            target=called,
            attack=craft.attack,
            norm=craft.budget.norm,
            eps=craft.budget.eps,
            chunk=chunk.number,
            n=len(evidence.images),
            broken=evidence.broken,
        )
        return evidence

    def _report(self, craft: Craft, number: int, evidence: Evidence) -> None:
        """Tell once of each chunk crafted."""
        key = craft.keys[number]
        if key in self._reported:
            return
        self._reported.add(key)
        if craft.keys not in self._tasks:
            description = f"{craft.attack} {craft.budget} on {self.bench.networks[craft.target][0]}"
            self._tasks[craft.keys] = self._progress.start(description, len(craft.keys))
        note = f"{evidence.broken} of {len(evidence.images)} broken, crafted in {evidence.wall_time_s:.1f} s"
        self._tasks[craft.keys].advance(note=note)
        self._all_crafts.advance(note=f"last: {craft.attack} on {self.bench.networks[craft.target][0]}")

    def _clean_answers(self, name: str) -> list[dict[str, Tensor]]:
        if name not in self._clean:
            defense = self.bench.trained.defenses[name].defense
            seed = self.bench.request.seed
            self._clean[name] = [decided(defense, chunk.images, seed=seed) for chunk in self.bench.chunks()]
        return self._clean[name]

    def _examined(self, name: str) -> Examined:
        if name not in self._examinations:
            self._examinations[name] = self._examine(name)
        return self._examinations[name]

    def _examine(self, name: str) -> Examined:
        right: dict[str, list[float]] = {}
        rejected: dict[str, list[float]] = {}
        if name in self.bench.trained.defenses:
            for chunk, answers in zip(self.bench.chunks(), self._clean_answers(name), strict=True):
                for rule, labels in answers.items():
                    shares = (labels == chunk.labels.cpu()).double().mean(dim=0).tolist()
                    right.setdefault(rule, []).extend(shares)
                    if self.bench.trained.defenses[name].defense.meta.abstains:
                        shares = (labels == ABSTAIN).double().mean(dim=0).tolist()
                        rejected.setdefault(rule, []).extend(shares)
        return Examined(
            dataset=self.bench.trained.dataset.name,
            n=len(self.bench.indices),
            clean_intervals={rule: mean_interval(shares) for rule, shares in right.items()},
            clean_rejected={rule: mean_interval(shares) for rule, shares in rejected.items()},
        )

    def _trials_of_failed(self, name: str) -> list[Trial]:
        attacks = [
            (attack.meta.name, budgets)
            for attack in self.bench.attacks.values()
            if attack.meta.applies_to != "randomized" and attack.meta.access == "gradients"
            for _, budgets in budgets_of(attack.meta.kind, attack.meta.norms, self.bench.budgets)
        ]
        return trials_without_crafts(name, self.bench.threat_models, attacks)
