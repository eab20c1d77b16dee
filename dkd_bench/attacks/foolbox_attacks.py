"""FGSM, PGD, DeepFool and Carlini-Wagner from Foolbox, with its failures kept away from the numbers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from dkd_bench.attacks._base import Attack, AttackMeta
from dkd_bench.attacks._checks import require_positive
from dkd_bench.budget import Budget
from dkd_bench.errors import ConfigError
from dkd_bench.target import Target

with warnings.catch_warnings():
    # Foolbox imports scipy.ndimage.filters, which scipy has deprecated.
    warnings.filterwarnings("ignore", message="Please import `gaussian_filter`", category=DeprecationWarning)
    from foolbox.attacks.base import MinimizationAttack
    from foolbox.attacks.carlini_wagner import L2CarliniWagnerAttack
    from foolbox.attacks.deepfool import L2DeepFoolAttack
    from foolbox.attacks.fast_gradient_method import L2FastGradientAttack, LinfFastGradientAttack
    from foolbox.attacks.projected_gradient_descent import (
        L2ProjectedGradientDescentAttack,
        LinfProjectedGradientDescentAttack,
    )
    from foolbox.criteria import Misclassification
    from foolbox.models.pytorch import PyTorchModel


@dataclass(frozen=True, slots=True, kw_only=True)
class FGSMSettings:
    """Parameters of FGSM."""

    random_start: bool = False


@final
class FGSM(Attack):
    """One gradient step to the edge of the budget (Goodfellow et al. 2015), signed unless in L2."""

    meta = AttackMeta(name="fgsm", title="FGSM", kind="fixed", libraries=("foolbox", "eagerpy"), single_step=True)
    Settings: ClassVar[type[Any]] = FGSMSettings

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return the one point, fooling or not; it is in the budget and the box before anybody clips it."""
        family = LinfFastGradientAttack if budget.norm == "linf" else L2FastGradientAttack
        attack = family(random_start=self.settings.random_start)
        stepped: Tensor = attack.run(
            _foolbox_model(target, images), images, Misclassification(labels), epsilon=_eps(budget)
        )
        return stepped


@dataclass(frozen=True, slots=True, kw_only=True)
class PGDSettings:
    """Parameters of PGD.

    Raises:
        ConfigError: if a number is not positive, or restarts would all be the same.
    """

    steps: int = 40
    rel_stepsize: float = 0.0625
    """One step in units of eps; 40 of them walk 2.5 eps, so every corner of the budget is in reach."""
    random_start: bool = True
    restarts: int = 1

    def __post_init__(self) -> None:
        require_positive(self, "steps", "rel_stepsize", "restarts")
        if self.restarts > 1 and not self.random_start:
            raise ConfigError(f"{self.restarts} restarts of PGD without random_start are all the same; set one of them")


@final
class PGD(Attack):
    """Projected gradient ascent on the cross-entropy (Madry et al. 2018), best point of all steps.

    Foolbox returns the last iterate, which on a rough loss is often worse than an earlier one. Here every
    point that the attack queries, and the last, competes, and the largest margin of a wrong class over the
    label wins: a misclassified point before any other. An image that is never misclassified comes back as the
    point that came nearest to it, since a judge other than the target may well fall for that.
    """

    meta = AttackMeta(name="pgd", title="PGD", kind="fixed", libraries=("foolbox", "eagerpy"), effort="steps")
    Settings: ClassVar[type[Any]] = PGDSettings

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return the best queried point of each image."""
        settings: PGDSettings = self.settings
        family = LinfProjectedGradientDescentAttack if budget.norm == "linf" else L2ProjectedGradientDescentAttack
        attack = family(rel_stepsize=settings.rel_stepsize, steps=settings.steps, random_start=settings.random_start)
        queries = _BestQuery(target, images, labels)
        model = _foolbox_model(queries, images)
        for _ in range(settings.restarts):
            last = attack.run(model, images, Misclassification(labels), epsilon=_eps(budget))
            with torch.no_grad():
                queries(last)
        return queries.best


_SHORT_DEEPFOOL = 6
"""Steps in which DeepFool is done with most images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepFoolSettings:
    """Parameters of DeepFool.

    Raises:
        ConfigError: if a number is out of range.
    """

    steps: int = 50
    candidates: int = 10
    """The likeliest classes that are tried, at most; each costs a forward and a backward pass a step."""
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        require_positive(self, "steps")
        if self.candidates < 2:
            raise ConfigError(
                f"candidates must be at least 2, the class to leave and one to reach, got {self.candidates}"
            )
        if self.overshoot < 0:
            raise ConfigError(f"overshoot must not be negative, got {self.overshoot}")


@final
class DeepFool(Attack):
    """Nearest boundary in L2 by repeated linearisation (Moosavi-Dezfooli et al. 2016).

    Foolbox goes on for the whole batch until its last image is done, though those that are done no longer
    change. So a short run comes first, and the full one is for the images that it left: the same result.
    """

    meta = AttackMeta(
        name="deepfool",
        title="DeepFool",
        kind="minimum_norm",
        norms=("l2",),
        libraries=("foolbox", "eagerpy"),
    )
    Settings: ClassVar[type[Any]] = DeepFoolSettings

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return nearly the nearest misclassified images."""
        settings: DeepFoolSettings = self.settings
        attacks = [
            L2DeepFoolAttack(
                steps=steps, candidates=min(settings.candidates, target.n_classes), overshoot=settings.overshoot
            )
            for steps in sorted({min(_SHORT_DEEPFOOL, settings.steps), settings.steps})
        ]
        return _nearest(attacks, target, images, labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class CarliniWagnerSettings:
    """Parameters of Carlini-Wagner.

    Far fewer steps than Foolbox's 9 x 10000, so the step is longer (black and white pixels start where tanh
    is flat, and short steps never leave it) and the search for the constant starts nearer to where it ends.
    On networks for the digits the median norm is within 2 % of that of 9 x 500 steps; images of thousands of
    pixels whose boundary is very near (L2 below 0.05) want a stepsize of 0.01.

    Raises:
        ConfigError: if a number is out of range.
    """

    binary_search_steps: int = 4
    steps: int = 100
    stepsize: float = 0.1
    initial_const: float = 0.1
    confidence: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "binary_search_steps", "steps", "stepsize", "initial_const")
        if self.confidence < 0:
            raise ConfigError(f"confidence must not be negative, got {self.confidence}")


@final
class CarliniWagner(Attack):
    """Nearest misclassified image in L2 by Adam on margin and distance (Carlini and Wagner 2017).

    Foolbox's early abort is off: it watches the loss summed over the batch, so batch mates would decide. A
    black image is how Foolbox says that it found nothing; most targets misclassify it, so it must not pass.
    """

    meta = AttackMeta(
        name="cw",
        title="Carlini-Wagner",
        kind="minimum_norm",
        norms=("l2",),
        libraries=("foolbox", "eagerpy"),
    )
    Settings: ClassVar[type[Any]] = CarliniWagnerSettings

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return nearly the nearest misclassified images."""
        settings: CarliniWagnerSettings = self.settings
        attack = L2CarliniWagnerAttack(
            binary_search_steps=settings.binary_search_steps,
            steps=settings.steps,
            stepsize=settings.stepsize,
            confidence=settings.confidence,
            initial_const=settings.initial_const,
            abort_early=False,
        )
        adversarial = _nearest([attack], target, images, labels)
        black = (adversarial == 0).flatten(1).all(dim=1)
        return torch.where(black.view(-1, 1, 1, 1), images, adversarial)


def _nearest(attacks: Sequence[MinimizationAttack], target: Target, images: Tensor, labels: Tensor) -> Tensor:
    """Run minimum-norm attacks, each on the images that ``target`` still gets right; the others stay as they are.

    Foolbox returns something else where it failed, as DeepFool its last iterate; so only what ``target``
    misclassifies is taken over.
    """
    adversarial = images.clone()
    with torch.no_grad():
        left = (target(images).argmax(dim=1) == labels).nonzero().flatten()
    for attack in attacks:
        if not len(left):
            break
        with _root_logger_kept():
            found = attack.run(_foolbox_model(target, images), images[left], Misclassification(labels[left]))
        with torch.no_grad():
            fooled = target(found).argmax(dim=1) != labels[left]
        adversarial[left[fooled]] = found[fooled]
        left = left[~fooled]
    return adversarial


class _BestQuery(nn.Module):
    """Passes queries on to the target, and keeps for each image the one with the largest margin of a wrong class."""

    def __init__(self, target: Target, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.target = target
        self.best = images.clone()
        self._margin = torch.full(labels.shape, -torch.inf, device=images.device)
        self._labels = labels.unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the target's logits for ``x``, one query of each image."""
        logits: Tensor = self.target(x)
        others = logits.detach().scatter(1, self._labels, -torch.inf).amax(dim=1)
        margin = others - logits.detach().gather(1, self._labels).squeeze(1)
        better = margin > self._margin
        self.best = torch.where(better.view(-1, 1, 1, 1), x.detach(), self.best)
        self._margin = torch.where(better, margin, self._margin)
        return logits


def _foolbox_model(module: nn.Module, images: Tensor) -> PyTorchModel:
    """Return ``module`` as Foolbox wants it: its device named, or it would pick a GPU; in evaluation mode."""
    return PyTorchModel(module.eval(), bounds=(0, 1), device=images.device)


def _eps(budget: Budget) -> float:
    assert budget.eps is not None, "Attack.run refuses a fixed attack without eps"
    return budget.eps


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo ``logging.info`` of Foolbox's DeepFool, which gives a bare root logger a handler for good."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    try:
        yield
    finally:
        root.handlers[:] = handlers
