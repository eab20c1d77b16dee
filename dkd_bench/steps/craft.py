"""Craft: every attack that the plan wants, each once; trials come out as soon as their evidence is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, final

from dkd_bench.errors import AttackError, EvidenceError
from dkd_bench.executors.local import remaining_crafts
from dkd_bench.executors.remaining import RemainingCrafts
from dkd_bench.progress import Progress, Task
from dkd_bench.steps.crafter import Crafter, Evidence
from dkd_bench.steps.plan import Craft, Plan, Trial
from dkd_bench.steps.prepare import Prepared
from dkd_bench.steps.targets import Targets

Executor: TypeAlias = Callable[[Prepared, Crafter], Iterator[tuple[Craft, int]]]
"""Puts crafts into the store of a crafter, in any order, and yields each that appears, with the number of its chunk.

It may leave out any; what is missing when it ends is made by the run itself.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CraftedTrial:
    """Trial of the plan whose crafts were all made, or could not be."""

    position: int
    """Position in the plan."""
    trial: Trial
    failure: AttackError | EvidenceError | None = None
    """Reason why a craft could not be made; its cells have no number then."""


def no_executor(prepared: Prepared, crafter: Crafter) -> Iterator[tuple[Craft, int]]:
    """Make nothing ahead: every craft is made by the run itself, when its trial is due."""
    return iter(())


def craft(
    prepared: Prepared, crafter: Crafter, progress: Progress, *, ahead: Executor = no_executor
) -> Iterator[CraftedTrial]:
    """Make every craft of the plan, and yield each trial as soon as all of its crafts are there.

    A failing attack is no error of this step: the trials that wanted it say why.

    Args:
        prepared: the run's plan, with its images, attacks and targets.
        crafter: makes evidence, or finds it.
        progress: where crafting reports to.
        ahead: makes crafts before the run asks for them, several side by side.

    Raises:
        StoreError: if a file cannot be written, or is damaged.
    """
    plan = prepared.plan
    report = _Report(prepared.targets, plan, remaining_crafts(prepared, crafter), progress)
    waiting = dict(enumerate(plan.trials))
    for made, number in ahead(prepared, crafter):
        found = crafter.find(made.keys[number])
        if found is not None:
            report.crafted(made, number, found)
        for position in [place for place, trial in waiting.items() if trial.crafts and crafter.has_all(trial)]:
            yield CraftedTrial(position=position, trial=waiting.pop(position))
    failures: dict[tuple[str, ...], AttackError | EvidenceError] = {}
    for position, trial in waiting.items():
        for each in trial.crafts.values():
            if each.keys not in failures:
                try:
                    _make(each, prepared, crafter, report)
                except (AttackError, EvidenceError) as error:
                    failures[each.keys] = error
        failed = (failures[each.keys] for each in trial.crafts.values() if each.keys in failures)
        yield CraftedTrial(position=position, trial=trial, failure=next(failed, None))


def _make(craft: Craft, prepared: Prepared, crafter: Crafter, report: _Report) -> None:
    for chunk in prepared.images.chunks():
        made = crafter.evidence(craft, prepared.attacks[craft.attack], prepared.targets.target(craft), chunk)
        report.crafted(craft, chunk.number, made)


@final
class _Report:
    """Log of each chunk crafted, once: how many images it broke, and how long it took."""

    def __init__(self, targets: Targets, plan: Plan, remaining: RemainingCrafts, progress: Progress) -> None:
        self._targets = targets
        self._remaining = remaining
        self._progress = progress
        self._told: set[str] = set()
        self._tasks: dict[tuple[str, ...], Task] = {}
        self._all = progress.start("crafts", sum(len(craft.keys) for craft in plan.crafts))

    def crafted(self, craft: Craft, number: int, evidence: Evidence) -> None:
        key = craft.keys[number]
        if key in self._told:
            return
        self._told.add(key)
        called = self._targets.networks[craft.target].called
        if craft.keys not in self._tasks:
            description = f"{craft.attack} {craft.budget} on {called}"
            self._tasks[craft.keys] = self._progress.start(description, len(craft.keys))
        note = f"{evidence.broken} of {len(evidence.images)} broken, crafted in {evidence.wall_time_s:.1f} s"
        self._tasks[craft.keys].advance(note=note)
        self._remaining.made(key, evidence.wall_time_s)
        self._all.advance(note=f"last: {craft.attack} on {called}", seconds_left=self._remaining.seconds_left)
