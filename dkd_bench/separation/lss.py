"""Latent space separation (paper, Eq. 5 and 6): pure, from latents to frozen records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dkd_bench.errors import ConfigError
from dkd_bench.separation.margin import Margin, NoMargin, Points, Sides, hard_margin, least_error
from dkd_bench.separation.records import Certificate, EnsembleSeparation, PermutationNull, Separation

if TYPE_CHECKING:
    from torch import Tensor

    Latents: TypeAlias = Tensor | NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class _Pooled:
    """Latents of both sides, pooled and scaled as the solver takes them."""

    points: Points
    first: Sides
    radius: float
    """Root mean square distance of the latents from their mean, by which the points were divided."""

    @property
    def smaller_side(self) -> int:
        return int(min(self.first.sum(), (~self.first).sum()))


def separate(first: Latents, second: Latents) -> Separation:
    """Return the margin of the hard-margin linear SVM between two sets of latents, or why there is none (Eq. 5).

    Args:
        first: shape ``(N, D)``.
        second: shape ``(M, D)``.

    Raises:
        ConfigError: if the shapes do not fit, a side is empty, or a latent is not finite.
    """
    return _separation(_pooled([first, second]))


def ensemble_separation(latents: Sequence[Latents]) -> EnsembleSeparation:
    """Return the separation of each member's latents from all the others', pooled (Eq. 6).

    Args:
        latents: for each member, those of the same images; shape ``(N, D)`` each.

    Raises:
        ConfigError: if there are fewer than two members, their shapes differ, or a latent is not finite.
    """
    if len(latents) < 2:
        raise ConfigError(f"latent space separation needs at least two members, got {len(latents)}")
    shapes = sorted({tuple(each.shape) for each in latents})
    if len(shapes) > 1:
        raise ConfigError(
            f"the members' latents must be of one shape, got {' and '.join(map(str, shapes))}; "
            "name a layer of equal width in all members"
        )
    pooled = _pooled(latents)
    owners = np.arange(len(latents)).repeat(len(latents[0]))
    return EnsembleSeparation(
        members=tuple(_separation(replace(pooled, first=owners == number)) for number in range(len(latents)))
    )


def permutation_null(first: Latents, second: Latents, *, draws: int = 20, seed: int = 0) -> PermutationNull:
    """Return the margins of the same points under labels dealt at random, the sides' sizes kept.

    Shapes and errors are those of ``separate``; too few points are no reason to refuse here.

    Raises:
        ConfigError: also if ``draws`` is less than one.
    """
    if draws < 1:
        raise ConfigError(f"a permutation null needs at least one draw, got {draws}")
    pooled = _pooled([first, second])
    generator = np.random.default_rng(seed)
    found = [
        hard_margin(pooled.points, generator.permutation(pooled.first))
        if pooled.radius
        else NoMargin(separable=False, rounds=0)
        for _ in range(draws)
    ]
    return PermutationNull(
        margins=tuple(each.attained * pooled.radius if isinstance(each, Margin) else None for each in found),
        undecided=sum(isinstance(each, NoMargin) and each.separable is not False for each in found),
        rms_radius=pooled.radius,
    )


def _separation(pooled: _Pooled) -> Separation:
    """Return the margin between the sides of ``pooled``, or why there is none."""
    if not pooled.radius:
        return _without_number(pooled, False, "all latents are one and the same point", rounds=0)
    dimension = pooled.points.shape[1]
    if pooled.smaller_side <= dimension:
        # With more than D points on each side there are over 2 D, the capacity of a plane (Cover 1965).
        reason = (
            f"{pooled.smaller_side} points on a side in {dimension} dimensions are too few, since labels dealt at "
            f"random would separate too; take at least {dimension + 1} images"
        )
        return _without_number(pooled, None, reason, rounds=0)
    found = hard_margin(pooled.points, pooled.first)
    if isinstance(found, NoMargin):
        return _without_number(pooled, found.separable, _reason(found), rounds=found.rounds)
    return Separation(
        separable=True,
        margin=found.attained * pooled.radius,
        reason=None,
        training_error=None,
        rms_radius=pooled.radius,
        n_points=len(pooled.points),
        dimension=dimension,
        support_vectors=found.support_vectors,
        rounds=found.rounds,
        certificate=Certificate(
            functional_margin=found.functional_margin,
            duality_gap=found.duality_gap,
            largest_alpha=found.largest_alpha,
        ),
    )


def _points(latents: Latents) -> Points:
    """Return latents as float64, shape ``(N, D)``, and check them."""
    array = latents if isinstance(latents, np.ndarray) else latents.detach().cpu().numpy()
    if array.ndim != 2 or not array.size:
        raise ConfigError(f"latents must be of shape (N, D), neither of them 0; got {array.shape}")
    if not np.isfinite(array).all():
        raise ConfigError("latents must be finite, got NaN or infinity; the network that made them is broken")
    return array.astype(np.float64)


def _pooled(latents: Sequence[Latents]) -> _Pooled:
    """Return all latents centred and of RMS radius 1, those of the first set against those of all others."""
    sets = [_points(each) for each in latents]
    widths = sorted({each.shape[1] for each in sets})
    if len(widths) > 1:
        raise ConfigError(f"both sides must have one dimension, got {' and '.join(map(str, widths))}")
    points = np.concatenate(sets)
    points -= points.mean(axis=0)
    radius = float(np.sqrt(np.einsum("ij,ij->", points, points) / len(points)))
    if radius:
        points /= radius
    return _Pooled(points, np.arange(len(points)) < len(sets[0]), radius)


def _reason(found: NoMargin) -> str:
    if found.separable is False:
        return "no plane separates the latents: the convex hulls of the two sides touch"
    if found.separable:
        return "a plane separates the latents, by too little for its margin to be certified"
    return f"the two sides nearly touch, and {found.rounds} rounds did not decide whether a plane separates them"


def _without_number(pooled: _Pooled, separable: bool | None, reason: str, *, rounds: int) -> Separation:
    return Separation(
        separable=separable,
        margin=None,
        reason=reason,
        training_error=least_error(pooled.points, pooled.first) if separable is False else None,
        rms_radius=pooled.radius,
        n_points=len(pooled.points),
        dimension=pooled.points.shape[1],
        support_vectors=None,
        rounds=rounds,
        certificate=None,
    )
