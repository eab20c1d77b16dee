"""Defense-GAN (Samangouei et al. 2018): a network answers for the nearest image that a generator can make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar, cast, final

import torch
from torch import Tensor, nn

from dkd_baselines._wgan import SMALL, Generator, Schedule, train_generator
from dkd_bench.api import (
    BPDA,
    ConfigError,
    Defense,
    DefenseMeta,
    ImageSpec,
    OnManifold,
    Progress,
    Recipe,
    TrainingSet,
    build_network,
    train_network,
)

MOMENTUM = 0.7
"""Momentum of the descent to the nearest image, with ``SLOWER`` from the authors' code."""
SLOWER = 0.1
"""Factor of the descent's rate in its last fifth."""
ROWS_AT_ONCE = 250
"""Number of descents that go on together: about what a CPU cache holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefenseGANSettings:
    """Settings of Defense-GAN; 0 is for a value by the images' size."""

    restarts: int = 10
    """Number of descents for each image, of which the best counts: the authors' R."""
    steps: int = 0
    """Number of steps of each descent, the authors' L; 0 for 200 as theirs in colour, 50 in gray, 25 under 16
    pixels."""
    rate: float = 10.0
    """Learning rate of the descent on the mean squared error of an image."""
    same_init: bool = False
    """Whether all descents begin where they began in training: no randomness. Otherwise each evaluation draws anew."""
    latent_dimension: int = 0
    """Dimension of the latents; 0 for 128 as the authors', and 32 under 16 pixels."""
    width: int = 0
    """Number of channels of the generator's last hidden layer, the authors' 64; 0 for that in colour, and 16 in
    gray."""
    epochs_ratio: float = 0.0
    """The critic's epochs in units of the recipe's; 0 for 2 if the recipe's rate falls, else 8.

    By the recipe ``paper`` on MNIST these 8 are the authors' 200,000 steps of the generator.
    """
    critic_steps: int = 5
    """Number of the critic's steps for one of the generator."""
    network: str = "auto"
    """Name of the classifier in ``dkd_bench.training.networks``; ``auto`` is that of Table 1 which fits."""

    def __post_init__(self) -> None:
        for name in ("restarts", "rate", "critic_steps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be over 0, got {getattr(self, name)}")
        for name in ("steps", "latent_dimension", "width", "epochs_ratio"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative (0 is for its default), got {getattr(self, name)}")


@final
class DefenseGAN(Defense):
    """Defense-GAN: the class of the nearest image that a GAN can make (Samangouei et al. 2018).

    The classifier learns from real images (the authors' variant Orig). Their hyper-parameters are for MNIST;
    they give none for colour images.
    """

    meta = DefenseMeta(
        name="defense-gan",
        title="Defense-GAN",
        paper="arXiv:1805.06605",
        randomized=True,
        non_differentiable=True,
        optimizes=True,
    )
    Settings: ClassVar[type[Any]] = DefenseGANSettings
    settings: DefenseGANSettings

    def __init__(self, images: ImageSpec, settings: DefenseGANSettings | None = None) -> None:
        """Build classifier and generator."""
        super().__init__(images, settings)
        chosen, small = self.settings, min(images.height, images.width) < SMALL
        self.classifier = build_network(chosen.network, images)
        self.projection = Projection(
            Generator(
                images,
                latent_dimension=chosen.latent_dimension or (32 if small else 128),
                width=chosen.width or (64 if images.channels > 1 else 16),
            ),
            restarts=chosen.restarts,
            steps=chosen.steps or (25 if small else 50 if images.channels == 1 else 200),
            rate=chosen.rate,
            same_init=chosen.same_init,
        )

    @property
    def members(self) -> Sequence[nn.Module]:
        """The classifier, shown images as they are."""
        return [self.classifier]

    def fit(self, data: TrainingSet, *, recipe: Recipe, generator: torch.Generator, progress: Progress) -> None:
        """Train the classifier on real images, then the generator."""
        train_network(
            self.classifier, data, recipe=recipe, generator=generator, progress=progress, description=self.meta.title
        )
        train_generator(
            self.projection.generator,
            data,
            schedule=self.schedule(recipe),
            seed=int(torch.randint(2**62, (), generator=generator)),
            progress=progress,
        )
        self.projection.redraw(generator)

    def schedule(self, recipe: Recipe) -> Schedule:
        """Return the schedule of the generator's training where networks are trained by ``recipe``."""
        decays = recipe.schedule != "constant"
        ratio = self.settings.epochs_ratio or (2 if decays else 8)
        return Schedule(
            epochs=ceil(recipe.epochs * ratio),
            learning_rate=recipe.learning_rate,
            decays=decays,
            critic_steps=self.settings.critic_steps,
        )

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the class of the nearest image that the generator can make."""
        labels: Tensor = self.classifier(self.projection(x, generator)).argmax(dim=1)
        return labels

    def surrogates(self) -> Mapping[str, nn.Module]:
        """Offer BPDA with the identity, and the generator itself (Athalye et al. 2018)."""
        return {"bpda-identity": ThroughProjection(self.projection, self.classifier)}


@final
class Projection(nn.Module):
    """Projection of each image onto the nearest one that ``generator`` makes, as far as gradient descent finds it."""

    start: Tensor

    def __init__(self, generator: Generator, *, restarts: int, steps: int, rate: float, same_init: bool) -> None:
        """Take the generator and the parameters of the descent."""
        super().__init__()
        self.generator = generator
        self.restarts = restarts
        self.steps = steps
        self.rate = rate
        self.same_init = same_init
        self.register_buffer("start", torch.zeros(restarts, generator.latent_dimension))

    def redraw(self, generator: torch.Generator) -> None:
        """Draw where the descents begin if they always begin at the same latents."""
        self.start.copy_(self._drawn(1, generator)[0])

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the nearest generated images, ``(N, C, H, W)``; draws from the global generator if none is given."""
        starts = self.start.expand(len(x), -1, -1) if self.same_init else self._drawn(len(x), generator)
        images_at_once = max(1, ROWS_AT_ONCE // self.restarts)
        pieces = zip(x.detach().split(images_at_once), starts.split(images_at_once), strict=True)
        return torch.cat([self._nearest(*piece) for piece in pieces])

    def extra_repr(self) -> str:
        """Show the parameters."""
        return f"restarts={self.restarts}, steps={self.steps}, rate={self.rate}, same_init={self.same_init}"

    def _drawn(self, number: int, generator: torch.Generator | None) -> Tensor:
        """Return latents from N(0, I / d), shape ``(number, restarts, d)``: nearer to 0 than those of training."""
        shape = (number, *self.start.shape)
        device = self.start.device if generator is None else generator.device
        drawn = torch.randn(shape, generator=generator, device=device).to(self.start.device)
        starts: Tensor = drawn / self.start.shape[1] ** 0.5
        return starts

    def _nearest(self, images: Tensor, starts: Tensor) -> Tensor:
        goals = images.repeat_interleave(self.restarts, dim=0)
        latents = descend(self.generator, goals, starts.flatten(0, 1), steps=self.steps, rate=self.rate)
        with torch.no_grad():
            made: Tensor = self.generator(latents)
        best = (made - goals).flatten(1).square().mean(dim=1).view(-1, self.restarts).argmin(dim=1)
        rows = torch.arange(len(images), device=images.device) * self.restarts + best
        return made[rows]


def descend(generator: nn.Module, goals: Tensor, starts: Tensor, *, steps: int, rate: float) -> Tensor:
    """Return the latents that ``steps`` of gradient descent with momentum reach, each from its own start.

    Args:
        generator: images ``(N, C, H, W)`` out of latents ``(N, d)``.
        goals: images to come near to, by the mean squared error over an image's values.
        starts: latents, shape ``(N, d)``.
        steps: how many; from ``ceil(0.8 * steps)`` on they are ten times as short.
        rate: learning rate of the first steps.
    """
    latents = starts.clone().requires_grad_()
    velocity = torch.zeros_like(starts)
    n_values = goals[0].numel()
    for step in range(steps):
        with torch.enable_grad():
            # Summed over images, so that no image's step depends on how many go together.
            error = (generator(latents) - goals).square().sum() / n_values
            (gradient,) = torch.autograd.grad(error, latents)
        velocity.mul_(MOMENTUM).add_(gradient)
        with torch.no_grad():
            latents.sub_(velocity, alpha=rate * (SLOWER if step >= ceil(0.8 * steps) else 1.0))
    return latents.detach()


@final
class ThroughProjection(OnManifold):
    """Projection and classifier, the projection differentiated as the identity (BPDA); and what is behind them."""

    def __init__(self, projection: Projection, classifier: nn.Module) -> None:
        """Take both parts of the defence."""
        super().__init__()
        self.latent_dimension = projection.generator.latent_dimension
        self.whole = BPDA(projection, classifier)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(N, K)`` of the nearest generated images."""
        logits: Tensor = self.whole(x)
        return logits

    def generate(self, latent: Tensor) -> Tensor:
        """Return the images of latents."""
        images: Tensor = cast("Projection", self.whole.step).generator(latent)
        return images

    def classify(self, images: Tensor) -> Tensor:
        """Return the classifier's logits of images that the generator made."""
        logits: Tensor = self.whole.network(images)
        return logits
