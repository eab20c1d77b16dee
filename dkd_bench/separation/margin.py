"""Widest gap between two clouds of points: a hard-margin linear SVM, exactly, with proof of either answer.

The margin of a hard-margin SVM is the distance between the convex hulls of the two sides, and a non-negative least
squares problem finds the nearest points of two hulls: no penalty ``C``, no tolerance, and where the hulls touch it
returns a point of both, which proves that no plane separates them. It is solved on a subset; points that lie nearer
are added until there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Points: TypeAlias = NDArray[np.float64]
"""Points, shape ``(N, D)``, centred, of RMS radius 1."""
Sides: TypeAlias = NDArray[np.bool_]
"""Cloud that each point belongs to: bool, shape ``(N,)``, true for the first."""

MAX_ROUNDS = 60
TOUCHING = 1e-7
"""Distance, in RMS radii, below which hulls touch: the latents are float32, which have no more digits."""
ACCEPTED_GAP = 1e-3
_WANTED_GAP = 1e-6
_WEIGHT = 300.0
"""Weight of the constraint that the weights of each side sum to one, over the distance of the farthest point.

The solution errs by the square of its inverse, rounding by its value; the gap is measured, not assumed.
"""
_NEWTON_STEPS = 6
_POINTS_PER_DIMENSION = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """Widest margin, between what a plane attains on all points and what the hulls rule out."""

    attained: float
    """Width, in RMS radii, of a slab that holds no point and separates all of them."""
    bound: float
    """Upper bound of the margin, in RMS radii: the distance between a point of one hull and a point of the other."""
    largest_alpha: float
    support_vectors: int
    rounds: int

    @property
    def functional_margin(self) -> float:
        """Least ``y f(x)`` over all points for the plane of norm ``2 / bound``; 1 if exact."""
        return self.attained / self.bound

    @property
    def duality_gap(self) -> float:
        """Share, in [0, 1], by which ``||w||^2`` could still be smaller; 0 if exact."""
        return max(0.0, 1 - self.functional_margin * abs(self.functional_margin))


@dataclass(frozen=True, slots=True, kw_only=True)
class NoMargin:
    """Absence of a margin to report."""

    separable: bool | None
    """``False`` where a common point of the hulls was found; else what is known without a certificate."""
    rounds: int


@dataclass(frozen=True, slots=True)
class _Nearest:
    """Nearest points of the hulls of a subset."""

    distance: float
    direction: NDArray[np.float64]
    """Unit normal of the plane between them, towards the first cloud, shape ``(D,)``."""
    weights: NDArray[np.float64]
    """Weights of the subset's points, shape ``(n,)``, summing to one on each side."""


def hard_margin(points: Points, first: Sides) -> Margin | NoMargin:
    """Return the margin between ``points[first]`` and ``points[~first]``, or that there is none.

    Neither side may be empty.
    """
    # The solver sees a small subset, to which the points nearest to its plane are added until no other is nearer.
    step = 2 * (points.shape[1] + 1)
    active = np.zeros(len(points), dtype=bool)
    for side in (first, ~first):
        members = np.flatnonzero(side)
        active[members[np.linspace(0, len(members) - 1, min(step, len(members))).astype(np.int64)]] = True
    separable = None
    for rounds in range(1, MAX_ROUNDS + 1):
        nearest = _nearest_of_hulls(points[active], first[active])
        if nearest is None:
            break
        if nearest.distance < TOUCHING:
            return NoMargin(separable=False, rounds=rounds)
        heights = points @ nearest.direction
        found = _margin(heights, first, nearest, rounds)
        separable = True if found.attained > 0 else None
        nearer = _nearer(heights, first, active, step)
        if found.duality_gap < _WANTED_GAP or not nearer.size:
            if found.attained > 0 and found.duality_gap < ACCEPTED_GAP:
                return found
            break
        active[nearer] = True
    return NoMargin(separable=separable, rounds=rounds)


def least_error(points: Points, first: Sides) -> float:
    """Return the share of points on the wrong side of the best plane found; for sides that no plane separates.

    The planes are those of Newton's method on the squared hinge loss of evenly chosen points, the first being that of
    least squares; the error is that on all points.
    """
    chosen = slice(None, None, max(1, len(points) // (_POINTS_PER_DIMENSION * points.shape[1])))
    extended = np.column_stack([points, np.ones(len(points))])
    signs = np.where(first, 1.0, -1.0)
    fitted, wanted = extended[chosen], signs[chosen]
    # Without it a value that never varies would make the system singular.
    ridge = 1e-3 * np.eye(fitted.shape[1])
    errors = [float(min(first.mean(), (~first).mean()))]
    for _ in range(_NEWTON_STEPS):
        plane = np.linalg.solve(fitted.T @ fitted + ridge, fitted.T @ wanted)
        values = signs * (extended @ plane)
        errors.append(float((values <= 0).mean()))
        inside = values[chosen] < 1
        fitted, wanted = extended[chosen][inside], signs[chosen][inside]
    return min(errors)


def _nearest_of_hulls(points: Points, first: Sides) -> _Nearest | None:
    """Return the nearest points of the two hulls, ``None`` where the solver gives up."""
    signs = np.where(first, 1.0, -1.0)
    weight = _WEIGHT * float(np.sqrt((points**2).sum(axis=1).max()))
    # The nearest points of the hulls by least squares in their weights; the last two rows hold each side to a sum of 1.
    system = np.vstack([(points * signs[:, None]).T, weight * first, weight * ~first])
    wanted = np.zeros(len(system))
    wanted[-2:] = weight
    try:
        weights, _ = nnls(system, wanted, maxiter=20 * len(points))
    except RuntimeError:
        return None
    # Those rows are weighed, not exact: what they left of the sums is put right.
    for side in (first, ~first):
        weights[side] /= weights[side].sum()
    difference = (weights * signs) @ points
    distance = float(np.linalg.norm(difference))
    candidates = [difference, _equidistant(points[weights > 0], signs[weights > 0])] if distance else [difference]
    directions = [each / (np.linalg.norm(each) or 1) for each in candidates]
    return _Nearest(distance, max(directions, key=lambda each: _attained(points @ each, first)), weights)


def _equidistant(supports: Points, signs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the normal of the widest slab with all support vectors on its faces: what rounding left is gone."""
    rises = signs[1:] - signs[0]
    solution: NDArray[np.float64] = np.linalg.lstsq(supports[1:] - supports[0], rises, rcond=None)[0]
    return solution


def _attained(heights: NDArray[np.float64], first: Sides) -> float:
    return float(heights[first].min() - heights[~first].max())


def _margin(heights: NDArray[np.float64], first: Sides, nearest: _Nearest, rounds: int) -> Margin:
    """Return the margin that the plane across ``nearest`` attains on all points, given their heights above it."""
    return Margin(
        attained=_attained(heights, first),
        bound=nearest.distance,
        largest_alpha=float(nearest.weights.max()) * 2 / nearest.distance**2,
        support_vectors=int((nearest.weights > 0).sum()),
        rounds=rounds,
    )


def _nearer(heights: NDArray[np.float64], first: Sides, active: Sides, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` points of each side that lie nearer to the other than any of the subset does."""
    added = []
    for side, sign in ((first, 1.0), (~first, -1.0)):
        own = sign * heights
        outside = np.flatnonzero(side & ~active & (own < own[side & active].min()))
        added.append(outside[np.argsort(own[outside])[:most]])
    return np.concatenate(added)
