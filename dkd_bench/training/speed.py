"""Speed of this machine, beside that of the one whose times the README states."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from time import perf_counter

import torch
from torch import nn

from dkd_bench.data import ImageSpec
from dkd_bench.target.randomness import isolated_randomness
from dkd_bench.training.networks import build_network

README_GRADIENTS_PER_SECOND = 50_000.0
"""Value of ``gradients_per_second`` on the machine whose times the README states: the best of the rounds that ``python
benchmarks/machine_speed.py`` makes there."""
README_FIRST_COMMAND_S = 97.0
"""Seconds that the README's first command takes there, with an empty cache."""
WORTH_SAYING = 1.5
"""Factor of slowness, relative to that machine, from which on a note is logged."""
BATCH_SIZE = 100

log = logging.getLogger(__name__)


def gradients_per_second(*, seconds: float = 0.25, clock: Callable[[], float] = perf_counter) -> float:
    """Return the gradients a second of the network that digits are judged by, on one thread.

    The weights are random. All random generators and the number of threads are left as they were.

    Args:
        seconds: how long to measure, after a warm-up of one batch.
        clock: what tells the time.
    """
    spec = ImageSpec(channels=1, height=8, width=8, n_classes=10)
    with isolated_randomness(0), _one_thread(), torch.enable_grad():
        network = build_network("small", spec).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        images = torch.rand(BATCH_SIZE, spec.channels, spec.height, spec.width)
        labels = torch.randint(spec.n_classes, (BATCH_SIZE,))
        _gradients(network, images, labels)
        start, done = clock(), 0
        while (took := clock() - start) < seconds or not done:
            _gradients(network, images, labels)
            done += BATCH_SIZE
    return done / took


def slowness(rate: float) -> str | None:
    """Return a sentence on how much slower than the README's a machine of ``rate`` gradients a second is, if it is."""
    factor = README_GRADIENTS_PER_SECOND / rate
    if factor <= WORTH_SAYING:
        return None
    minutes = README_FIRST_COMMAND_S / 60
    return (
        f"at the moment this machine is {factor:.1f} times slower than the one whose times the README states: "
        f"its first command, {minutes:.1f} minutes there, takes about {factor * minutes:.1f} minutes here"
    )


def log_slowness() -> None:
    """Measure this machine and log if it is slow; once in a process, and only where somebody reads the log."""
    if log.isEnabledFor(logging.INFO):
        _log_slowness()


@cache
def _log_slowness() -> None:
    try:
        told = slowness(gradients_per_second())
    except Exception as error:  # a courtesy must not end a run
        log.debug("the speed of this machine cannot be measured: %s", error)
        return
    if told is not None:
        log.info(told)


def _gradients(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    inputs = images.clone().requires_grad_(True)
    loss = nn.functional.cross_entropy(network(inputs), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, inputs)
    return gradient


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
