"""Doubts: reasons not to believe a number or a whole defence, gathered by one function that run and verify call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from dkd_bench.doubts.answers import probe
from dkd_bench.doubts.challenges import Challenger
from dkd_bench.doubts.contradictions import contradictions
from dkd_bench.errors import PluginError
from dkd_bench.progress import Progress
from dkd_bench.records import CellKey, CellRecord, EvidenceRecord, FlagRecord
from dkd_bench.records.flags import INTERRUPTED, NOT_ADAPTIVE, NOT_ADMITTED, RANDOM
from dkd_bench.steps.crafter import Crafter
from dkd_bench.steps.prepare import Prepared
from dkd_bench.steps.scoring import decided

Source = Literal["answers", "numbers", "challenges", "run"]
"""Origin of a doubt: clean answers, cells that contradict each other, attacking again, or how the run went."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Flag, with what it concerns."""

    flag: FlagRecord
    source: Source
    defense: str
    cell: CellKey | None = None
    """Cell whose number it casts doubt on; ``None`` for every number of the defence."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """Doubts in the numbers of a run."""

    raised: tuple[Doubt, ...] = ()
    failed: bool = False
    """Whether a challenge could not be carried out; the others were."""
    unused: frozenset[str] = frozenset()
    """Keys of crafts that challenges made and no cell uses."""

    def on_cell(self, cell: CellRecord) -> CellRecord:
        """Return ``cell`` with the flags that concern its number."""
        flags = [doubt.flag for doubt in self.raised if doubt.cell == cell.key]
        return cell.model_copy(update={"flags": (*cell.flags, *flags)}) if flags else cell

    def on_defense(self, name: str) -> tuple[FlagRecord, ...]:
        """Return the flags that concern a defence as a whole."""
        return tuple(doubt.flag for doubt in self.raised if doubt.cell is None and doubt.defense == name)


def doubt_unattacked(
    prepared: Prepared, cells: Sequence[CellRecord], evidence: Mapping[str, EvidenceRecord]
) -> Iterator[Doubt]:
    """Yield the doubts for which nothing has to be attacked: by clean answers, and by the cells themselves.

    Args:
        prepared: the run's defences and attacks.
        cells: of the whole plan.
        evidence: that they rest on, by key.
    """
    for name in prepared.subjects.defenses:
        for flag in (*_probed(prepared, name), *_gaps(prepared, name)):
            yield Doubt(flag=flag, source="answers", defense=name)
    attacks = {name: attack.meta for name, attack in prepared.attacks.items()}
    threat_models = {name: threat_model.meta for name, threat_model in prepared.threat_models.items()}
    for cell, flag in contradictions(cells, attacks, threat_models, evidence):
        yield Doubt(flag=flag, source="numbers", defense=cell.defense, cell=cell.key)


def doubt(
    prepared: Prepared,
    cells: Sequence[CellRecord],
    evidence: Mapping[str, EvidenceRecord],
    crafter: Crafter,
    progress: Progress,
    *,
    challenged: bool = True,
) -> Doubts:
    """Return every doubt in the numbers of a run: by clean answers, by the cells, and by attacking again.

    Args:
        prepared: the run's defences, images and attacks.
        cells: of the whole plan, in its order: of equal cells the first is attacked again.
        evidence: that they rest on, by key.
        crafter: makes what the challenges need, or finds it.
        progress: where challenging reports to.
        challenged: whether anything is attacked again.
    """
    unattacked = list(doubt_unattacked(prepared, cells, evidence))
    if not challenged:
        return Doubts(raised=tuple(unattacked))
    challenger = Challenger(prepared, crafter)
    task = progress.start("challenging the attacks", len(prepared.subjects.defenses))
    attacked: list[Doubt] = []
    failed = False
    for name in prepared.subjects.defenses:
        found = challenger.challenge(name, [cell for cell in cells if cell.defense == name])
        failed = failed or found.failed
        attacked += [
            Doubt(flag=each.flag, source="challenges", defense=name, cell=None if each.cell is None else each.cell.key)
            for each in found.raised
        ]
        task.advance(note=name)
    return Doubts(raised=_in_order(unattacked, attacked), failed=failed, unused=frozenset(challenger.keys))


def doubt_interrupted(
    prepared: Prepared, cells: Sequence[CellRecord], evidence: Mapping[str, EvidenceRecord]
) -> Doubts:
    """Return the doubts in a run that was interrupted before its attacks were challenged."""
    flag = FlagRecord(name=INTERRUPTED, detail="before its attacks were challenged")
    interrupted = [Doubt(flag=flag, source="run", defense=name) for name in prepared.subjects.defenses]
    return Doubts(raised=_in_order(list(doubt_unattacked(prepared, cells, evidence)), interrupted))


def doubt_state(prepared: Prepared, first: Mapping[str, Mapping[str, Tensor]]) -> Iterator[Doubt]:
    """Ask the first questions again: a defence that has learnt from the attacks answers otherwise now, or fails.

    Args:
        prepared: the run's defences and images.
        first: what each defence answered to the first chunk before any attack, by decision rule.
    """
    for name, each in prepared.subjects.defenses.items():
        if each.defense.meta.randomized or each.defense.meta.optimizes:
            continue
        images = prepared.images.chunk(0).images
        try:
            again = decided(each.defense, images, seed=prepared.request.seed)
        except PluginError as error:
            flag = FlagRecord(name=NOT_ADMITTED, detail=f"asked again after the attacks: {error}")
            yield Doubt(flag=flag, source="run", defense=name)
            continue
        changed = max(int((again[rule] != labels).sum()) for rule, labels in first[name].items())
        if changed:
            detail = f"{changed} clean images are answered otherwise after the attacks than before"
            flag = FlagRecord(name=RANDOM, detail=detail, share=changed / len(images))
            yield Doubt(flag=flag, source="run", defense=name)


def _in_order(unattacked: Sequence[Doubt], attacked: Sequence[Doubt]) -> tuple[Doubt, ...]:
    """Return the doubts in the order in which records hold them: of answers, of attacks, then of numbers."""
    return (
        *(each for each in unattacked if each.source == "answers"),
        *attacked,
        *(each for each in unattacked if each.source == "numbers"),
    )


def _probed(prepared: Prepared, name: str) -> tuple[FlagRecord, ...]:
    try:
        return probe(prepared.subjects.defenses[name].defense, prepared.subjects.trainer.probe)
    except Exception as error:
        detail = f"its surrogates fail when they are probed: {type(error).__name__}: {error}"
        return (FlagRecord(name=NOT_ADMITTED, detail=detail),)


def _gaps(prepared: Prepared, name: str) -> tuple[FlagRecord, ...]:
    """Return the flag of a defence that rejects images, where the adversary who sees the whole ignored that."""
    seeing = {name for name, threat_model in prepared.threat_models.items() if threat_model.meta.sees_whole}
    whole = [each for each in prepared.plan.trials if each.defense == name and each.threat_model in seeing]
    if not prepared.subjects.defenses[name].defense.meta.abstains or not whole:
        return ()
    looked_at = any(prepared.attacks[trial.attack].meta.access == "detectors" for trial in whole)
    if "detectors" in prepared.targets.offers[name] and looked_at:
        return ()
    return (FlagRecord(name=NOT_ADAPTIVE, detail="it rejects images, and no attack looked at its detectors"),)
