"""Checks of adversarial images: they must be what they claim to be, or they are refused; nothing is repaired."""

from __future__ import annotations

import torch
from torch import Tensor

from dkd_bench.budget import TOLERANCE, Budget, perturbation_norms
from dkd_bench.errors import EvidenceError


def check_images(clean: Tensor, adversarial: Tensor, budget: Budget, *, source: str) -> None:
    """Check count, shape, type, finiteness, the [0, 1] box and the budget of adversarial images.

    Args:
        clean: float32, shape ``(N, C, H, W)``.
        adversarial: of the same shape and type, in the same order.
        budget: that no perturbation may leave by more than ``TOLERANCE``.
        source: who made the images, for the message.

    Raises:
        EvidenceError: names the source, the first image at fault, what was expected and what was found.
    """
    if adversarial.shape != clean.shape or adversarial.dtype != clean.dtype:
        raise EvidenceError(
            f"{source}: expected {clean.dtype} images of shape {tuple(clean.shape)}, "
            f"got {adversarial.dtype} {tuple(adversarial.shape)}"
        )
    finite = torch.isfinite(adversarial).flatten(1).all(dim=1)
    if not finite.all():
        raise EvidenceError(f"{source}: image {_first(~finite)} has values that are not finite")
    lowest, highest = adversarial.flatten(1).amin(dim=1), adversarial.flatten(1).amax(dim=1)
    outside = (lowest < 0) | (highest > 1)
    if outside.any():
        image = _first(outside)
        raise EvidenceError(
            f"{source}: image {image} must have pixels in [0, 1], has {lowest[image]:.6g} to {highest[image]:.6g}"
        )
    if budget.eps is None:
        return
    norms = perturbation_norms(clean, adversarial, budget.norm)
    beyond = norms > budget.eps + TOLERANCE
    if beyond.any():
        image = _first(beyond)
        raise EvidenceError(
            f"{source}: image {image} must be within {budget.norm} {budget.eps:g} of the clean one, "
            f"is {norms[image]:.6g} away"
        )


def _first(mask: Tensor) -> int:
    return int(mask.nonzero()[0])
