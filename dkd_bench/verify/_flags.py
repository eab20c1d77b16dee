"""Flags that are raised here, and that a record leaves out.

Nothing is counted once more by itself: probe, diagnosis and challenges are those of a run. They see only numbers and
outcomes that held before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from dkd_bench.doubts.challenges import Challenged, Challenger
from dkd_bench.doubts.contradictions import diagnosed
from dkd_bench.records import CellRecord, FlagRecord, RunRecord
from dkd_bench.steps.craft import Crafter, crafts_store
from dkd_bench.steps.prepare import Workbench
from dkd_bench.verify._structure import planned_cells


def flag_problems(record: RunRecord, bench: Workbench, rules: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield a sentence for each flag that probe, numbers or challenges raise and the record leaves out.

    Challenges are made again only of a record that says it is complete; an interrupted run may have had none.

    Args:
        record: whose cells and evidence are those of the plan, and whose numbers hold.
        bench: to probe, and to challenge.
        rules: the decision rules of each defence.
    """
    for name, flags in bench.flags.items():
        for left_out in _left_out(flags, record.manifest.defenses[name].flags):
            yield f"the flag {left_out!r} of defence {name!r} is raised here, the record leaves it out"
    attacks = {name: attack.meta for name, attack in bench.attacks.items()}
    bare = [cell.model_copy(update={"flags": ()}) if cell.status == "ok" else cell for cell in record.cells]
    for cell, again in zip(record.cells, diagnosed(bare, attacks, record.evidence), strict=True):
        for left_out in _left_out(again.flags, cell.flags):
            yield f"{cell.key}: its numbers raise the flag {left_out!r}, the record leaves it out"
    if record.complete:
        yield from _challenge_problems(record, bench, rules)


def _challenge_problems(record: RunRecord, bench: Workbench, rules: Mapping[str, Collection[str]]) -> Iterator[str]:
    challenger = Challenger(bench, Crafter(crafts_store()))
    order = {key: place for place, key in enumerate(planned_cells(bench, rules))}
    for name, defense in record.manifest.defenses.items():
        # In the plan's order, as the run challenged them: of equal cells the first is attacked again.
        cells = sorted((cell for cell in record.cells if cell.defense == name), key=lambda cell: order[cell.key])
        challenged = challenger.challenge(name, cells)
        whole = [each.flag for each in challenged.raised if each.cell is None]
        for left_out in _left_out(whole, defense.flags):
            detail = next(flag.detail for flag in whole if flag.name == left_out)
            what = "cannot be carried out here" if challenged.failed else "raise a flag here"
            yield f"challenges of defence {name!r} {what}, the record leaves out {left_out!r}: {detail}"
        for cell in cells:
            yield from _unsaid(cell, challenged)


def _unsaid(cell: CellRecord, challenged: Challenged) -> Iterator[str]:
    raised = [each.flag for each in challenged.raised if each.cell is not None and each.cell.key == cell.key]
    for left_out in _left_out(raised, cell.flags):
        detail = next(flag.detail for flag in raised if flag.name == left_out)
        yield f"{cell.key}: challenges raise the flag {left_out!r}, the record leaves it out: {detail}"


def _left_out(raised: Collection[FlagRecord], recorded: Collection[FlagRecord]) -> list[str]:
    return sorted({flag.name for flag in raised} - {flag.name for flag in recorded})
