"""MagNet: autoencoders that reject what is far from the training images, and draw the rest towards them.

White-box attacks go around it (Carlini and Wagner 2017, arXiv:1711.08478); it is on the board to show that they do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast, final

import torch
from torch import Tensor, nn

from dkd_baselines._magnet_autoencoders import Autoencoders, Denoising, DenoisingTerms, Layout, Reconstruction
from dkd_baselines._magnet_guards import DrawnGuard, Guard, GuardedClassifier
from dkd_bench.api import (
    ConfigError,
    DefenseMeta,
    ImageSpec,
    Progress,
    Recipe,
    Split,
    TrainingSet,
    build_network,
    train_network,
)

MOST_VALIDATION_IMAGES = 5000
"""Number of validation images, at most: the authors keep the first 5000 training images; here never over a tenth."""

NORMS: Mapping[Layout, int] = {"I": 2, "II": 1}
"""Powers of the reconstruction error by autoencoder, as in the authors' demonstration."""

TEMPERATURES = (10.0, 40.0)
"""Temperatures of the divergence detectors, which there are for colour images only."""

ACTIVITY = 1e-9
"""Weight of the sum of squares of the autoencoders' outputs over a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MagNetSettings:
    """Settings of MagNet."""

    network: str = "auto"
    """Name of the protected classifier in ``dkd_bench.training.networks``; ``auto`` is the one of Table 1."""
    epochs: int = 0
    """Number of epochs of each autoencoder; 0 for the authors' under the recipe ``paper``, else for minutes' worth."""
    noise: float = 0.0
    """Standard deviation of the training noise in [0, 1] pixel units; 0 for 0.1 on gray and 0.025 on colour images."""
    error_rate: float = 0.0
    """Share of clean images that each reconstruction error rejects; 0 for 0.001 on gray and 0.005 on colour."""
    divergence_rate: float = 0.01
    """Share of clean images that each divergence rejects."""
    reversed_norms: bool = False
    """Whether autoencoder I's error has p = 1 and II's p = 2, as with Carlini and Wagner, instead of 2 and 1."""

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ConfigError(f"epochs must be at least 1, or 0 for the defence's own, got {self.epochs}")
        if self.noise < 0:
            raise ConfigError(f"noise must be positive, or 0 for the images' own, got {self.noise}")
        if not 0 <= self.error_rate < 1 or not 0 < self.divergence_rate < 1:
            raise ConfigError(
                "error_rate and divergence_rate must be fractions in (0, 1), error_rate 0 for the images' own, "
                f"got {self.error_rate} and {self.divergence_rate}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DiverseMagNetSettings(MagNetSettings):
    """Settings of MagNet with several autoencoders."""

    autoencoders: int = 8
    """Number of autoencoders to draw from."""
    diversity: float = 0.2
    """Weight of the autoencoders' distance from their mean while they are trained."""

    def __post_init__(self) -> None:
        MagNetSettings.__post_init__(self)
        if self.autoencoders < 2:
            raise ConfigError(f"autoencoders must be at least 2, or there is nothing to draw, got {self.autoencoders}")
        if not 0 <= self.diversity < 1:
            raise ConfigError(f"diversity must be in [0, 1), or being wrong would pay, got {self.diversity}")


class _Autoencoded(GuardedClassifier, ABC):
    """Classifier whose guards are autoencoders."""

    settings: MagNetSettings

    def __init__(self, images: ImageSpec, settings: MagNetSettings | None = None) -> None:
        """Build the classifier first: it is the undefended network, weight by weight."""
        super().__init__(images, settings)
        self.gray = images.channels == 1
        self.classifier = build_network(self.settings.network, images)
        layouts = self._layouts()
        self.autoencoders = nn.ModuleList(
            Autoencoders(images, layout=layout, count=self._n_guards()) for layout in layouts
        )
        # The powers are 1 and 2: three less one is the other.
        self.norms = tuple(3 - NORMS[each] if self.settings.reversed_norms else NORMS[each] for each in layouts)
        self.temperatures = () if self.gray else TEMPERATURES
        n_detectors = len(self.norms) + len(self.temperatures)
        self.register_buffer("thresholds", torch.ones(self._n_guards(), n_detectors))

    @property
    def guards(self) -> Sequence[Guard]:
        """The defence as it is for each choice of autoencoders."""
        return [
            Guard(
                self.classifier,
                [Reconstruction(each, index) for each in cast("Iterable[Autoencoders]", self.autoencoders)],
                norms=self.norms,
                temperatures=self.temperatures,
                thresholds=self.thresholds[index],
            )
            for index in range(self._n_guards())
        ]

    @property
    def detectors(self) -> Sequence[str]:
        """The detectors' names, in the order of a guard's marks."""
        errors = [f"error-{layout}" for layout in self._layouts()]
        return [*errors, *(f"divergence-{temperature:g}" for temperature in self.temperatures)]

    def fit(self, data: TrainingSet, *, recipe: Recipe, generator: torch.Generator, progress: Progress) -> None:
        """Train classifier and autoencoders, and set the thresholds by the first training images.

        Those images, 5000 or a tenth of all, are kept from the autoencoders.
        """
        train_network(
            self.classifier, data, recipe=recipe, generator=generator, progress=progress, description=self.meta.title
        )
        n_held_out = max(1, min(MOST_VALIDATION_IMAGES, len(data.split) // 10))
        rest = replace(data, split=_part(data.split, slice(n_held_out, None)))
        for network, layout in zip(self.autoencoders, self._layouts(), strict=True):
            own = self._recipe(recipe, len(rest.split))
            train_network(
                network,
                rest,
                recipe=own,
                generator=generator,
                objective=Denoising(self._terms(own, n_held_out, generator), rest.split.images.shape),
                progress=progress,
                description=f"{self.meta.title}, autoencoder {layout}",
            )
        error_rate = self.settings.error_rate or (0.001 if self.gray else 0.005)
        rates = [error_rate for _ in self.norms] + [self.settings.divergence_rate for _ in self.temperatures]
        self.set_thresholds(_part(data.split, slice(n_held_out)), rates)

    @abstractmethod
    def _layouts(self) -> Sequence[Layout]:
        """Return the layouts of a guard's autoencoders; the first reforms."""

    @abstractmethod
    def _n_guards(self) -> int:
        """Return the number of autoencoders of each layout."""

    @abstractmethod
    def _terms(self, recipe: Recipe, n_held_out: int, generator: torch.Generator) -> DenoisingTerms:
        """Return the terms of the autoencoders' loss."""

    @abstractmethod
    def _recipe(self, recipe: Recipe, n_images: int) -> Recipe:
        """Return the recipe of the autoencoders' training."""

    @property
    def _noise(self) -> float:
        return self.settings.noise or (0.1 if self.gray else 0.025)


@final
class MagNet(_Autoencoded):
    """MagNet: rejects what autoencoders reconstruct badly, classifies what one of them makes of the rest."""

    meta = DefenseMeta(name="magnet", title="MagNet", paper="arXiv:1705.09064", abstains=True)
    Settings: ClassVar[type[Any]] = MagNetSettings

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the class of the reformed image, ``ABSTAIN`` where a detector rejects it."""
        return self.answer(self.guards[0], x)

    def surrogates(self) -> Mapping[str, nn.Module]:
        """Return the whole, which has gradients throughout."""
        return {"whole": self.guards[0]}

    def _layouts(self) -> Sequence[Layout]:
        return ("I", "II") if self.gray else ("II",)

    def _n_guards(self) -> int:
        return 1

    def _terms(self, recipe: Recipe, n_held_out: int, generator: torch.Generator) -> DenoisingTerms:
        return DenoisingTerms(noise=self._noise, noise_seed=_seed(generator), n_held_out=n_held_out, activity=ACTIVITY)

    def _recipe(self, recipe: Recipe, n_images: int) -> Recipe:
        """Return the authors' recipe, or one cycle over about 600,000 images."""
        if recipe.name == "paper":
            return _authors(self.settings.epochs or (100 if self.gray else 400), batch_size=256)
        return _quick(recipe, self.settings.epochs or _epochs(600_000, n_images), batch_size=64)


@final
class DiverseMagNet(_Autoencoded):
    """MagNet in the grey box: for each call one of several autoencoders, trained to differ, reforms and detects."""

    meta = DefenseMeta(
        name="magnet-grey-box",
        title="MagNet, grey box",
        paper="arXiv:1705.09064",
        abstains=True,
        randomized=True,
    )
    Settings: ClassVar[type[Any]] = DiverseMagNetSettings
    settings: DiverseMagNetSettings

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the class of the image as one autoencoder reforms it, ``ABSTAIN`` where that one's detector rejects.

        One autoencoder is drawn for all images of the call.
        """
        drawn = int(torch.randint(self.settings.autoencoders, (), generator=generator, device=generator.device))
        return self.answer(self.guards[drawn], x)

    def surrogates(self) -> Mapping[str, nn.Module]:
        """Return the whole, which draws as the defence does, and must pass all detectors."""
        return {"drawn": DrawnGuard(self.guards)}

    def _layouts(self) -> Sequence[Layout]:
        return ("I",) if self.gray else ("II",)

    def _n_guards(self) -> int:
        return self.settings.autoencoders

    def _terms(self, recipe: Recipe, n_held_out: int, generator: torch.Generator) -> DenoisingTerms:
        """Return the terms of the authors' demonstration, which begins with three epochs of each for itself."""
        return DenoisingTerms(
            noise=self._noise,
            noise_seed=_seed(generator),
            n_held_out=n_held_out,
            diversity=self.settings.diversity,
            apart=min(3.0, recipe.epochs / 4) / recipe.epochs,
        )

    def _recipe(self, recipe: Recipe, n_images: int) -> Recipe:
        """Return the recipe of Carlini and Wagner's grey box, or one cycle over about 120,000 images."""
        if recipe.name == "paper":
            return _authors(self.settings.epochs or (33 if self.gray else 103), batch_size=128)
        return _quick(recipe, self.settings.epochs or _epochs(120_000, n_images), batch_size=32)


def _authors(epochs: int, *, batch_size: int) -> Recipe:
    return Recipe(name="paper", epochs=epochs, batch_size=batch_size, learning_rate=1e-3, schedule="constant")


def _epochs(n_shown: int, n_images: int) -> int:
    """Return the epochs that show about ``n_shown`` images, but from 1 to 30 of them."""
    return min(30, max(1, round(n_shown / n_images)))


def _quick(recipe: Recipe, epochs: int, *, batch_size: int) -> Recipe:
    """Return one cycle of long steps: so few sigmoids take a hundred times Adam's usual rate, and need it."""
    batch_size = min(batch_size, recipe.batch_size)
    return replace(recipe, epochs=epochs, batch_size=batch_size, learning_rate=0.1, schedule="one-cycle")


def _part(split: Split, positions: slice) -> Split:
    return replace(split, images=split.images[positions], labels=split.labels[positions])


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))
