"""Attack made for Defense-GAN: a misclassified image among those that the defence's own generator makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from dkd_bench.attacks._base import Attack, AttackMeta
from dkd_bench.attacks._checks import require_positive
from dkd_bench.budget import Budget
from dkd_bench.errors import AttackError, ConfigError
from dkd_bench.target import Target

ROWS_AT_ONCE = 250
"""Number of latents that are moved together: about what a CPU cache holds of a generator's layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentSettings:
    """Parameters of the search among generated images.

    Athalye et al. take 30 restarts of 3,000 steps and then 5 x 30,000 steps, with the same stepsize and constant:
    hours for an image on a CPU.

    Raises:
        ConfigError: if a number is out of range.
    """

    restarts: int = 10
    """Number of latents from which the search for the nearest generated image begins."""
    search_steps: int = 100
    """Number of steps of each of these searches."""
    binary_search_steps: int = 4
    steps: int = 100
    """Number of steps towards the boundary for each constant that is tried."""
    stepsize: float = 0.1
    initial_const: float = 1.0
    kappa: float = 4.0
    """Lead, in logits, that a wrong class must have: room for a defence that finds a neighbour of the image.

    At 0 the image lies on the classifier's boundary, and a random search ends on either side of it.
    """

    def __post_init__(self) -> None:
        require_positive(self, "restarts", "search_steps", "binary_search_steps", "steps", "stepsize", "initial_const")
        if self.kappa < 0:
            raise ConfigError(f"kappa must not be negative, got {self.kappa}")


@final
class LatentSpace(Attack):
    """Nearest misclassified image that the generator makes (Athalye et al. 2018, section 5.4.1).

    A defence that answers for the nearest generated image has nothing to take away from one that is generated.
    The random search for that image is never asked: it need only find what is there.
    """

    meta = AttackMeta(
        name="latent",
        title="Latent space",
        kind="minimum_norm",
        norms=("l2",),
        averages_draws=True,
        access="generator",
    )
    Settings: ClassVar[type[Any]] = LatentSettings

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return the nearest misclassified generated image that was found, the clean one where there is none."""
        shape = (len(images), self.settings.restarts, target.generator.latent_dimension)
        starts = torch.randn(shape, device=images.device)
        at_once = max(1, ROWS_AT_ONCE // self.settings.restarts)
        pieces = zip(images.split(at_once), labels.split(at_once), starts.split(at_once), strict=True)
        return torch.cat([_Search(target, *piece[:2], settings=self.settings).run(piece[2]) for piece in pieces])


@final
class _Search:
    """Search for the nearest misclassified generated image of each clean one, which keeps the best it comes across."""

    def __init__(self, target: Target, images: Tensor, labels: Tensor, *, settings: LatentSettings) -> None:
        """Take the clean images and their labels."""
        self._target = target
        self._generator = target.generator
        self._images = images
        self._labels = labels
        self._settings = settings
        self._found = images.clone()
        self._distances = torch.full(labels.shape, torch.inf, device=images.device)

    def run(self, starts: Tensor) -> Tensor:
        """Return the best images; ``starts`` are latents of shape ``(N, restarts, d)``."""
        nearest = self._nearest(starts)
        low = torch.zeros_like(self._distances)
        high = torch.full_like(low, torch.inf)
        const = torch.full_like(low, self._settings.initial_const)
        for _ in range(self._settings.binary_search_steps):
            success = self._descend(nearest, const)
            low, high = torch.where(success, low, const), torch.where(success, const, high)
            const = torch.where(high.isinf(), 10 * const, (low + high) / 2)
        return self._found

    def _nearest(self, starts: Tensor) -> Tensor:
        """Return the latents of the nearest generated images, shape ``(N, d)``, of all restarts the best."""
        n_images, restarts, _ = starts.shape
        owners = torch.arange(n_images, device=starts.device).repeat_interleave(restarts)
        goals = self._images[owners]
        latents, optimizer = self._leaf(starts.flatten(0, 1))
        for _ in range(self._settings.search_steps):
            error = _squared_distances(self._generator.generate(latents), goals)
            (latents.grad,) = torch.autograd.grad(error.sum(), latents)
            optimizer.step()
        with torch.no_grad():
            error = _squared_distances(self._generator.generate(latents), goals).view(n_images, restarts)
        return latents.detach().view_as(starts)[torch.arange(n_images, device=starts.device), error.argmin(dim=1)]

    def _descend(self, starts: Tensor, const: Tensor) -> Tensor:
        """Minimise distance and hinge from ``starts``, and return for which images that came upon a success."""
        latents, optimizer = self._leaf(starts)
        success = torch.zeros_like(const, dtype=torch.bool)
        for step in range(self._settings.steps + 1):
            made = self._generator.generate(latents)
            distances = _squared_distances(made, self._images)
            lead = self._lead(made)
            success |= self._take_over(made.detach(), distances.detach(), lead.detach())
            if step < self._settings.steps:
                hinge = (self._settings.kappa - lead).clamp_min(0)
                (latents.grad,) = torch.autograd.grad((distances + const * hinge).sum(), latents)
                self._target.backward_passes += len(latents)
                optimizer.step()
        return success

    def _leaf(self, starts: Tensor) -> tuple[Tensor, torch.optim.Adam]:
        latents = starts.clone().requires_grad_()
        return latents, torch.optim.Adam([latents], lr=self._settings.stepsize)

    def _lead(self, made: Tensor) -> Tensor:
        """Return by how much the likeliest wrong class leads over the label, in logits, shape ``(N,)``."""
        logits = self._generator.classify(made)
        self._target.forward_passes += len(made)
        if not torch.isfinite(logits).all():
            raise AttackError(f"{self._target.name} returned logits that are not finite; no attack on it can be scored")
        labels = self._labels.unsqueeze(1)
        return logits.scatter(1, labels, -torch.inf).amax(dim=1) - logits.gather(1, labels).squeeze(1)

    def _take_over(self, made: Tensor, distances: Tensor, lead: Tensor) -> Tensor:
        """Keep images that are misclassified and nearer than what was found before; return which are misclassified."""
        success = (lead > 0) & (lead >= self._settings.kappa)
        better = success & (distances < self._distances)
        self._found[better] = made[better]
        self._distances[better] = distances[better]
        return success


def _squared_distances(made: Tensor, goals: Tensor) -> Tensor:
    return (made - goals).flatten(1).square().sum(dim=1)
