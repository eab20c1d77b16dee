"""WGAN-GP (Gulrajani et al. 2017): a generator of images, and the game with a critic that trains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, pad, pixel_shuffle

from dkd_bench.api import ConfigError, ImageSpec, Progress, TrainingSet, digest_module

SMALL = 16
"""Side, in pixels, below which images are halved twice from layer to layer, others three times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Parameters of training generator and critic, both with Adam of betas 0.5 and 0.9.

    Raises:
        ConfigError: if a number is out of range.
    """

    epochs: int
    """Number of passes of the critic over the training images."""
    learning_rate: float
    decays: bool
    """Whether the learning rate falls to 0 along a line, else it stays."""
    batch_size: int = 50
    critic_steps: int = 5
    """Number of batches that the critic learns from before the generator takes one step."""
    penalty: float = 10.0
    """Weight of the gradient penalty."""

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "batch_size", "critic_steps", "penalty"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"{name} of the generator's training must be over 0, got {value}")


@final
class Generator(nn.Module):
    """Generator of images: a dense layer, then transposed 5x5 convolutions of stride 2, a sigmoid at the end.

    For 28 x 28 gray images and ``width`` 64 the network of Samangouei et al.: 4 x 4 x 256, 7 x 7 x 128, 14 x 14 x 64.
    """

    def __init__(self, images: ImageSpec, *, latent_dimension: int, width: int) -> None:
        """Build it; ``width`` is the number of channels before the last layer."""
        super().__init__()
        self.images = images
        self.latent_dimension = latent_dimension
        self.width = width
        self.sizes = _sizes(images)[::-1]
        channels = _channels(images, width)[::-1]
        self.first = (channels[0], *self.sizes[0])
        self.dense = nn.Linear(latent_dimension, channels[0] * self.sizes[0][0] * self.sizes[0][1])
        self.hidden = nn.ModuleList(_transposed(before, after) for before, after in pairwise(channels[:-1]))
        self.last = _transposed(channels[-2], channels[-1])

    def forward(self, latent: Tensor) -> Tensor:
        """Return images in [0, 1], shape ``(N, C, H, W)``, of latents ``(N, latent_dimension)``."""
        x = self.dense(latent).relu().view(-1, *self.first)
        for layer, (height, width) in zip(self.hidden, self.sizes[1:], strict=False):
            x = layer(x)[:, :, :height, :width].relu()
        height, width = self.sizes[-1]
        return doubled(x, self.last.weight, self.last.bias)[:, :, :height, :width].sigmoid()


def doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the transposed convolution of ``x``, 5x5 of stride 2, as a convolution: four pixels for each one.

    What ``nn.ConvTranspose2d(..., 5, stride=2, padding=2, output_padding=1)`` does, but twice as fast on a CPU
    where few channels come out.
    """
    n_in, n_out = weight.shape[:2]
    phases = pad(weight, (0, 1, 0, 1)).view(n_in, n_out, 3, 2, 3, 2).flip(2, 4).permute(1, 3, 5, 0, 2, 4)
    kernel = phases.reshape(4 * n_out, n_in, 3, 3)
    return pixel_shuffle(conv2d(x, kernel, None if bias is None else bias.repeat_interleave(4), padding=1), 2)


@final
class Critic(nn.Module):
    """Critic with a score for each image, without bounds: 5x5 convolutions of stride 2, leaky ReLU, a dense layer."""

    def __init__(self, images: ImageSpec, *, width: int) -> None:
        """Build it; ``width`` is the number of channels after the first layer."""
        super().__init__()
        channels = _channels(images, width)
        self.layers = nn.ModuleList(nn.Conv2d(before, after, 5, 2, 2) for before, after in pairwise(channels))
        height, length = _sizes(images)[-1]
        self.dense = nn.Linear(channels[-1] * height * length, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores, shape ``(N,)``."""
        for layer in self.layers:
            x = leaky_relu(layer(x), 0.2)
        scores: Tensor = self.dense(x.flatten(1))
        return scores.squeeze(1)


@final
class Game(nn.Module):
    """Both networks, with whatever else decides the outcome of training: their digest is the weights' key."""

    def __init__(self, generator: Generator, critic: Critic, *, schedule: Schedule, dataset: str, seed: int) -> None:
        """Take the generator as it is, and draw the critic's weights by ``seed``."""
        super().__init__()
        self.generator = generator
        self.critic = critic
        self.schedule = schedule
        self.dataset = dataset
        """Digest of the training images."""
        self.seed = seed
        self.library = str(torch.__version__)
        self._randomness = torch.Generator().manual_seed(seed)
        # PyTorch drew them from the global generator; the seed in the key must decide them.
        for parameter in critic.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_uniform_(parameter, a=0.2, generator=self._randomness)
            else:
                nn.init.zeros_(parameter)

    def play(self, data: TrainingSet, progress: Progress) -> None:
        """Train both networks on ``data``."""
        schedule, device = self.schedule, self.generator.dense.weight.device
        optimizers = [
            torch.optim.Adam(network.parameters(), lr=schedule.learning_rate, betas=(0.5, 0.9))
            for network in (self.critic, self.generator)
        ]
        task = progress.start("Defense-GAN: generator", schedule.epochs)
        n_batches = -(-len(data.split) // schedule.batch_size)
        done = 0
        for _ in range(schedule.epochs):
            distance = torch.zeros((), device=device)
            order = torch.randperm(len(data.split), generator=self._randomness)
            for indices in order.split(schedule.batch_size):
                if schedule.decays:
                    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                        group["lr"] = schedule.learning_rate * (1 - done / (schedule.epochs * n_batches))
                distance += self._critic_step(data.split.batch(indices)[0].to(device), optimizers[0])
                done += 1
                if done % schedule.critic_steps == 0:
                    self._generator_step(optimizers[1])
            task.advance(note=f"distance {float(distance) / n_batches:.3f}")

    def _critic_step(self, real: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        """Take one step of the critic and return how far apart it finds real and generated images."""
        with torch.no_grad():
            fake = self.generator(self._latents(len(real)))
        # The penalty holds on the lines between real and generated images (Gulrajani et al. 2017, algorithm 1).
        mixture = torch.rand((len(real), 1, 1, 1), generator=self._randomness).to(real.device)
        scores = self.critic(torch.cat([real, fake]))
        distance: Tensor = scores[: len(real)].mean() - scores[len(real) :].mean()
        penalty = gradient_penalty(self.critic, torch.lerp(real, fake, mixture))
        optimizer.zero_grad(set_to_none=True)
        (self.schedule.penalty * penalty - distance).backward()
        optimizer.step()
        return distance.detach()

    def _generator_step(self, optimizer: torch.optim.Optimizer) -> None:
        loss = -self.critic(self.generator(self._latents(self.schedule.batch_size))).mean()
        optimizer.zero_grad(set_to_none=True)
        # For the generator alone: gradients of the critic's weights would be computed and thrown away.
        loss.backward(inputs=list(self.generator.parameters()))
        optimizer.step()

    def _latents(self, number: int) -> Tensor:
        shape = (number, self.generator.latent_dimension)
        return torch.randn(shape, generator=self._randomness).to(self.generator.dense.weight.device)


def gradient_penalty(critic: nn.Module, images: Tensor) -> Tensor:
    """Return the mean of ``(||grad critic(x)||_2 - 1)^2``, the norm over all values of an image.

    The authors' code sums squares over one axis of the image only, which holds each column to a slope of 1.
    """
    leaves = images.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(critic(leaves).sum(), leaves, create_graph=True)
    penalty: Tensor = (slopes.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


def train_generator(
    network: Generator, data: TrainingSet, *, schedule: Schedule, seed: int, progress: Progress
) -> None:
    """Train ``network`` in place, on the device it is on; one that was trained so before is loaded instead."""
    critic = Critic(network.images, width=network.width).to(network.dense.weight.device)
    game = Game(network, critic, schedule=schedule, dataset=data.digest, seed=seed)
    key = digest_module(game)
    known = data.networks.get(key) if data.networks else None
    if known is not None:
        network.load_state_dict(known)
        progress.start("Defense-GAN: generator", schedule.epochs).advance(schedule.epochs, "trained before")
        return
    game.play(data, progress)
    if data.networks:
        data.networks.put(key, network.state_dict())


def _transposed(n_in: int, n_out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(n_in, n_out, 5, stride=2, padding=2, output_padding=1)


def _sizes(images: ImageSpec) -> Sequence[tuple[int, int]]:
    """Return heights and widths from the image down, each half of the one before, rounded up."""
    sizes = [(images.height, images.width)]
    for _ in range(2 if min(images.height, images.width) < SMALL else 3):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def _channels(images: ImageSpec, width: int) -> Sequence[int]:
    """Return the numbers of channels from the image down: doubled at each of ``_sizes`` after the first."""
    return [images.channels, *(width * 2**level for level in range(len(_sizes(images)) - 1))]
