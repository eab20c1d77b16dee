"""Comparison of a run with a reference, cell by cell and image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

from dkd_bench.check._decide import Decision, Rule, Sample, decide, holm
from dkd_bench.check._records import Reference, ReferenceCell
from dkd_bench.check._reference import (
    attack_digest,
    cells_with_a_number,
    check_usable,
    dataset_of,
    flags_of,
    shares_of,
)
from dkd_bench.check._report import CellVerdict, CheckReport, Side, Verdict
from dkd_bench.errors import DatasetError, EvidenceError, FieldName, PluginError, Sentence, StoreError
from dkd_bench.records import CellKey, Fraction, RunRecord
from dkd_bench.records.environment import environment_changes, environment_of
from dkd_bench.records.rundir import LoadedRun, as_loaded
from dkd_bench.records.statistics import paired_difference

DEFAULT = Rule()


class Replay(Protocol):
    """Function that shows old evidence to new weights."""

    def __call__(self, cell: ReferenceCell, run: int) -> Sequence[Fraction]:
        """Return for each image the share of draws that the new defence survives of what run ``run`` crafted.

        Raises:
            EvidenceError: if the evidence is not at hand, or is not the reference's.
            StoreError: if a file of it is damaged.
            DatasetError: if the images cannot be loaded.
            PluginError: if the defence fails.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replayed:
    sample: Sample | None
    problem: str
    """Reason why there is no sample; empty where there is one."""


def compare(
    reference: Reference,
    run: RunRecord | LoadedRun,
    *,
    alpha: float = DEFAULT.alpha,
    tolerance: float = DEFAULT.tolerance,
    strict_environment: bool = False,
    replay: Replay | None = None,
) -> CheckReport:
    """Return a verdict for each cell of ``reference``.

    Args:
        reference: one run, or several under other training seeds; worse is what is worse than every one of them.
        run: the run to check: its record, or as it was loaded.
        alpha: how likely a false alarm is at most, over all cells together.
        tolerance: a drop of no more than this is no regression.
        strict_environment: compare nothing that was computed elsewhere: by another torch, processor, device.
        replay: shows the reference's evidence to the run's weights where the attack changed; without one, which
            side moved is known only where the weights are the same.

    Raises:
        ConfigError: if ``alpha`` or ``tolerance`` is out of range, a cell stands twice in the run, or the run does
            not describe its attacks.
        IncompleteRunError: if the run is incomplete, or its verification does not bear it out.
        StoreError: if its outcomes are not one for each image.
    """
    rule = Rule(alpha=alpha, tolerance=tolerance)
    loaded = as_loaded(run)
    check_usable(loaded, called="the run")
    checked = _Check(reference, loaded.record, rule, replay)
    environment = checked.environment()
    return CheckReport(
        alpha=alpha,
        tolerance=tolerance,
        cells=checked.verdicts(refused=environment if strict_environment else ()),
        new_cells=checked.new_cells(),
        environment=environment,
        warnings=checked.warnings(),
    )


@final
class _Check:
    def __init__(self, reference: Reference, record: RunRecord, rule: Rule, replay: Replay | None) -> None:
        self._reference = reference
        self._record = record
        self._rule = rule
        self._replay = replay
        self._numbers = cells_with_a_number(record, dataset=reference.dataset.name)

    def verdicts(self, *, refused: Sequence[str]) -> tuple[CellVerdict, ...]:
        """Return one for each cell of the reference, in its order; ``refused`` is why nothing may be compared."""
        other = self._other_images()
        if refused:
            other = Sentence(
                f"the environment is another one ({', '.join(refused)}); make the run where the reference was made, or "
                "check without ",
                FieldName("strict_environment"),
            )
        if other:
            return tuple(self._verdict(cell, "not comparable", other) for cell in self._reference.cells)
        found: dict[CellKey, CellVerdict] = {}
        comparable: list[ReferenceCell] = []
        changed: list[ReferenceCell] = []
        for cell in self._reference.cells:
            if cell.key not in self._numbers:
                found[cell.key] = self._verdict(cell, "missing", self._why_missing(cell.key))
            elif attack_digest(self._record, cell.key.attack) == cell.attack_digest:
                comparable.append(cell)
            else:
                changed.append(cell)
        decisions = decide([self._sample(cell) for cell in comparable], self._rule)
        for cell, decision in zip(comparable, decisions, strict=True):
            found[cell.key] = self._compared(cell, decision)
        found |= self._attack_changed(changed)
        return tuple(found[cell.key] for cell in self._reference.cells)

    def new_cells(self) -> tuple[CellKey, ...]:
        """Return the cells that only the run has."""
        known = {cell.key for cell in self._reference.cells}
        return tuple(key for key in self._numbers if key not in known)

    def environment(self) -> tuple[str, ...]:
        """Return the parts of the environment that differ from those of every run of the reference."""
        manifest = self._record.manifest
        now = environment_of(versions=manifest.versions, device=manifest.device, recorded=manifest.environment)
        before = [
            environment_of(versions=run.versions, device=run.device, recorded=run.environment)
            for run in self._reference.runs
        ]
        return environment_changes(before, now)

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each flag that the run raises and no run of the reference did."""
        sentences = []
        for name in dict.fromkeys(cell.key.defense for cell in self._reference.cells):
            before = {flag for run in self._reference.runs if name in run.defenses for flag in run.defenses[name].flags}
            sentences += [
                f"{name} raises the flag {flag!r}, which it did not in the reference: its numbers may flatter, and an "
                f"improvement may be none; see 'dkd-bench explain \"{flag}\"'"
                for flag in flags_of(self._record, name)
                if flag not in before
            ]
        return tuple(sentences)

    def _other_images(self) -> Sentence:
        """Return why the images are others than the reference's; empty if they are the same."""
        here, there = dataset_of(self._record), self._reference.dataset
        if here.digest != there.digest:
            told = f"the run is on other data: {here.name!r} {here.digest[:8]}, not {there.name!r} {there.digest[:8]}"
            return Sentence(told)
        if here.n != there.n:
            return Sentence(
                f"the run attacked {here.n} images, the reference {there.n}; use the same ", FieldName("n_examples")
            )
        if here.indices_sha256 != there.indices_sha256:
            same = FieldName("n_examples"), " and ", FieldName("seed")
            return Sentence("the run attacked other images of the same data; use the same ", *same)
        return Sentence()

    def _why_missing(self, key: CellKey) -> Sentence:
        for cell in self._record.cells:
            if cell.key.with_dataset(key.dataset) == key:
                return Sentence(f"the run has no number: {cell.reason or cell.status}")
        return Sentence("the run does not have this cell; run it with the command of the reference")

    def _sample(self, cell: ReferenceCell) -> Sample:
        new = shares_of(self._numbers[cell.key], n=self._reference.dataset.n)
        pairs = [(new, reference) for reference in self._reference.shares(cell)]
        return Sample(pairs=pairs, training=cell.key.defense)

    def _verdict(self, cell: ReferenceCell, verdict: Verdict, detail: Sentence) -> CellVerdict:
        return CellVerdict(key=cell.key, verdict=verdict, detail=detail, n=self._reference.dataset.n)

    def _compared(self, cell: ReferenceCell, decision: Decision) -> CellVerdict:
        return CellVerdict(
            key=cell.key,
            verdict=decision.verdict,
            detail=Sentence(),
            n=self._reference.dataset.n,
            reference_accuracy=decision.reference_accuracy,
            new_accuracy=decision.new_accuracy,
            difference=decision.difference.value,
            ci95=decision.difference.ci95,
            p_value=decision.p_value,
            p_corrected=decision.p_corrected,
        )

    def _attack_changed(self, cells: Sequence[ReferenceCell]) -> dict[CellKey, CellVerdict]:
        """Return the verdicts of cells whose attack is another one, with whose doing the difference is."""
        numbers = decide([self._sample(cell) for cell in cells], self._rule)
        replayed = {cell.key: self._replayed(cell) for cell in cells if not self._same_weights(cell.key.defense)}
        samples = {key: each.sample for key, each in replayed.items() if each.sample is not None}
        decisions = dict(zip(samples, decide(list(samples.values()), self._rule), strict=True))
        p_less = {key: _p_less(sample) for key, sample in samples.items()}
        corrected = dict(zip(p_less, holm(list(p_less.values())), strict=True))
        found = {}
        for cell, number in zip(cells, numbers, strict=True):
            decision = decisions.get(cell.key)
            moved, detail = _side(replayed.get(cell.key), decision)
            found[cell.key] = self._compared(cell, number).model_copy(
                update={
                    "verdict": "attack changed",
                    "detail": Sentence(detail),
                    "moved": moved,
                    "old_evidence_before": decision.reference_accuracy if decision else None,
                    "old_evidence_now": decision.new_accuracy if decision else None,
                    "p_value": p_less.get(cell.key),
                    "p_corrected": corrected.get(cell.key),
                }
            )
        return found

    def _same_weights(self, defense: str) -> bool:
        here = self._record.manifest.defenses.get(defense)
        runs = self._reference.runs
        return here is not None and any(
            defense in run.defenses and run.defenses[defense].weights_sha256 == here.weights_sha256 for run in runs
        )

    def _replayed(self, cell: ReferenceCell) -> _Replayed:
        """Return the new defence's outcomes on the evidence of each run of the reference that it is at hand of.

        Each is paired with what that very run recorded of it.
        """
        if self._replay is None:
            return _Replayed(sample=None, problem="the old evidence was not looked for; 'dkd-bench check' does")
        pairs, problems = [], []
        for run, recorded in enumerate(self._reference.shares(cell)):
            try:
                pairs.append((tuple(self._replay(cell, run)), recorded))
            except (EvidenceError, StoreError, DatasetError, PluginError) as error:
                problems.append(error.sentence)
        if not pairs:
            return _Replayed(sample=None, problem=problems[0])
        return _Replayed(sample=Sample(pairs=pairs, replayed=True), problem="")


def _p_less(sample: Sample) -> float:
    """Return the p-value of less old evidence being survived, of all runs the largest, whatever the verdict is."""
    return max(paired_difference(new, before, alternative="less").p_value for new, before in sample.pairs)


def _side(replayed: _Replayed | None, decision: Decision | None) -> tuple[Side, str]:
    """Return the side that moved, and the sentence; ``replayed`` is ``None`` where the weights are the same."""
    if replayed is None:
        return "attack", "the attack is another one, the defence the same to the last weight"
    if decision is None:
        told = Sentence("attack and weights are others, and which side moved is unknown: ", replayed.problem)
        return "unknown", told
    stood = f"of the old evidence it survives {decision.new_accuracy:.1%}, {decision.reference_accuracy:.1%} before"
    if decision.verdict == "regressed":
        return "defense", f"the attack is another one, but the defence is weaker too: {stood}"
    if decision.verdict == "improved":
        return "attack", f"the attack is another one; the defence stands the old evidence better than before: {stood}"
    if decision.new_accuracy >= decision.reference_accuracy:
        return "attack", f"the attack is another one; the defence stands the old evidence no worse than before: {stood}"
    return "attack", f"the attack is another one, and nothing says that the defence is weaker: {stood}"
