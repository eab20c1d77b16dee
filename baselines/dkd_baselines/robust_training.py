"""Robust references: networks trained on the worst images near those they learn from, so that some rows stand."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from dkd_bench.api import (
    Budget,
    ConfigError,
    DefenseMeta,
    ImageSpec,
    Objective,
    Progress,
    Recipe,
    SingleNetwork,
    TrainingBatch,
    TrainingSet,
    TrainingStep,
    build_network,
    project,
    train_network,
)

WARM_UP = 0.3
"""Fraction of training in which the budget grows to its full size; without it a network learns one answer for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustSettings:
    """Settings of adversarial training."""

    eps: float = 0.0
    """Linf budget of the training images; 0 for that of the dataset: 0.3 for MNIST, 0.1 for digits, 8/255 in colour."""
    steps: int = 10
    """Number of gradient steps for each batch."""
    rel_stepsize: float = 0.25
    """Length of one step in units of eps."""
    epochs_ratio: float = 2.5
    """Epochs in units of the recipe's: learning to stand takes longer than learning to answer."""
    network: str = "auto"
    """A name of ``dkd_bench.training.networks``; ``auto``: ``strided`` for large gray images, else that of Table 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= 1:
            raise ConfigError(f"eps must be in (0, 1], or 0 for the dataset's own, got {self.eps}")
        if self.steps < 1:
            raise ConfigError(f"steps must be at least 1, got {self.steps}")
        if self.rel_stepsize <= 0 or self.epochs_ratio <= 0:
            raise ConfigError(
                f"rel_stepsize and epochs_ratio must be positive, got {self.rel_stepsize} and {self.epochs_ratio}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TradesSettings(RobustSettings):
    """Settings of TRADES."""

    beta: float = 1.0
    """Weight of the robust term: the authors' 1 on MNIST; they take 6 on CIFAR10."""

    def __post_init__(self) -> None:
        RobustSettings.__post_init__(self)
        if self.beta <= 0:
            raise ConfigError(f"beta must be positive, got {self.beta}")


class RobustNetwork(SingleNetwork):
    """One network trained by an adversarial objective."""

    settings: RobustSettings

    def __init__(self, images: ImageSpec, settings: RobustSettings | None = None) -> None:
        """Build the network."""
        super().__init__(images, settings)
        large_gray = images.channels == 1 and min(images.height, images.width) >= 16
        default = "strided" if large_gray else "auto"
        self.network = build_network(default if self.settings.network == "auto" else self.settings.network, images)

    @property
    def eps(self) -> float:
        """The Linf budget that the network is trained to stand."""
        if self.settings.eps:
            return self.settings.eps
        if self.images.channels > 1:
            return 8 / 255
        return 0.3 if min(self.images.height, self.images.width) >= 16 else 0.1

    def fit(self, data: TrainingSet, *, recipe: Recipe, generator: torch.Generator, progress: Progress) -> None:
        """Train by the objective, for ``epochs_ratio`` times the recipe's epochs."""
        longer = replace(recipe, epochs=max(1, round(recipe.epochs * self.settings.epochs_ratio)))
        train_network(
            self.network,
            data,
            recipe=longer,
            generator=generator,
            objective=self.objective(),
            progress=progress,
            description=self.meta.title,
        )

    @abstractmethod
    def objective(self) -> Objective:
        """Return the objective that the network minimises."""


@final
class PGDTraining(RobustNetwork):
    """PGD adversarial training (Madry et al. 2018)."""

    meta = DefenseMeta(name="at", title="PGD adversarial training", paper="arXiv:1706.06083")
    Settings: ClassVar[type[Any]] = RobustSettings

    def objective(self) -> Objective:
        """Return the cross-entropy of PGD's images."""
        return PGDObjective(self.settings, self.eps)


@final
class Trades(RobustNetwork):
    """TRADES (Zhang et al. 2019)."""

    meta = DefenseMeta(name="trades", title="TRADES", paper="arXiv:1901.08573")
    Settings: ClassVar[type[Any]] = TradesSettings
    settings: TradesSettings

    def objective(self) -> Objective:
        """Return cross-entropy and the divergence between clean and attacked answers."""
        return TradesObjective(self.settings, self.eps)


class _AdversarialObjective(Objective):
    """Objective whose images are looked for inside a budget that grows to ``eps``."""

    def __init__(self, settings: RobustSettings, eps: float) -> None:
        self.settings = settings
        self.eps = eps

    def identity(self) -> dict[str, Any]:
        """Return the settings and the budget."""
        return asdict(self.settings) | {"objective": type(self).__name__, "eps": self.eps, "warm_up": WARM_UP}

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Return the mean cross-entropy of a batch as it is given."""
        return nn.functional.cross_entropy(batch.logits, batch.labels)

    def worst(self, network: nn.Module, step: TrainingStep, start: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Return images near ``step.images`` on which the network loses most, by signed gradient steps."""
        # Over 0 in the first step too, since a budget of 0 is none.
        budget = Budget(norm="linf", eps=self.eps * min(1.0, max(step.progress, 1e-3) / WARM_UP))
        assert budget.eps is not None, "just given"
        adversarial = project(step.images, start, budget)
        # In the state in which the network will be attacked: no dropout, batch statistics fixed.
        network.eval()
        for _ in range(self.settings.steps):
            leaf = adversarial.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(network(leaf)), leaf)
            adversarial = project(
                step.images, leaf.detach() + self.settings.rel_stepsize * budget.eps * gradient.sign(), budget
            )
        network.train()
        return adversarial

    def noise(self, step: TrainingStep) -> Tensor:
        """Return uniform noise in [-1, 1] of the images' shape."""
        return (torch.rand(step.images.shape, generator=step.generator) * 2 - 1).to(step.images.device)


@final
class PGDObjective(_AdversarialObjective):
    """``CE(f(x'), y)`` where x' maximises it inside the budget (Madry et al. 2018, Eq. 2.1)."""

    def step_loss(self, network: nn.Module, step: TrainingStep) -> Tensor:
        """Return the cross-entropy of PGD's images, from a random start."""
        start = step.images + self.eps * self.noise(step)
        adversarial = self.worst(network, step, start, lambda z: nn.functional.cross_entropy(z, step.labels))
        logits = network(adversarial)
        return self.loss(TrainingBatch(indices=step.indices, labels=step.labels, logits=logits, latent=None))


@final
class TradesObjective(_AdversarialObjective):
    """``CE(f(x), y) + beta * KL(p(x) || p(x'))``, x' maximising the second term (Zhang et al. 2019, Eq. 5).

    The divergence is the mean over the batch that is there, whatever its size; the authors' code divides by a
    number it is given.
    """

    settings: TradesSettings

    def step_loss(self, network: nn.Module, step: TrainingStep) -> Tensor:
        """Return the loss, the images being looked for from a start beside the clean ones."""
        with torch.no_grad():
            clean = network(step.images).log_softmax(dim=1)
        # At the clean images themselves the divergence is 0, and so is its gradient.
        start = step.images + 0.001 * self.noise(step)
        adversarial = self.worst(network, step, start, lambda z: _divergence(z.log_softmax(dim=1), clean))
        logits = network(torch.cat([step.images, adversarial]))
        ours, theirs = logits.log_softmax(dim=1).chunk(2)
        batch = TrainingBatch(indices=step.indices, labels=step.labels, logits=logits.chunk(2)[0], latent=None)
        return self.loss(batch) + self.settings.beta * _divergence(theirs, ours)


def _divergence(attacked: Tensor, clean: Tensor) -> Tensor:
    """Return ``KL(clean || attacked)`` of log-probabilities ``(N, K)``, the mean over images."""
    return nn.functional.kl_div(attacked, clean, reduction="batchmean", log_target=True)
