"""Flags that are raised here, and that a record leaves out.

Nothing is counted once more by itself: the doubts are those of a run. They see only numbers and outcomes that held
before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from dkd_bench.doubts import Doubt, doubt
from dkd_bench.progress import SilentProgress
from dkd_bench.records import FlagRecord, RunRecord
from dkd_bench.steps.crafter import Crafter, crafts_store
from dkd_bench.steps.prepare import Prepared
from dkd_bench.verify._structure import planned_cells


def flag_problems(record: RunRecord, prepared: Prepared, rules: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield a sentence for each flag that clean answers, numbers or challenges raise and the record leaves out.

    Challenges are made again only of a record that says it is complete; an interrupted run may have had none.

    Args:
        record: whose cells and evidence are those of the plan, and whose numbers hold.
        prepared: products of the run's first steps, to ask and to challenge.
        rules: the decision rules of each defence.
    """
    order = {key: place for place, key in enumerate(planned_cells(prepared, rules))}
    # In the plan's order, as the run challenged them: of equal cells the first is attacked again.
    cells = sorted(record.cells, key=lambda cell: order.get(cell.key, len(order)))
    bare = [cell.model_copy(update={"flags": ()}) if cell.status == "ok" else cell for cell in cells]
    found = doubt(
        prepared, bare, record.evidence, Crafter(crafts_store()), SilentProgress(), challenged=record.complete
    )
    yield from dict.fromkeys(
        _left_out(each, where, failed=found.failed)
        for each in found.raised
        for where, recorded in (_concerned(each, record),)
        if each.flag.name not in {flag.name for flag in recorded}
    )


def _concerned(doubt: Doubt, record: RunRecord) -> tuple[str, Sequence[FlagRecord]]:
    """Return the subject of a doubt, for people, and the flags that the record has there."""
    if doubt.cell is None:
        return f"defence {doubt.defense!r}", record.manifest.defenses[doubt.defense].flags
    cell = next(cell for cell in record.cells if cell.key == doubt.cell)
    return str(cell.key), cell.flags


def _left_out(doubt: Doubt, where: str, *, failed: bool) -> str:
    name, detail = doubt.flag.name, doubt.flag.detail
    if doubt.source == "answers":
        return f"the flag {name!r} of {where} is raised here, the record leaves it out"
    if doubt.source == "numbers":
        return f"{where}: its numbers raise the flag {name!r}, the record leaves it out"
    if doubt.cell is not None:
        return f"{where}: challenges raise the flag {name!r}, the record leaves it out: {detail}"
    what = "cannot be carried out here" if failed else "raise a flag here"
    return f"challenges of {where} {what}, the record leaves out {name!r}: {detail}"
