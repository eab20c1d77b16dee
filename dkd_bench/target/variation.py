"""Variation of a network's answers when it is asked the same again."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dkd_bench.target.randomness import isolated_randomness

VARIATION = 1e-4
"""L2 distance between an image's normalised answers from which on they differ (AutoAttack's own check)."""


def answers_vary(module: nn.Module, images: Tensor) -> bool:
    """Return whether a network's answers differ in any bit when it is asked again under another seed."""
    return not torch.equal(*_asked_twice(module, images))


def answers_differ(module: nn.Module, images: Tensor) -> bool:
    """Return whether a network's answers differ by more than rounding when it is asked again under another seed."""
    first, second = (nn.functional.normalize(each.double(), dim=1) for each in _asked_twice(module, images))
    return bool((first - second).norm(dim=1).max() > VARIATION)


@torch.no_grad()
def _asked_twice(module: nn.Module, images: Tensor) -> list[Tensor]:
    answers = []
    for seed in range(2):
        with isolated_randomness(seed):
            answers.append(module(images))
    return answers
