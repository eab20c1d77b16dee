"""Wrapper around every attack of Foolbox, which keeps the library's failures away from the numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, ClassVar, final

import torch
from foolbox.attacks.base import FixedEpsilonAttack, MinimizationAttack
from foolbox.criteria import Misclassification
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn

from dkd_bench.attacks._base import Attack
from dkd_bench.budget import Budget, Norm
from dkd_bench.target import Target

LIBRARIES = ("foolbox", "eagerpy")
"""Distributions whose versions decide what every attack here is."""


class FoolboxAttack(Attack):
    """Attack of Foolbox; a row of the table derives from it and has no code of its own.

    The fields of its ``Settings`` are the arguments of Foolbox's class, by Foolbox's names; but ``restarts``, where
    it is one of them, says how often the whole is run.
    """

    library: ClassVar[Mapping[Norm, type[FixedEpsilonAttack] | type[MinimizationAttack]]]
    """Class of Foolbox for each norm of the meta, in the same order."""
    short_steps: ClassVar[int | None] = None
    """Steps in which a minimum-norm attack is done with most images: a run of so many comes first, and the full one is
    for the images that it left. ``None`` where that would change the result or save nothing."""

    @final
    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return the nearest misclassified images, the one point of a single step, or the best point of a search."""
        if self.meta.kind == "minimum_norm":
            return self._nearest(target, images, labels, budget)
        if self.meta.single_step:
            return self._point(target, images, labels, budget)
        return self._best(target, images, labels, budget)

    def _nearest(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Attack the images that ``target`` still gets right; the others stay as they are.

        Foolbox returns something else where it failed, as DeepFool its last iterate; so only what ``target``
        misclassifies is taken over.
        """
        adversarial = images.clone()
        with torch.no_grad():
            left = (target(images).argmax(dim=1) == labels).nonzero().flatten()
        for settings in self._attempts():
            if not len(left):
                break
            with _root_logger_kept():
                found = self._built(budget, settings).run(
                    _foolbox_model(target, images), images[left], Misclassification(labels[left])
                )
            with torch.no_grad():
                fooled = target(found).argmax(dim=1) != labels[left]
            adversarial[left[fooled]] = found[fooled]
            left = left[~fooled]
        return adversarial

    def _attempts(self) -> list[Any]:
        """Return the settings of a short run, if there is to be one, and those of the full one."""
        if self.short_steps is None or self.short_steps >= self.settings.steps:
            return [self.settings]
        return [replace(self.settings, steps=self.short_steps), self.settings]

    def _best(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return for each image the best point of all that Foolbox queries, and of those that it returns.

        Foolbox returns the last iterate, which on a rough loss is often worse than an earlier one. The largest margin
        of a wrong class over the label wins: a misclassified point before any other. An image that is never
        misclassified comes back as the point that came nearest to it, since a judge other than the target may well
        fall for that.
        """
        queries = _BestQuery(target, images, labels)
        for _ in range(getattr(self.settings, "restarts", 1)):
            last = self._point(queries, images, labels, budget)
            # The point that Foolbox returns is the one that it has not queried itself.
            with torch.no_grad():
                queries(last)
        return queries.best

    def _point(self, module: nn.Module, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return Foolbox's images inside a budget."""
        assert budget.eps is not None, "Attack.run refuses a fixed attack without eps"
        point: Tensor = self._built(budget, self.settings).run(
            _foolbox_model(module, images), images, Misclassification(labels), epsilon=budget.eps
        )
        return point

    def _built(self, budget: Budget, settings: Any) -> Any:
        arguments = asdict(settings)
        arguments.pop("restarts", None)
        return self.library[budget.norm](**arguments)


class _BestQuery(nn.Module):
    """Proxy that passes queries on to the target and keeps for each image that with the largest wrong-class margin."""

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


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo ``logging.info`` of Foolbox's DeepFool, which gives a bare root logger a handler for good."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    try:
        yield
    finally:
        root.handlers[:] = handlers
