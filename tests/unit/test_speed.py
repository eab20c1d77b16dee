"""The note on a slow machine: its words and when it comes, by measurements that are made up."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from dkd_bench.training import speed
from dkd_bench.training.speed import README_GRADIENTS_PER_SECOND, gradients_per_second, log_slowness, slowness


@pytest.fixture
def rate(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Let measurements return what stands first in the list, and remove it; nothing was measured before."""
    rates: list[float] = []
    monkeypatch.setattr(speed, "gradients_per_second", lambda: rates.pop(0))
    speed._log_slowness.cache_clear()
    yield rates
    speed._log_slowness.cache_clear()


def test_a_machine_twice_as_slow_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "README_FIRST_COMMAND_S", 90.0)
    assert slowness(README_GRADIENTS_PER_SECOND / 2) == (
        "at the moment this machine is 2.0 times slower than the one whose times the README states: "
        "its first command, 1.5 minutes there, takes about 3.0 minutes here"
    )


@pytest.mark.parametrize(("factor", "said"), [(0.5, False), (1.0, False), (1.49, False), (1.51, True), (10.0, True)])
def test_a_sentence_from_one_and_a_half_times_on(factor: float, said: bool) -> None:
    assert (slowness(README_GRADIENTS_PER_SECOND / factor) is not None) == said


def test_measured_once_and_said_once(rate: list[float], caplog: pytest.LogCaptureFixture) -> None:
    rate += [README_GRADIENTS_PER_SECOND / 3, README_GRADIENTS_PER_SECOND / 4]
    with caplog.at_level(logging.INFO, logger="dkd_bench"):
        log_slowness()
        log_slowness()
    assert [record.getMessage()[:42] for record in caplog.records] == ["at the moment this machine is 3.0 times sl"]
    assert len(rate) == 1


def test_a_fast_machine_is_not_worth_a_word(rate: list[float], caplog: pytest.LogCaptureFixture) -> None:
    rate.append(README_GRADIENTS_PER_SECOND)
    with caplog.at_level(logging.INFO, logger="dkd_bench"):
        log_slowness()
    assert (rate, caplog.records) == ([], [])


def test_where_nobody_listens_nothing_is_measured(rate: list[float], caplog: pytest.LogCaptureFixture) -> None:
    rate.append(1.0)
    with caplog.at_level(logging.WARNING, logger="dkd_bench"):
        log_slowness()
    assert rate == [1.0]
    with caplog.at_level(logging.INFO, logger="dkd_bench"):
        log_slowness()
    assert rate == []


def test_measurement_that_fails_is_no_error(
    rate: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> float:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(speed, "gradients_per_second", broken)
    with caplog.at_level(logging.INFO, logger="dkd_bench"):
        log_slowness()
    assert caplog.records == []


def test_rate_is_gradients_over_seconds() -> None:
    ticks = itertools.count(100.0, 0.1)
    # The clock is read at the start and before each of the batches: 0.1 and 0.2 s are not yet over, 0.3 s are.
    assert gradients_per_second(seconds=0.25, clock=lambda: next(ticks)) == pytest.approx(2 * 100 / 0.3)


def test_one_batch_is_measured_whatever_the_clock_says() -> None:
    ticks = itertools.count(100.0, 10.0)
    assert gradients_per_second(seconds=0.25, clock=lambda: next(ticks)) == pytest.approx(100 / 20.0)


@pytest.mark.parametrize("threads", [1, 2])
def test_random_generators_and_threads_are_left_as_they_were(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        with torch.no_grad():
            gradients_per_second(seconds=0.0)
        assert random.getstate() == states[0]
        assert np.random.get_state()[1].tolist() == states[1]
        assert torch.equal(torch.get_rng_state(), states[2])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_one_thread_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = speed._gradients

    def watched(*arguments: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(speed, "_gradients", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gradients_per_second(seconds=0.0)
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1]


def test_gradients_are_of_the_inputs_and_not_all_zero() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).requires_grad_(False)
    gradient = speed._gradients(network, torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2]))
    assert gradient.shape == (3, 1, 8, 8)
    assert bool((gradient != 0).any())
