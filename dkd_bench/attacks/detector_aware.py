"""Attacks on classifiers that reject: an example must be misclassified and get past the detectors.

An attack that follows the classifier alone walks into the detectors, and its failure says nothing (Carlini and
Wagner 2017, "MagNet and 'Efficient Defenses Against Adversarial Attacks' are not robust").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from dkd_bench.attacks._base import Attack, AttackMeta
from dkd_bench.attacks._checks import require_positive
from dkd_bench.attacks._verdict import Verdict, verdict_on
from dkd_bench.budget import Budget, project
from dkd_bench.errors import ConfigError
from dkd_bench.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorPGDSettings:
    """Parameters of detector-aware PGD.

    Raises:
        ConfigError: if a number is out of range.
    """

    steps: int = 100
    rel_stepsize: float = 0.5
    """First step in units of eps; the steps shrink to nothing along half a cosine."""
    restarts: int = 2
    momentum: float = 0.75
    """Weight, in [0, 1), of the earlier directions in each step."""
    kappa: float = 0.0
    """Margin, in logits, from which on an image counts as misclassified safely enough."""

    def __post_init__(self) -> None:
        require_positive(self, "steps", "rel_stepsize", "restarts")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum must be in [0, 1), got {self.momentum}")
        if self.kappa < 0:
            raise ConfigError(f"kappa must not be negative, got {self.kappa}")


@final
class DetectorPGD(Attack):
    """Projected gradient ascent to where the classifier is wrong and no detector rejects.

    It is selective (Bryniarski et al. 2021, arXiv:2106.15023): each step follows the classifier until it is fooled,
    away from the label and towards no wrong class in particular, and from there the detectors that reject, so that no
    weight between them matters. Where the two are opposed, such steps swing to and fro; the momentum that is added here
    keeps of either direction what the other does not undo. Without it, against autoencoders as detectors on MNIST in
    Linf, a third of the examples is found.

    What gets past both stays as it is. Of an image for which nothing does, the best queried point comes back:
    misclassified and rejected by the least, else the most nearly misclassified.
    """

    meta = AttackMeta(name="detector-pgd", title="Detector-aware PGD", kind="fixed", access="detectors", effort="steps")
    Settings: ClassVar[type[Any]] = DetectorPGDSettings

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return the best queried point of each image, the clean one included."""
        settings: DetectorPGDSettings = self.settings
        best = _BestPoints(images, labels, kappa=settings.kappa)
        with torch.no_grad():
            best.offer(torch.arange(len(images), device=images.device), images, verdict_on(target, images, labels))
        for _ in range(settings.restarts):
            starts = project(images, images + _random_perturbations(images, budget), budget)
            self._ascend(target, budget, starts, best)
        return best.points

    def _ascend(self, target: Target, budget: Budget, starts: Tensor, best: _BestPoints) -> None:
        """Offer to ``best`` what is on the way from ``starts``, of the images that are not done."""
        settings: DetectorPGDSettings = self.settings
        rows = (~best.done).nonzero().flatten()
        x, direction = starts[rows], torch.zeros_like(starts[rows])
        for step in range(settings.steps + 1):
            if not len(rows):
                return
            x = x.detach().requires_grad_()
            verdict = verdict_on(target, x, best.labels[rows])
            best.offer(rows, x.detach(), verdict)
            if step == settings.steps:
                return
            # One aim at a time for each image: a wrong class first, and where it leads, past the detectors.
            loss = torch.where(verdict.margin <= settings.kappa, verdict.pull, -verdict.excess())
            direction = settings.momentum * direction + _unit(_gradient(loss, x))
            length = settings.rel_stepsize * _eps(budget) * _cosine(step, settings.steps)
            stepped = x.detach() + length * (direction.sign() if budget.norm == "linf" else _unit(direction))
            standing = ~best.done[rows]
            rows, direction = rows[standing], direction[standing]
            x = project(best.images[rows], stepped[standing], budget)


@final
class _BestPoints:
    """Best point of each image among all that are offered."""

    def __init__(self, images: Tensor, labels: Tensor, *, kappa: float) -> None:
        self.images = images
        self.labels = labels
        self.points = images.clone()
        self.done = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        """Which points are a success by the margin asked for."""
        self._ranks = torch.full((len(images),), -torch.inf, device=images.device)
        self._kappa = kappa

    def offer(self, rows: Tensor, points: Tensor, verdict: Verdict) -> None:
        """Take over those of ``points`` that beat what there is for the images ``rows``."""
        margin, excess = verdict.margin.detach(), verdict.excess().detach()
        # Three bands: up to 0 while the label wins, in (0, 1] if fooled and rejected, from 2 on for a success.
        fooled_rank = torch.where(verdict.success, 2 + margin.clamp_max(self._kappa), 1 / (1 + excess))
        ranks = torch.where(verdict.fooled, fooled_rank, margin)
        better = ranks > self._ranks[rows]
        self.points[rows[better]], self._ranks[rows[better]] = points[better], ranks[better]
        self.done[rows] |= verdict.success & (margin > self._kappa)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorCarliniWagnerSettings:
    """Parameters of detector-aware Carlini-Wagner.

    The authors' attack on MagNet takes up to 4 times 10,000 steps of 0.01; here it is 5 times 200, which begin at 0.1
    and shrink to nothing along half a cosine.

    Raises:
        ConfigError: if a number is out of range.
    """

    binary_search_steps: int = 5
    steps: int = 200
    stepsize: float = 0.1
    initial_const: float = 0.1
    detector_weight: float = 1.0
    """Weight of the detectors beside the classifier's logits."""
    kappa: float = 0.0
    """Margin, in logits, that a misclassified image must have."""
    slack: float = 0.0
    """Distance from rejecting that each detector must keep; for examples that are to pass detectors not seen here."""

    def __post_init__(self) -> None:
        require_positive(self, "binary_search_steps", "steps", "stepsize", "initial_const", "detector_weight")
        for name in ("kappa", "slack"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")


_INSIDE = 0.9999
"""Distance of black and white from grey before tanh, which does not reach 1; L2 suffers in the fifth place."""


@final
class DetectorCarliniWagner(Attack):
    """Nearest image in L2 that is misclassified and gets past every detector (Carlini and Wagner 2017).

    Adam on ``|d|^2 + c * ([kappa - margin]_+ + w * sum_d [rejection_d + slack]_+)``, in a variable whose tanh is
    the image, and for each image a binary search over ``c``. The authors weight the detectors' part with a
    constant of its own; with ``c`` before both, a ``c`` that is large enough always makes both parts count. No
    image's search depends on the others in the batch.
    """

    meta = AttackMeta(
        name="detector-cw",
        title="Detector-aware C&W",
        kind="minimum_norm",
        norms=("l2",),
        access="detectors",
    )
    Settings: ClassVar[type[Any]] = DetectorCarliniWagnerSettings

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return the nearest accepted images, the clean ones where none is found."""
        with torch.no_grad():
            left = (~verdict_on(target, images, labels).success).nonzero().flatten()
        adversarial = images.clone()
        if len(left):
            adversarial[left] = self._nearest(target, images[left], labels[left])
        return adversarial

    def _nearest(self, target: Target, images: Tensor, labels: Tensor) -> Tensor:
        settings: DetectorCarliniWagnerSettings = self.settings
        found, distance = images.clone(), images.new_full((len(images),), torch.inf)
        const = torch.full_like(distance, settings.initial_const)
        low, high = torch.zeros_like(const), torch.full_like(const, torch.inf)
        for _ in range(settings.binary_search_steps):
            points, squared = self._descend(target, images, labels, const)
            found = torch.where((squared < distance).view(-1, 1, 1, 1), points, found)
            distance = torch.minimum(squared, distance)
            passed = squared.isfinite()
            low, high = torch.where(passed, low, const), torch.where(passed, const, high)
            # Without an upper end, which only a success gives, ten times as much is tried.
            const = torch.where(high.isfinite(), (low + high) / 2, 10 * const)
        return found

    def _descend(self, target: Target, images: Tensor, labels: Tensor, const: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest accepted points of one descent, and their squared distances; infinite where none."""
        settings: DetectorCarliniWagnerSettings = self.settings
        nearest, distance = images.clone(), images.new_full((len(images),), torch.inf)
        variable = ((2 * images - 1) * _INSIDE).atanh().requires_grad_()
        optimizer = torch.optim.Adam([variable], lr=settings.stepsize)
        for step in range(settings.steps):
            optimizer.param_groups[0]["lr"] = settings.stepsize * _cosine(step, settings.steps)
            x = (variable.tanh() + 1) / 2
            verdict = verdict_on(target, x, labels)
            squared = (x - images).flatten(1).square().sum(dim=1)
            violation = (settings.kappa - verdict.margin).clamp_min(0)
            violation = violation + settings.detector_weight * verdict.excess(settings.slack)
            better = verdict.fooled & (violation.detach() == 0) & (squared.detach() < distance)
            nearest = torch.where(better.view(-1, 1, 1, 1), x.detach(), nearest)
            distance = torch.where(better, squared.detach(), distance)
            variable.grad = _gradient(squared + const * violation, variable)
            optimizer.step()
        return nearest, distance


def _cosine(step: int, steps: int) -> float:
    """Return the factor of a step's length, from 1 at the first one to 0 after the last."""
    return (1 + math.cos(math.pi * step / steps)) / 2


def _gradient(loss: Tensor, x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    return gradient


def _random_perturbations(images: Tensor, budget: Budget) -> Tensor:
    """Return a point of the budget's ball for each image, uniform in Linf, in L2 of uniform direction and length."""
    if budget.norm == "linf":
        return _eps(budget) * (2 * torch.rand_like(images) - 1)
    # Evenly by volume nearly all starts would lie on the edge: there are hundreds of dimensions.
    lengths = torch.rand(len(images), 1, 1, 1, device=images.device)
    return _eps(budget) * lengths * _unit(torch.randn_like(images))


def _unit(directions: Tensor) -> Tensor:
    """Return each image's direction with L2 length 1; nothing where it is nothing."""
    lengths: Tensor = torch.linalg.vector_norm(directions.flatten(1), dim=1)
    return directions / lengths.clamp_min(1e-12).view(-1, 1, 1, 1)


def _eps(budget: Budget) -> float:
    assert budget.eps is not None, "Attack.run refuses a fixed attack without eps"
    return budget.eps
