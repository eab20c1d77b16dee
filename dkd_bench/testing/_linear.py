"""Linear classifier whose nearest boundaries are known in closed form."""

from __future__ import annotations

from functools import cache
from typing import final

import torch
from torch import Tensor, nn

from dkd_bench.budget import Norm
from dkd_bench.target import Access, Target
from dkd_bench.testing._access import of_pairs, offering, paired, unlikeness

_SIDE = 6
_N_CLASSES = 4
_SCALE = 5.0
_CANDIDATES = 400


@final
class LinearProblem:
    """Linear classifier, with images that are all about equally far from their nearest boundaries.

    The boundary to class j is a hyperplane with normal ``w_y - w_j``, so an image is ``gap / dual norm of the
    normal`` away from it. The images are far enough from black and white that the box is in nobody's way. In L0,
    where the box is all that holds a value, the most effective values go to black or white until the gap is gone.
    Where only images of equal pairs count (a detector rejects others, or a generator makes no others), both values
    of a pair move together, as if each had the mean of their two weights. It computes in float64, where a matrix
    product does not depend on the batch that it is in.
    """

    def __init__(self, norm: Norm, *, access: Access = "gradients", n_images: int = 20) -> None:
        """Take images at about the median distance in ``norm``, for attacks that need ``access``."""
        self._access = access
        generator = torch.Generator().manual_seed(0)
        n_pixels = _SIDE * _SIDE
        self._weight = _SCALE * torch.randn(_N_CLASSES, n_pixels, generator=generator, dtype=torch.float64)
        self._bias = -self._weight @ torch.full((n_pixels,), 0.5, dtype=torch.float64)
        drawn = 0.2 + 0.6 * torch.rand(_CANDIDATES, 1, _SIDE, _SIDE, generator=generator)
        if of_pairs(access):
            drawn = paired(drawn)
        by_distance = self._distances_of(drawn, norm).argsort()
        start = (_CANDIDATES - n_images) // 2
        self.images = drawn[by_distance[start : start + n_images]]
        """float32, shape ``(N, 1, 6, 6)``."""
        self.labels = self._logits(self.images).argmax(dim=1)
        """What the classifier says of them."""
        self.distances = self._distances_of(self.images, norm)
        """To the nearest boundary, float64, shape ``(N,)``; in l0 the number of values that must change."""

    def target(self) -> Target:
        """Return the classifier as an attack sees it."""
        linear = nn.Linear(self._weight.shape[1], _N_CLASSES).double()
        linear.load_state_dict({"weight": self._weight, "bias": self._bias})
        network = offering(nn.Sequential(nn.Flatten(), linear), self._access, tuple(self.images.shape[1:]))
        return Target(network, name="a linear model", n_classes=_N_CLASSES)

    def fooled(self, images: Tensor) -> Tensor:
        """Return the images that the classifier gets wrong, of pairs where only such count: bool, shape ``(N,)``."""
        wrong = self._logits(images).argmax(dim=1) != self.labels
        return wrong & (unlikeness(images) <= 0) if of_pairs(self._access) else wrong

    def _logits(self, images: Tensor) -> Tensor:
        return images.double().flatten(1) @ self._weight.T + self._bias

    def _distances_of(self, images: Tensor, norm: Norm) -> Tensor:
        logits = self._logits(images)
        labels = logits.argmax(dim=1)
        gaps = logits.amax(dim=1, keepdim=True) - logits
        normals = self._weight[labels].unsqueeze(1) - self._weight.unsqueeze(0)
        if of_pairs(self._access):
            normals = paired(normals)
        if norm == "l0":
            return _values_to_change(images, gaps, normals).masked_fill(gaps == 0, torch.inf).amin(dim=1)
        dual = normals.abs().sum(dim=2) if norm == "linf" else normals.norm(dim=2)
        return (gaps / dual).masked_fill(dual == 0, torch.inf).amin(dim=1)


def _values_to_change(images: Tensor, gaps: Tensor, normals: Tensor) -> Tensor:
    """Return the least number of values to change to close each of ``gaps``, float64, shape ``(N, K)``."""
    x = images.double().flatten(1).unsqueeze(1)
    gains = torch.maximum(normals * x, normals * (x - 1))
    reached = gains.sort(dim=2, descending=True).values.cumsum(dim=2) > gaps.unsqueeze(2)
    fewest = 1 + reached.int().argmax(dim=2).double()
    return fewest.masked_fill(~reached.any(dim=2), torch.inf)


@cache
def linear_problem(norm: Norm, access: Access) -> LinearProblem:
    """Return the linear problem for ``norm`` and ``access``; its tensors are shared, so nobody may change them."""
    return LinearProblem(norm, access=access)
