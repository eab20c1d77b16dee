"""Probe of a trained defence's answers: it finds what the defence does, does not declare, and an attack must know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dkd_bench.defense import Defense
from dkd_bench.records import FlagRecord
from dkd_bench.records.flags import BAD_GRADIENTS, MISLEADING, OPTIMIZES, PROBABILITIES, RANDOM, ZERO_GRADIENTS
from dkd_bench.target.randomness import isolated_randomness
from dkd_bench.target.variation import answers_differ

PROBED_IMAGES = 16
SEED = 20
MOST_WITHOUT_GRADIENT = 0.1
"""Share of images that may be without gradient: a few saturated ones occur on honest networks too."""
MOST_MISLED = 0.5
"""Share of images on which a step along the gradient may do no better than the best of some random ones."""
STEP = 0.05
"""Length in Linf of the steps along the gradient, and of the random ones."""
RANDOM_STEPS = 4
ROUNDING = 1e-5
"""Distance from a probability, in [0, 1], up to which rounding may carry one (AutoAttack's own check)."""


def probe(defense: Defense, images: Tensor) -> tuple[FlagRecord, ...]:
    """Return the flags that ``defense`` raises on clean images, in alphabetical order; see ``dkd_bench.records.flags``.

    Args:
        defense: trained, on its device, in evaluation mode.
        images: float32 in [0, 1], shape ``(N, C, H, W)``; a few of them are shown.
    """
    images = images[:PROBED_IMAGES]
    surrogates = defense.surrogates()
    found = []
    with isolated_randomness(SEED):
        if not defense.meta.optimizes and _optimizes(defense, surrogates, images):
            found.append(FlagRecord(name=OPTIMIZES, detail="a backward pass ran while it answered"))
        random = () if defense.meta.randomized else surrogates.items()
        varying = [name for name, module in random if answers_differ(module, images)]
        if varying:
            found.append(
                FlagRecord(name=RANDOM, detail=f"surrogate {varying[0]!r} answers differently when asked again")
            )
        if surrogates:
            found += _gradient_flags(surrogates, images, randomized=defense.meta.randomized)
        certain = [
            module for module in (*defense.members, *surrogates.values()) if _gives_probabilities(module, images)
        ]
        if certain:
            detail = f"{len(certain)} of its networks and surrogates answer with rows from 0 to 1 that sum to 1"
            found.append(FlagRecord(name=PROBABILITIES, detail=detail))
    return tuple(sorted(found, key=lambda flag: flag.name))


def _gradient_flags(surrogates: Mapping[str, nn.Module], images: Tensor, *, randomized: bool) -> list[FlagRecord]:
    gradients = gradients_of(surrogates, images)
    found = []
    led = () if randomized else surrogates.items()
    misled = min((_misled_share(module, images, gradients[name]) for name, module in led), default=0.0)
    if misled > MOST_MISLED:
        detail = f"no better than {RANDOM_STEPS} random steps on {100 * misled:.0f} % of the images that have one"
        found.append(FlagRecord(name=MISLEADING, detail=detail, share=misled))
    blind = without_gradient(gradients)
    if blind > MOST_WITHOUT_GRADIENT:
        detail = f"no surrogate has a gradient on {round(blind * len(images))} of {len(images)} clean images"
        found.append(FlagRecord(name=ZERO_GRADIENTS, detail=detail, share=blind))
    for name, each in gradients.items():
        bad = float((~torch.isfinite(each)).flatten(1).any(dim=1).double().mean())
        if bad > 0:
            detail = (
                f"that of surrogate {name!r} is not finite on {round(bad * len(images))} of {len(images)} clean images"
            )
            found.append(FlagRecord(name=BAD_GRADIENTS, detail=detail, share=bad))
            break
    return found


def without_gradient(gradients: Mapping[str, Tensor]) -> float:
    """Return the share of images on which no surrogate has any gradient, given ``gradients_of`` them."""
    return float(torch.stack([_is_zero(each) for each in gradients.values()]).all(dim=0).double().mean())


def gradients_of(surrogates: Mapping[str, nn.Module], images: Tensor) -> dict[str, Tensor]:
    """Return the gradient of each surrogate's cross-entropy with its own answer, zero where it has none."""
    gradients = {}
    for name, module in surrogates.items():
        leaves = images.clone().requires_grad_()
        gradient = None
        with torch.enable_grad():
            logits: Tensor = module(leaves)
            if logits.requires_grad:
                loss = nn.functional.cross_entropy(logits.float(), logits.argmax(dim=1), reduction="sum")
                (gradient,) = torch.autograd.grad(loss, leaves, allow_unused=True)
        gradients[name] = torch.zeros_like(images) if gradient is None else gradient
    return gradients


@torch.no_grad()
def _misled_share(module: nn.Module, images: Tensor, gradient: Tensor) -> float:
    """Return on what share of the images with a gradient a step along it does no better than random ones."""
    # Images without a finite gradient have flags of their own: counted here too, they would raise two for one cause.
    led = ~_is_zero(gradient) & torch.isfinite(gradient).flatten(1).all(dim=1)
    if not led.any():
        return 0.0
    images, gradient = images[led], gradient[led]
    labels = module(images).argmax(dim=1)

    def loss_after(direction: Tensor) -> Tensor:
        stepped = (images + STEP * direction.sign()).clamp(0, 1)
        return nn.functional.cross_entropy(module(stepped).float(), labels, reduction="none")

    at_random = [loss_after(torch.randn_like(images)) for _ in range(RANDOM_STEPS)]
    along = loss_after(gradient)
    return float((along <= torch.stack(at_random).amax(dim=0)).double().mean())


def _is_zero(gradient: Tensor) -> Tensor:
    return (gradient == 0).flatten(1).all(dim=1)


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
