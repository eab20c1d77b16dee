"""The probe: looks at a trained defence for what it needs an attack to know and does not declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dkd_bench.defense import Defense
from dkd_bench.flags import OPTIMIZES, PROBABILITIES, RANDOM, ZERO_GRADIENTS
from dkd_bench.randomness import isolated_randomness

PROBED_IMAGES = 16
SEED = 20
MOST_WITHOUT_GRADIENT = 0.1
"""Share of images that may be without gradient: a few saturated ones are found on honest networks too."""
ROUNDING = 1e-5
"""How far from a probability rounding may carry one (AutoAttack's own check)."""


def probe(defense: Defense, images: Tensor) -> tuple[str, ...]:
    """Return the flags that ``defense`` raises on clean images, in alphabetical order; see ``dkd_bench.flags``.

    Args:
        defense: trained, on its device, in evaluation mode.
        images: float32 in [0, 1], shape ``(N, C, H, W)``; a few of them are shown.
    """
    images = images[:PROBED_IMAGES]
    surrogates = defense.surrogates()
    found = set()
    with isolated_randomness(SEED):
        if not defense.meta.optimizes and _optimizes(defense, surrogates, images):
            found.add(OPTIMIZES)
        if not defense.meta.randomized and any(answers_vary(module, images) for module in surrogates.values()):
            found.add(RANDOM)
        if surrogates and without_gradient(surrogates, images) > MOST_WITHOUT_GRADIENT:
            found.add(ZERO_GRADIENTS)
        if any(_gives_probabilities(module, images) for module in [*defense.members, *surrogates.values()]):
            found.add(PROBABILITIES)
    return tuple(sorted(found))


@torch.no_grad()
def answers_vary(module: nn.Module, images: Tensor) -> bool:
    """Return whether a network answers differently when asked again under another seed."""
    answers = []
    for seed in range(2):
        with isolated_randomness(seed):
            answers.append(module(images))
    return not torch.equal(*answers)


def without_gradient(surrogates: Mapping[str, nn.Module], images: Tensor) -> float:
    """Return the share of images on which no surrogate has any gradient of the cross-entropy with its own answer."""
    blind = torch.ones(len(images), dtype=torch.bool, device=images.device)
    for module in surrogates.values():
        leaves = images.clone().requires_grad_()
        with torch.enable_grad():
            logits: Tensor = module(leaves)
            if not logits.requires_grad:
                continue
            loss = nn.functional.cross_entropy(logits.float(), logits.argmax(dim=1), reduction="sum")
            (gradient,) = torch.autograd.grad(loss, leaves, allow_unused=True)
        if gradient is not None:
            blind &= (gradient == 0).flatten(1).all(dim=1)
    return float(blind.double().mean())


@torch.no_grad()
def _gives_probabilities(module: nn.Module, images: Tensor) -> bool:
    answers: Tensor = module(images)
    in_range = bool(((answers >= -ROUNDING) & (answers <= 1 + ROUNDING)).all())
    return in_range and bool(((answers.sum(dim=1) - 1).abs() <= ROUNDING).all())


@torch.no_grad()
def _optimizes(defense: Defense, surrogates: Mapping[str, nn.Module], images: Tensor) -> bool:
    with _backward_passes() as passes:
        defense.predict(images, generator=torch.Generator(device=images.device).manual_seed(SEED))
        for module in surrogates.values():
            module(images)
    return bool(passes)


@contextmanager
def _backward_passes() -> Iterator[list[None]]:
    """Collect one entry for each tensor that a backward pass inside takes up again."""
    passes: list[None] = []

    def taken_up(kept: Tensor) -> Tensor:
        passes.append(None)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, taken_up):
        yield passes
