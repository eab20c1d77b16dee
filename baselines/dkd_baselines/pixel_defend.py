"""PixelDefend (Song et al. 2018): images are moved to where a density finds them likelier, then classified."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from dkd_baselines._pixelcnn import BitsPerDimension, PixelCNN, PixelCNNSize, levels_of
from dkd_baselines._pixelcnn_cached import GreedyPurifier
from dkd_bench.api import (
    BPDA,
    ConfigError,
    Defense,
    DefenseMeta,
    ImageSpec,
    Progress,
    Recipe,
    Split,
    TrainingSet,
    build_network,
    train_network,
)

SMALL = PixelCNNSize(filters=16, resnets=1, resolutions=2, mixtures=5)
"""Size of the density for gray images and those under 16 pixels: an epoch of MNIST takes ten minutes on one core."""
AUTHORS = PixelCNNSize(filters=160, resnets=5, resolutions=3, mixtures=10, dropout=0.5)
"""Size of the authors' density on CIFAR10: for a GPU. On Fashion-MNIST theirs has 40 filters."""

AUTHORS_RATE, ONE_CYCLE_RATE = 1e-3, 5e-3
"""Learning rates of the density: the authors', and the peak of a one-cycle schedule, which has few epochs."""
DENSITY_BATCH = 32
"""Number of images in a step of the density's training, unless the recipe's is smaller; the authors' is 48."""
EVALUATED_AT_ONCE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelDefendSettings:
    """Settings of PixelDefend."""

    eps_defend: float = 0.0
    """Distance that a value may move, in [0, 1]; 0 for 16/255 in colour (the authors'), 0.3 in gray, 0.1 under 16
    pixels."""
    purify_below: float = 1.0
    """Largest p-value of an image that is purified, in [0, 1]: the authors' adaptive variant; 1 purifies all."""
    references: int = 1000
    """Number of training images that a p-value ranks an image among."""
    filters: int = 0
    """Number of filters of the density; 0 for 16, in colour the authors' 160."""
    resnets: int = 0
    """Number of blocks of a resolution of the density; 0 for 1, in colour the authors' 5."""
    resolutions: int = 0
    """Number of resolutions of the density; 0 for 2, in colour the authors' 3, fewer if the sides are not halved as
    often."""
    mixtures: int = 0
    """Number of logistics in the distribution of a pixel; 0 for 5, in colour the authors' 10."""
    epochs_ratio: float = 0.25
    """Epochs of the density in units of the recipe's."""
    network: str = "auto"
    """Name of the classifier in ``dkd_bench.training.networks``; ``auto`` is that of Table 1 which fits."""

    def __post_init__(self) -> None:
        if not 0 <= self.eps_defend <= 1:
            raise ConfigError(f"eps_defend must be in (0, 1], or 0 for the images' own, got {self.eps_defend}")
        if not 0 < self.purify_below <= 1:
            raise ConfigError(f"purify_below must be in (0, 1], a p-value, got {self.purify_below}")
        if self.references < 1:
            raise ConfigError(f"references must be at least 1, got {self.references}")
        for name in ("filters", "resnets", "resolutions", "mixtures"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 1, or 0 for the images' own, got {getattr(self, name)}")
        if self.epochs_ratio <= 0:
            raise ConfigError(f"epochs_ratio must be positive, got {self.epochs_ratio}")


@final
class PixelDefend(Defense):
    """PixelDefend: each pixel becomes the likeliest within reach, given those before it, then a network classifies."""

    meta = DefenseMeta(name="pixel-defend", title="PixelDefend", paper="arXiv:1710.10766", non_differentiable=True)
    Settings: ClassVar[type[Any]] = PixelDefendSettings
    settings: PixelDefendSettings

    def __init__(self, images: ImageSpec, settings: PixelDefendSettings | None = None) -> None:
        """Build the classifier and the density."""
        super().__init__(images, settings)
        self.network = build_network(self.settings.network, images)
        self.purifier = SelectivePurifier(
            PixelCNN(images, density_size(images, self.settings)),
            eps=self.settings.eps_defend or default_reach(images),
            purify_below=self.settings.purify_below,
            references=self.settings.references,
        )

    @property
    def members(self) -> Sequence[nn.Module]:
        """The classifier, without the purification."""
        return [self.network]

    def fit(self, data: TrainingSet, *, recipe: Recipe, generator: torch.Generator, progress: Progress) -> None:
        """Train the classifier on the images as they are, then the density, and rank training images by it."""
        train_network(
            self.network, data, recipe=recipe, generator=generator, progress=progress, description="classifier"
        )
        train_network(
            self.purifier.density,
            data,
            recipe=density_recipe(recipe, self.settings.epochs_ratio),
            generator=generator,
            objective=BitsPerDimension(),
            progress=progress,
            description=self.meta.title,
        )
        self.purifier.remember(data.split, generator)

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Purify, then classify."""
        labels: Tensor = self.network(self.purifier(x)).argmax(dim=1)
        return labels

    def surrogates(self) -> Mapping[str, nn.Module]:
        """Return the whole with the identity for a gradient: what broke it (Athalye et al. 2018)."""
        return {"bpda-identity": BPDA(self.purifier, self.network)}

    def bits_per_dimension(self, x: Tensor) -> Tensor:
        """Return the bits per value that each image takes under the density, float64, shape ``(N,)``."""
        return self.purifier.bits_per_dimension(x)

    def p_values(self, x: Tensor) -> Tensor:
        """Return how likely a training image is to take as many bits as each image, float64, shape ``(N,)``."""
        return self.purifier.p_values(x)


@final
class SelectivePurifier(nn.Module):
    """Purifier of the images that the density finds unlikely, which gives back the others as they are."""

    reference_bits: Tensor

    def __init__(self, density: PixelCNN, *, eps: float, purify_below: float, references: int) -> None:
        """Take the density; without references every image is unlikely."""
        super().__init__()
        self.greedy = GreedyPurifier(density, eps)
        self.purify_below = purify_below
        self.register_buffer("reference_bits", torch.full((references,), -torch.inf, dtype=torch.float64))

    @property
    def density(self) -> PixelCNN:
        """The density of images."""
        return self.greedy.density

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the images as the classifier is to see them, shape ``(N, C, H, W)``, in [0, 1]."""
        if self.purify_below >= 1:
            purified: Tensor = self.greedy(images)
            return purified
        chosen = self.p_values(images) <= self.purify_below
        result = images.clone()
        if chosen.any():
            result[chosen] = self.greedy(images[chosen])
        return result

    @torch.no_grad()
    def bits_per_dimension(self, images: Tensor) -> Tensor:
        """Return the bits per value of each image, float64, shape ``(N,)``: in double precision, whatever the batch."""
        density = copy.deepcopy(self.density).double()
        pieces = levels_of(images.double()).split(EVALUATED_AT_ONCE)
        return torch.cat([density.bits_per_dimension(piece) for piece in pieces])

    def p_values(self, images: Tensor) -> Tensor:
        """Return the share of training images that take as many bits or more, the image among them, shape ``(N,)``."""
        known = self.reference_bits.isfinite().sum()
        as_many = len(self.reference_bits) - torch.searchsorted(self.reference_bits, self.bits_per_dimension(images))
        return (as_many + 1).double() / (known + 1)

    def remember(self, split: Split, generator: torch.Generator) -> None:
        """Keep the bits of some training images, ascending, after ``-inf`` in the place of those that there are not."""
        indices = torch.randperm(len(split), generator=generator)[: len(self.reference_bits)]
        device = self.reference_bits.device
        bits = [self.bits_per_dimension(split.batch(piece)[0].to(device)) for piece in indices.split(EVALUATED_AT_ONCE)]
        self.reference_bits.fill_(-torch.inf)
        self.reference_bits[-len(indices) :] = torch.cat(bits).sort().values


def density_size(images: ImageSpec, settings: PixelDefendSettings) -> PixelCNNSize:
    """Return the size that the settings ask for, and what they leave open as it fits the images."""
    usual = SMALL if images.channels == 1 or _tiny(images) else AUTHORS
    resolutions = usual.resolutions
    while images.height % 2 ** (resolutions - 1) or images.width % 2 ** (resolutions - 1):
        resolutions -= 1
    return replace(
        usual,
        filters=settings.filters or usual.filters,
        resnets=settings.resnets or usual.resnets,
        resolutions=settings.resolutions or resolutions,
        mixtures=settings.mixtures or usual.mixtures,
    )


def default_reach(images: ImageSpec) -> float:
    """Return the reach of a value's move if nobody says: the authors' in colour, in gray the dataset's own budget."""
    if images.channels > 1:
        return 16 / 255
    return 0.1 if _tiny(images) else 0.3


def density_recipe(recipe: Recipe, epochs_ratio: float) -> Recipe:
    """Return the recipe of the density: without the authors' decay of 0.999995 a step, and without averaging."""
    return replace(
        recipe,
        epochs=max(1, round(recipe.epochs * epochs_ratio)),
        batch_size=min(recipe.batch_size, DENSITY_BATCH),
        learning_rate=AUTHORS_RATE if recipe.schedule == "constant" else ONE_CYCLE_RATE,
    )


def _tiny(images: ImageSpec) -> bool:
    return min(images.height, images.width) < 16
