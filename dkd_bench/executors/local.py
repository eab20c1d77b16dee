"""Crafting on several cores: worker processes fill the store, and the run then finds there what it needs.

The store is the only channel. A worker that dies, or whose attack fails, leaves its craft to the run itself,
which meets the error where it is reported.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import torch

from dkd_bench.errors import DkdBenchError
from dkd_bench.executors.remaining import RemainingCrafts, Workload, layer_count
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.crafter import Crafter
from dkd_bench.steps.plan import Craft
from dkd_bench.steps.prepare import Prepared, prepare
from dkd_bench.steps.request import RunRequest
from dkd_bench.store.files import TensorStore

SECONDS_BETWEEN_LOOKS = 0.2

Job = tuple[int, int]
"""Position of a craft in the plan, and the number of a chunk."""


def crafted_ahead(prepared: Prepared, crafter: Crafter) -> Iterator[tuple[Craft, int]]:
    """Craft what is missing in as many processes as torch has threads, each with one; yield what appears.

    On a GPU, with one thread, or with a single craft missing, this does nothing. The networks here are too
    small for two cores to share one evaluation; two evaluations side by side take both.
    """
    crafts = prepared.plan.crafts
    jobs = _missing(prepared, crafter)
    workers = _worker_count(prepared, jobs)
    if workers < 2:
        return
    jobs = _one_of_each_attack_first(prepared, jobs)
    pending = {crafts[position].keys[chunk]: (crafts[position], chunk) for position, chunk in jobs}
    with _workers(prepared, crafter.store, jobs, workers) as processes:
        alive = True
        while alive:
            # Asked before the store is looked at, so that the last worker's last file is seen too.
            alive = any(process.is_alive() for process in processes)
            for key in [key for key in pending if crafter.store.path(key).is_file()]:
                yield pending.pop(key)
            if alive:
                time.sleep(SECONDS_BETWEEN_LOOKS)


def remaining_crafts(prepared: Prepared, crafter: Crafter) -> RemainingCrafts:
    """Return the missing crafts, to estimate how long they take."""
    jobs = _missing(prepared, crafter)
    missing = {}
    for position, chunk in jobs:
        craft = prepared.plan.crafts[position]
        layers = layer_count(prepared.targets.networks[craft.target].module) * craft.draws
        missing[craft.keys[chunk]] = Workload(attack=craft.attack, layers=layers)
    return RemainingCrafts(missing, at_once=_worker_count(prepared, jobs))


def _missing(prepared: Prepared, crafter: Crafter) -> list[Job]:
    return [
        (position, chunk)
        for position, craft in reversed(list(enumerate(prepared.plan.crafts)))
        for chunk, key in enumerate(craft.keys)
        if not crafter.store.path(key).is_file()
    ]


def _one_of_each_attack_first(prepared: Prepared, jobs: Sequence[Job]) -> list[Job]:
    """Return ``jobs`` in an order in which it is soon known what a craft of each attack takes."""
    first = {prepared.plan.crafts[position].attack: (position, chunk) for position, chunk in reversed(jobs)}
    return [*first.values(), *(job for job in jobs if job not in first.values())]


def _worker_count(prepared: Prepared, jobs: Sequence[Job]) -> int:
    """Return the number of crafts made side by side; 1 if the run makes them by itself."""
    if prepared.subjects.device.type != "cpu":
        return 1
    return max(1, min(torch.get_num_threads(), len(jobs)))


@contextmanager
def _workers(prepared: Prepared, store: TensorStore, jobs: Sequence[Job], count: int) -> Iterator[list[Any]]:
    # Not fork: a child of a process in which torch has threads may wait for one of them for ever.
    context = get_context("spawn")
    taken = context.Value("i", 0)
    arguments = (prepared.request, prepared.plan_digest, store, list(jobs), taken, os.getpid())
    processes = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(count)]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _work(
    request: RunRequest, plan_digest: str, store: TensorStore, jobs: list[Job], taken: Synchronized[int], parent: int
) -> None:
    """Take one job after the other until none is left or the run is gone."""
    # The run handles an interruption, and ends its workers by an exception that takes half-written files away.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    torch.set_num_threads(1)
    prepared = prepare(request, SilentProgress())
    # Code that was edited since the run began would craft under keys that nobody waits for.
    if prepared.plan_digest != plan_digest:
        return
    crafter = Crafter(store)
    while os.getppid() == parent:
        with taken.get_lock():
            position, taken.value = taken.value, taken.value + 1
        if position >= len(jobs):
            return
        craft, chunk = prepared.plan.crafts[jobs[position][0]], prepared.images.chunk(jobs[position][1])
        try:
            crafter.evidence(craft, prepared.attacks[craft.attack], prepared.targets.target(craft), chunk)
        except DkdBenchError:
            continue
