"""Checks of adversarial images in float64 NumPy, apart from the harness's own; nothing is repaired."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkd_bench.budget import TOLERANCE, Budget, Norm

Floats: TypeAlias = "NDArray[np.float64]"
Bools: TypeAlias = "NDArray[np.bool_]"

_LEVELS = 255


def rounded_to_8_bits(images: Tensor) -> Tensor:
    """Return ``images`` with every value at the nearest of the 256 that a picture file can keep."""
    return torch.round(images * _LEVELS) / _LEVELS


def distances(clean: Tensor, images: Tensor, norm: Norm) -> Floats:
    """Return the distance of each image from the clean one, shape ``(N,)``."""
    return _norms(_float64(images) - _float64(clean), norm)


def fault_of(clean: Tensor, images: Tensor, budget: Budget) -> str | None:
    """Return the fault of adversarial images, with the first at fault and their number; ``None`` if there is none.

    Args:
        clean: float32, shape ``(N, C, H, W)``.
        images: as many of the same shape and type, in the same order, finite, in [0, 1] and inside ``budget``.
        budget: that no image may leave by more than ``TOLERANCE``.
    """
    if images.dtype != torch.float32 or tuple(images.shape) != tuple(clean.shape):
        expected = f"float32 images of shape {tuple(clean.shape)}"
        return f"expected {expected}, got {str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
    before, after = _float64(clean), _float64(images)
    return _value_fault(after) or _budget_fault(before, after, budget)


def _value_fault(after: Floats) -> str | None:
    broken: Bools = np.logical_not(np.isfinite(after).all(axis=1))
    if broken.any():
        return f"{_first(broken)} has values that are not finite{_many(broken)}"
    lowest, highest = after.min(axis=1), after.max(axis=1)
    outside = (lowest < 0) | (highest > 1)
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        span = f"{lowest[at]:.6g} to {highest[at]:.6g}"
        return f"{_first(outside)} must have pixels in [0, 1], has {span}{_many(outside)}"
    return None


def _budget_fault(before: Floats, after: Floats, budget: Budget) -> str | None:
    if budget.eps is None:
        return None
    found = _norms(after - before, budget.norm)
    beyond = ~(found <= budget.eps + TOLERANCE)
    if not beyond.any():
        return None
    at = int(np.flatnonzero(beyond)[0])
    others = np.flatnonzero(_norms(after[at] - before, budget.norm) <= budget.eps + TOLERANCE)
    order = f"; it is that near to clean image {others[0]}: the order is wrong" if len(others) else ""
    return (
        f"{_first(beyond)} must be within {budget.norm} {budget.eps:g} of the clean one (tolerance {TOLERANCE:g}), "
        f"is {found[at]:.6g} away{order}{_many(beyond)}"
    )


def _norms(difference: Floats, norm: Norm) -> Floats:
    if norm == "l0":
        norms = np.count_nonzero(difference, axis=1)
    elif norm == "linf":
        norms = np.abs(difference).max(axis=1)
    else:
        norms = np.sqrt(np.square(difference).sum(axis=1))
    return np.asarray(norms, dtype=np.float64)


def _float64(images: Tensor) -> Floats:
    return images.detach().cpu().flatten(1).numpy().astype(np.float64)


def _first(mask: Bools) -> str:
    return f"image {np.flatnonzero(mask)[0]}"


def _many(mask: Bools) -> str:
    count = int(mask.sum())
    return f" ({count} such images)" if count > 1 else ""
