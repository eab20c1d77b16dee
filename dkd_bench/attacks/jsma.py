"""JSMA (Papernot et al. 2016): few values of an image pushed to the end of their range, a pair in each step."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor
from torch.nn.functional import pad

from dkd_bench.attacks._base import Attack, AttackMeta
from dkd_bench.attacks._checks import require_positive
from dkd_bench.budget import Budget
from dkd_bench.errors import ConfigError
from dkd_bench.target import Target

VALUES_AT_ONCE = 2**22
"""Number of pixel values of all searches that run at once, at most: it bounds the memory."""

PAIRS_AT_ONCE = 2**18
"""Number of pairs of values compared at once, at most, but one for each contender: about what a CPU cache holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JSMASettings:
    """Parameters of JSMA.

    Raises:
        ConfigError: if a number is out of range.
    """

    theta: float = 1.0
    """Length of a value's move in one step, in [0, 1] pixel units; at 1 all the way."""
    gamma: float = 0.145
    """Largest share of an image's values that may change, in [0, 1]; two of them do in each step."""
    iterations: int = 200
    """Number of steps at most, whatever ``gamma`` allows."""
    increase: bool = True
    """Whether values are raised; else they are lowered."""
    room: float = 0.01
    """Room for a move, in [0, 1] pixel units, at or below which a value is left alone.

    It would count as changed and do nothing. White is often 253 of 255: with no such limit the MNIST digits need
    a tenth more values.
    """
    logits: bool = False
    """Whether the derivatives of the logits choose the pairs, not of the probabilities: JSMA-Z or JSMA-F of Carlini and
    Wagner (2017).

    On the paper's MNIST network the probabilities reach far more classes, with fewer values, at half the backward
    passes. Their derivatives are taken from their logarithm, so that they do not vanish where the softmax
    saturates, as on distilled networks.
    """

    def __post_init__(self) -> None:
        require_positive(self, "iterations")
        for name, meaning in (("theta", "pixel units a step"), ("gamma", "a share of the values")):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ConfigError(f"{name} must be in (0, 1], {meaning}, got {value}")
        if not 0 <= self.room < 1:
            raise ConfigError(f"room must be in [0, 1), pixel units, got {self.room}")


@final
class JSMA(Attack):
    """Misclassified image with few changed values, by the saliency of pairs (Papernot et al. 2016).

    Every wrong class of an image is aimed at, whatever wrong class is reached counts, and of all the images found
    the one with the fewest changed values comes back: of equals the one found in the fewest steps, then the one
    that aimed at the lowest class.
    """

    meta = AttackMeta(name="jsma", title="JSMA", kind="minimum_norm", norms=("l0",))
    Settings: ClassVar[type[Any]] = JSMASettings

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return misclassified images with few changed values, the clean ones where none are found."""
        every = torch.arange(target.n_classes, device=images.device)
        wrong = every != labels.unsqueeze(1)
        aims = every.expand(len(images), -1)[wrong].view(len(images), -1)
        return _Search(target, images, accepted=wrong, settings=self.settings).run(aims)


def targeted_jsma(target: Target, images: Tensor, classes: Tensor, settings: JSMASettings) -> Tensor:
    """Return images that ``target`` puts into ``classes``, one for each clean image; the clean one where none is found.

    Args:
        target: the network, which counts its evaluations.
        images: clean images in [0, 1], float32, shape ``(N, C, H, W)``.
        classes: the class that each image is to be taken for, int64, shape ``(N,)``.
        settings: parameters of the search.
    """
    every = torch.arange(target.n_classes, device=images.device)
    accepted = every == classes.unsqueeze(1)
    with torch.enable_grad():
        return _Search(target, images, accepted=accepted, settings=settings).run(classes.unsqueeze(1))


class _Slopes(NamedTuple):
    """Derivatives of one evaluation of ``R`` points of ``d`` values."""

    answers: Tensor
    """Predicted class, shape ``(R,)``."""
    aimed: Tensor
    """Derivatives of the output for each class aimed at, shape ``(R, T, d)``."""
    total: Tensor
    """Derivatives of the sum of all outputs, shape ``(R, d)``."""


@final
class _Search:
    """Search from each clean image towards one class or several, which keeps the best image found.

    A search is one image and one class that it aims at. All of them go step by step together; one that has
    ended, or can no longer beat the best image found of its clean one, is evaluated no more.
    """

    def __init__(self, target: Target, images: Tensor, *, accepted: Tensor, settings: JSMASettings) -> None:
        """Take the clean images, and which answers are a success for each, bool, shape ``(N, K)``."""
        self._target = target
        self._images = images
        self._accepted = accepted
        self._settings = settings
        self._found = images.clone()
        self._ranks = torch.full((len(images),), torch.iinfo(torch.int64).max, device=images.device)
        self._n_values = images[0].numel()
        # A share such as 0.29 of 100 values is 28.999... in floats.
        allowed = floor(self._n_values * settings.gamma / 2 + 1e-9)
        if allowed < 1:
            raise ConfigError(
                f"gamma must allow a pair of the {self._n_values} values, at least {2 / self._n_values:.3g}; "
                f"got {settings.gamma:g}"
            )
        self._steps = min(settings.iterations, allowed)

    def run(self, aims: Tensor) -> Tensor:
        """Return the best image found of each clean one; ``aims`` are the classes to aim at, shape ``(N, T)``."""
        at_once = max(1, VALUES_AT_ONCE // self._n_values)
        for columns in aims.split(at_once, dim=1):
            images_at_once = max(1, at_once // columns.shape[1])
            everybody = torch.arange(len(self._images), device=aims.device)
            for owners in everybody.split(images_at_once):
                self._together(owners, columns[owners])
        return self._found

    def _together(self, owners: Tensor, aims: Tensor) -> None:
        """Search from the clean images ``owners`` towards each of their ``aims``, shape ``(n, T)``.

        In the first step all searches of an image are at the same point, a row with ``T`` aims; after it every
        row is one search with one aim.
        """
        points = self._images[owners]
        for step in range(self._steps + 1):
            last = step == self._steps
            slopes = self._evaluated(points, owners, aims, differentiated=not last)
            changed = (points != self._images[owners]).flatten(1).sum(dim=1)
            self._take_over(points, owners, slopes.answers, self._rank(changed, step, aims[:, 0]))
            if last:
                return
            hopeful = self._rank(changed.unsqueeze(1), step + 1, aims) < self._ranks[owners].unsqueeze(1)
            rows, columns = hopeful.nonzero(as_tuple=True)
            if not len(rows):
                return
            aimed = slopes.aimed[rows, columns]
            points, moved = self._moved(points[rows], aimed, slopes.total[rows] - aimed)
            points, owners, aims = points[moved], owners[rows][moved], aims[rows, columns][moved].unsqueeze(1)
            if not moved.any():
                return

    def _evaluated(self, points: Tensor, owners: Tensor, aims: Tensor, *, differentiated: bool) -> _Slopes:
        """Ask the target, one of its batches after another, so that no more than one batch's graph is alive."""
        size = self._target.batch_size
        pieces = []
        for x, accepted, classes in zip(
            points.split(size), self._accepted[owners].split(size), aims.split(size), strict=True
        ):
            x = x.detach().requires_grad_(differentiated)
            logits = self._target(x)
            answers = logits.detach().argmax(dim=1)
            # A success ends its search: a batch of nothing else needs no derivatives, which cost the most.
            done = bool(accepted.gather(1, answers.unsqueeze(1)).all()) if differentiated else True
            pieces.append(_Slopes(answers, *(_no_slopes(x, classes) if done else self._slopes(logits, x, classes))))
        return _Slopes(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))

    def _rank(self, changed: Tensor, step: int, aims: Tensor) -> Tensor:
        """Return numbers that order images by changed values, then steps, then class; the lower the better."""
        return (changed * (self._steps + 1) + step) * self._target.n_classes + aims

    def _take_over(self, points: Tensor, owners: Tensor, answers: Tensor, ranks: Tensor) -> None:
        """Keep the points that are a success and better than what was found before."""
        success = self._accepted[owners, answers]
        points, owners, ranks = points[success], owners[success], ranks[success]
        # Several searches of one image may succeed at once; the class in the rank makes one of them the best.
        self._ranks.scatter_reduce_(0, owners, ranks, "amin")
        best = ranks == self._ranks[owners]
        self._found[owners[best]] = points[best]

    def _slopes(self, logits: Tensor, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives for ``classes``, and of the sum of all outputs: T or T + 1 products, not K.

        Those of a probability are taken from its logarithm, which differs by a positive factor: no matter to a
        comparison of pairs. Their sum is 1, and has none.
        """

        def product(outputs: Tensor) -> Tensor:
            (gradient,) = torch.autograd.grad(outputs.sum(), x, retain_graph=True)
            return gradient.flatten(1)

        outputs = logits if self._settings.logits else logits.log_softmax(dim=1)
        aimed = [product(outputs.gather(1, column)) for column in classes.split(1, dim=1)]
        return torch.stack(aimed, dim=1), product(logits) if self._settings.logits else torch.zeros_like(aimed[0])

    def _moved(self, points: Tensor, aimed: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points one step on, and which of them had a pair of values to go by.

        A step raises the pair that does most for the class aimed at and against the others. Lowering is the
        same with both signs turned.
        """
        up = self._settings.increase
        flat = points.flatten(1)
        roomy = flat < 1 - self._settings.room if up else flat > self._settings.room
        # A derivative that overflowed says nothing of its value.
        free = roomy & (aimed + others).isfinite()
        toward, against = (each.where(free, -torch.inf) for each in ((aimed, -others) if up else (-aimed, others)))
        pairs, there = best_pairs(toward, against) if self._settings.logits else steepest_pairs(toward)
        theta = self._settings.theta if up else -self._settings.theta
        stepped = (flat.gather(1, pairs) + theta).clamp(0, 1)
        return flat.scatter(1, pairs, stepped).view_as(points), there


def _no_slopes(x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    zeros = torch.zeros_like(x).flatten(1)
    return zeros.unsqueeze(1).expand(-1, classes.shape[1], -1), zeros


def steepest_pairs(toward: Tensor) -> tuple[Tensor, Tensor]:
    """Return the result of ``best_pairs(toward, toward)``, from the two largest values of each row."""
    first = toward.argmax(dim=1, keepdim=True)
    second = toward.scatter(1, first, -torch.inf).argmax(dim=1, keepdim=True)
    pairs = torch.cat([first, second], dim=1)
    largest = toward.gather(1, pairs)
    return pairs.sort(dim=1).values, (largest[:, 0] + largest[:, 1] > 0) & (pairs[:, 0] != pairs[:, 1])


def best_pairs(toward: Tensor, against: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each row the pair of values with the largest product of the two sums, both of which must be over 0.

    Only contenders are compared. In double precision sums and products of float32 hardly round, and do not
    underflow.

    Args:
        toward: float32, shape ``(R, d)``; -inf where a value must not be chosen.
        against: likewise.

    Returns:
        pairs: indices ``p < q``, int64, shape ``(R, 2)``; of equally good pairs the first in row-major order.
        there: whether the row has any such pair, bool, shape ``(R,)``; where not, the indices mean nothing.
    """
    listed, values = _listed(_contenders(toward, against))
    a, b = (each.double().gather(1, values).where(listed, -torch.inf) for each in (toward, against))
    n_rows, n_listed = a.shape
    every = torch.arange(n_listed, device=a.device)
    best, pairs = a.new_full((n_rows,), -torch.inf), values.new_zeros((n_rows, 2))
    for firsts in every.split(max(1, PAIRS_AT_ONCE // max(1, n_rows * n_listed))):
        sums_a, sums_b = a[:, firsts, None] + a[:, None, :], b[:, firsts, None] + b[:, None, :]
        allowed = (sums_a > 0) & (sums_b > 0) & (firsts[:, None] < every)
        value, position = (sums_a * sums_b).where(allowed, -torch.inf).flatten(1).max(dim=1)
        found = torch.stack([firsts[position // n_listed], position % n_listed], dim=1)
        pairs = found.where((value > best).unsqueeze(1), pairs)
        best = torch.maximum(best, value)
    return values.gather(1, pairs), best > -torch.inf


def _contenders(toward: Tensor, against: Tensor) -> Tensor:
    """Return the values that can be in the best pair, bool, shape ``(R, d)``: those that at most one other dominates.

    A value dominates another if it does as much in both respects, and more in one or comes first. Of two that
    dominate a value, one is not in a pair with it and could take its place there.
    """
    order = against.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, toward.gather(1, order).argsort(dim=1, descending=True, stable=True))
    # Now whatever dominates a value stands before it, and does so if it does as much against the others.
    b = against.gather(1, order)
    largest = _largest_before(b)
    second_largest = _largest_before(torch.minimum(b, largest))
    return torch.zeros_like(b, dtype=torch.bool).scatter(1, order, b > second_largest)


def _largest_before(values: Tensor) -> Tensor:
    return pad(values[:, :-1], (1, 0), value=-torch.inf).cummax(dim=1).values


def _listed(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return a table of the columns that are set in each row, in order, and before it which of its cells are filled."""
    counts = mask.sum(dim=1)
    every = torch.arange(max(1, int(counts.amax())), device=mask.device)
    filled = every < counts.unsqueeze(1)
    return filled, torch.zeros_like(filled, dtype=torch.int64).masked_scatter(filled, mask.nonzero()[:, 1])
