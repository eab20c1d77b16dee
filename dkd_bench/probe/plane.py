"""Plane that parts planted examples from the points around an image."""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.float64]
"""Features, shape ``(N, D)``, or one vector of them."""

_PENALTY = 1e6
"""``C`` of the SVM: so large that its margin is hard."""
_MOST_ITERATIONS = 100_000
"""Iterations of the SVM's solver, at most; one that takes more is not going to separate the points."""
_ROUNDING = 1e-5
"""Relative variation, to the largest feature's, below which a feature varies by rounding alone."""


def parting_plane(features: Points, n_boundary: int, closeness: float) -> tuple[Points, float] | None:
    """Return the weight and bias of a plane close to the last ``n_boundary`` points, to part them from the others.

    The scores of all points are in [-1, 1]. Whether it does part them is for the network to show; ``None`` if the
    features do not vary.
    """
    mean = features.mean(axis=0)
    # One scale for all features: one for each would make much of those that hardly ever vary, such as dead units.
    spread = float(np.sqrt(np.square(features - mean).sum(axis=1).mean()))
    if spread <= _ROUNDING * float(np.abs(features).max()):
        return None
    scaled = (features - mean) / spread
    on_edge = np.arange(len(features)) >= len(features) - n_boundary
    direction, offset = _hard_margin(scaled, on_edge)
    scores = scaled @ direction + offset
    offset -= closeness * float(scores[on_edge].min())
    largest = float(np.abs(scaled @ direction + offset).max())
    if not largest:
        return None
    weight = direction / spread / largest
    return weight, offset / largest - float(mean @ weight)


def _hard_margin(points: Points, positive: NDArray[np.bool_]) -> tuple[Points, float]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC

    # What a logistic regression without penalty tends to, and never reaches, on points that a plane separates.
    svm: Any = SVC(kernel="linear", C=_PENALTY, max_iter=_MOST_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        svm.fit(points, positive)
    return svm.coef_[0], float(svm.intercept_[0])
