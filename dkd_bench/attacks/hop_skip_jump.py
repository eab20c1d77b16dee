"""HopSkipJump (Chen et al. 2020, arXiv:1904.02144): the boundary followed by answers alone.

Not Foolbox's: version 3.3.4 normalises the estimated gradients over the whole batch, so that in L2 the steps of
each of N images are about sqrt(N) times too short; it raises for all of them when one has no starting point, and
need not end when the target's answers vary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from dkd_bench.attacks._base import Attack, AttackMeta
from dkd_bench.attacks._checks import require_positive
from dkd_bench.budget import Budget, Norm, perturbation_norms
from dkd_bench.target import Target
from dkd_bench.target.surrogates import Detecting

_FIRST_REACH = 0.1
"""Radius, in L2, within which the target is asked around the first boundary point; later it goes by the distance."""
_LEAST_REACH = 1e-6
_DIRECTIONS_AT_ONCE = 16
"""Number of points around each boundary point that are asked about together: it bounds the memory."""
_HALVINGS = 30
"""Number of halvings of a step whose end is not misclassified, at most."""
_REJECTED = -1
_NO_ANSWER = -2


@dataclass(frozen=True, slots=True, kw_only=True)
class HopSkipJumpSettings:
    """Parameters of HopSkipJump.

    The authors begin with 100 queries for a gradient and allow 10,000; with the defaults here an image costs about
    3,500 queries altogether.

    Raises:
        ConfigError: if a number is not positive.
    """

    steps: int = 20
    initial_gradient_evals: int = 50
    """Number of queries for the first estimate of a gradient; step t has sqrt(t) times as many."""
    max_gradient_evals: int = 200
    noise_starts: int = 100
    """Number of images of uniform noise that may be starting points, beside the other images of the batch."""
    starts: int = 20
    """Number of nearest starting points of each image from which the way to the boundary is searched."""

    def __post_init__(self) -> None:
        require_positive(self, *(name for name in self.__dataclass_fields__))


@final
class HopSkipJump(Attack):
    """Nearest misclassified image by labels alone: neither gradients nor scores are looked at.

    A rejected image counts as not misclassified; one without an answer, all logits alike as after a vote that
    failed, counts as misclassified. Starting points are the nearest other images of the batch, and images of uniform
    noise, that the target takes for another class than the label and does not reject; the search begins where the
    boundary is nearest on the way from one of them. All images are asked about in the same random directions, so that
    but for these starts no search depends on the others.
    """

    meta = AttackMeta(
        name="hop-skip-jump", title="HopSkipJump", kind="minimum_norm", norms=("l2", "linf"), access="decisions"
    )
    Settings: ClassVar[type[Any]] = HopSkipJumpSettings

    @torch.no_grad()
    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return near misclassified images, each asked about once more; the clean one where none is found."""
        settings: HopSkipJumpSettings = self.settings
        noise = torch.rand(settings.noise_starts, *images.shape[1:], device=images.device)
        candidates = torch.cat([images, noise])
        suitable = _misclassified(_answers(target, candidates), labels.unsqueeze(1))
        distances = _distances(images, candidates, budget.norm).masked_fill(~suitable, torch.inf)
        rows = (suitable.any(dim=1) & ~suitable.diagonal()).nonzero().flatten()
        adversarial = images.clone()
        if len(rows):
            search = _Search(target, images[rows], labels[rows], budget.norm)
            order = distances[rows].argsort(dim=1, stable=True)[:, : settings.starts]
            order = torch.where(distances[rows].gather(1, order).isfinite(), order, order[:, :1])
            points = search.run(candidates[order.T], settings)
            verified = search.misclassified(points)
            adversarial[rows[verified]] = points[verified]
        return adversarial


@final
class _Search:
    """Search along the boundary towards each clean image, all of them step by step together."""

    def __init__(self, target: Target, images: Tensor, labels: Tensor, norm: Norm) -> None:
        self._target = target
        self._images = images
        self._labels = labels
        self._norm = norm
        self._n_values = images[0].numel()

    def run(self, starts: Tensor, settings: HopSkipJumpSettings) -> Tensor:
        """Return the nearest boundary points seen on the way from misclassified images (algorithm 2).

        Args:
            starts: ``S`` of them for each clean image, shape ``(S, N, C, H, W)``.
            settings: parameters of the search.
        """
        points, distance = self._nearest_boundary(starts)
        nearest, least = points, distance
        for step in range(1, settings.steps + 1):
            reach = torch.full_like(distance, _FIRST_REACH) if step == 1 else distance / self._n_values
            n_evals = min(int(settings.initial_gradient_evals * math.sqrt(step)), settings.max_gradient_evals)
            normals = self._normals(points, _as_images(reach.clamp_min(_LEAST_REACH)), n_evals)
            points = self._to_boundary(self._stepped(points, normals, distance / math.sqrt(step)))
            distance = self._distance(points)
            # The way along the boundary may lead away again: the nearest point of all is kept.
            nearest = torch.where(_as_images(distance < least), points, nearest)
            least = torch.minimum(distance, least)
        return nearest

    def misclassified(self, points: Tensor) -> Tensor:
        """Ask about points in the images' order, ``k`` times over: bool, shape ``(k * N,)``."""
        labels = self._labels.repeat(len(points) // len(self._labels))
        return _misclassified(_answers(self._target, points), labels)

    def _nearest_boundary(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest of the boundary points between each image and its starts, and how far it is."""
        boundaries = [self._to_boundary(points) for points in starts]
        distances = torch.stack([self._distance(points) for points in boundaries])
        which = distances.argmin(dim=0)
        rows = torch.arange(len(which), device=which.device)
        return torch.stack(boundaries)[which, rows], distances[which, rows]

    def _distance(self, points: Tensor) -> Tensor:
        return perturbation_norms(self._images, points, self._norm).to(points.dtype)

    def _to_boundary(self, points: Tensor) -> Tensor:
        """Return the point nearest to the clean image that a binary search finds misclassified.

        It searches the straight way in L2; in Linf every value moves at the same speed until it is the clean one.
        """
        linf = self._norm == "linf"
        high = self._distance(points) if linf else torch.ones_like(self._labels, dtype=points.dtype)
        low = torch.zeros_like(high)
        # So many halvings reach the authors' precision: d^-2 of the way in Linf, d^-1.5 in L2, for d values.
        for _ in range(math.ceil((2 if linf else 1.5) * math.log2(self._n_values))):
            middle = (low + high) / 2
            wrong = self.misclassified(self._on_the_way(points, middle))
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
        return self._on_the_way(points, high)

    def _on_the_way(self, points: Tensor, where: Tensor) -> Tensor:
        """Return the points at ``where`` between the clean images, at 0, and ``points``, shape ``(N,)``."""
        where = _as_images(where)
        if self._norm == "linf":
            return torch.maximum(torch.minimum(points, self._images + where), self._images - where)
        return (1 - where) * self._images + where * points

    def _normals(self, points: Tensor, reach: Tensor, n_evals: int) -> Tensor:
        """Estimate the boundary's normals at ``points``, of L2 length 1, to the misclassified side (equation 16).

        They are means over random directions, ``reach`` long, weighted by the answers less their own mean.
        """
        weighted, unweighted, votes = torch.zeros_like(points), torch.zeros_like(points), torch.zeros_like(reach)
        for first in range(0, n_evals, _DIRECTIONS_AT_ONCE):
            shape = (min(_DIRECTIONS_AT_ONCE, n_evals - first), 1, *points.shape[1:])
            moved = (points + reach * self._directions(shape, points.device)).clamp(0, 1)
            # The move that was made: the box may have cut some of it off.
            moves = (moved - points) / reach
            wrong = self.misclassified(moved.flatten(0, 1)).view(len(moved), len(points), 1, 1, 1)
            vote = torch.where(wrong, 1.0, -1.0)
            weighted, unweighted, votes = (
                weighted + (vote * moves).sum(dim=0),
                unweighted + moves.sum(dim=0),
                votes + vote.sum(dim=0),
            )
        mean = votes / n_evals
        # Where all answers are alike, less their mean they would all be zero.
        normals = torch.where(mean.abs() == 1, weighted, weighted - mean * unweighted)
        return normals / _as_images(normals.flatten(1).norm(dim=1).clamp_min(1e-12))

    def _directions(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Draw directions of L2 length 1, the same ones for every image."""
        linf = self._norm == "linf"
        noise = 2 * torch.rand(shape, device=device) - 1 if linf else torch.randn(shape, device=device)
        lengths: Tensor = torch.linalg.vector_norm(noise.flatten(1), dim=1)
        return noise / lengths.view(-1, 1, 1, 1, 1)

    def _stepped(self, points: Tensor, normals: Tensor, lengths: Tensor) -> Tensor:
        """Return points one step along the normals, halved until they are misclassified; else ``points`` themselves."""
        directions = normals.sign() if self._norm == "linf" else normals
        stepped, standing = points, torch.ones_like(self._labels, dtype=torch.bool)
        for _ in range(_HALVINGS):
            proposals = (points + _as_images(lengths) * directions).clamp(0, 1)
            wrong = standing & self.misclassified(proposals)
            stepped, standing = torch.where(_as_images(wrong), proposals, stepped), standing & ~wrong
            if not standing.any():
                break
            lengths = lengths / 2
        return stepped


def _answers(target: Target, images: Tensor) -> Tensor:
    """Return the class answered to each image, or that it is rejected or has no answer: int64, shape ``(N,)``."""
    logits: Tensor = target(images)
    # Logits that are all equal name no class, as those of a failed vote; argmax would read class 0 into them.
    answers = logits.argmax(dim=1).masked_fill(logits.amax(dim=1) == logits.amin(dim=1), _NO_ANSWER)
    if not isinstance(target.module, Detecting):
        return answers
    return answers.masked_fill((target.rejections(images) > 0).any(dim=1), _REJECTED)


def _misclassified(answers: Tensor, labels: Tensor) -> Tensor:
    return (answers != labels) & (answers != _REJECTED)


def _distances(images: Tensor, others: Tensor, norm: Norm) -> Tensor:
    """Return the distance of each of ``N`` images to each of ``M`` others, shape ``(N, M)``."""
    # Through matrix products a distance would depend on the batch, and so might the choice of starts.
    exactly = "donot_use_mm_for_euclid_dist"
    return torch.cdist(images.flatten(1), others.flatten(1), p=2 if norm == "l2" else math.inf, compute_mode=exactly)


def _as_images(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
