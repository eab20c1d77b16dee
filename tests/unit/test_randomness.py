"""Global generators: seeded inside, as they were outside."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from dkd_bench.target.randomness import isolated_randomness


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 7, 2**60])
def test_the_same_seed_gives_the_same_draws(seed: int) -> None:
    with isolated_randomness(seed):
        first = draws()
    draws()
    with isolated_randomness(seed):
        assert draws() == first


def test_other_seeds_give_other_draws() -> None:
    with isolated_randomness(0):
        first = draws()
    with isolated_randomness(1):
        assert all(one != other for one, other in zip(first, draws(), strict=True))


def test_nobody_elses_draws_move() -> None:
    with isolated_randomness(5):
        undisturbed = [draws() for _ in range(2)]
    with isolated_randomness(5):
        before = draws()
        with isolated_randomness(0):
            draws()
        assert [before, draws()] == undisturbed


def test_restored_after_an_error() -> None:
    with isolated_randomness(5):
        undisturbed = draws()
    with isolated_randomness(5):
        with pytest.raises(RuntimeError, match="attack fails"):
            _fail_in_isolation()
        assert draws() == undisturbed


def _fail_in_isolation() -> None:
    with isolated_randomness(0):
        draws()
        raise RuntimeError("attack fails")
