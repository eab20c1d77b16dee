"""A task of four pixels whose every answer can be told by hand, with plugins that behave and plugins that do not.

The class of an image is its lightest pixel. Of two images of each class one is ``NEAR`` the next class and one is
``FAR`` from it: an attack that darkens the lightest pixel by ``EPS`` and lightens the others fools the near ones and
none of the far ones, so that half of the images stand. The plugins are named as ``toy("Steady")`` on a command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dkd_bench.attacks import Attack, AttackMeta
from dkd_bench.budget import Budget, project
from dkd_bench.data import Dataset, RunImages, Split
from dkd_bench.defense import ABSTAIN, Defense, DefenseMeta
from dkd_bench.progress import Progress, SilentProgress
from dkd_bench.steps.prepare import Prepared, prepare_cast
from dkd_bench.steps.request import RunRequest
from dkd_bench.steps.resolve import Cast
from dkd_bench.target import Target
from dkd_bench.threats import ThreatModel
from dkd_bench.threats.joint import Joint

N_CLASSES = 4
EPS, NEAR, FAR = 0.1, 0.1, 0.3
DARK = 0.4
"""The value of all pixels of a clean image but the lightest."""
LINF = Budget(norm="linf", eps=EPS)


def toy(name: str) -> str:
    """Return how a request names a plugin of this file."""
    return f"{Path(__file__).resolve()}:{name}"


def toy_split(n: int, *, mislabelled: int = 0) -> Split:
    """Return ``n`` images, the classes in turn, four near and four far; the last ``mislabelled`` have a wrong label."""
    labels = torch.arange(n) % N_CLASSES
    margins = torch.where(torch.arange(n) // N_CLASSES % 2 == 0, NEAR, FAR)
    images = torch.full((n, N_CLASSES), DARK)
    images[torch.arange(n), labels] += margins
    labels[n - mislabelled :] = (labels[n - mislabelled :] + 1) % N_CLASSES
    return Split(images=(100 * images).round().to(torch.uint8).view(n, 1, 2, 2), labels=labels, white=100)


def toy_dataset(n: int = 8, *, mislabelled: int = 0, **changes: Any) -> Dataset:
    """Return a dataset of ``n`` test images, and as many to train on."""
    values = {
        "name": "toy",
        "train": toy_split(n),
        "test": toy_split(n, mislabelled=mislabelled),
        "n_classes": N_CLASSES,
        "default_n_examples": n,
        "default_eps": {"linf": EPS},
    }
    return Dataset(**(values | changes))


def load_toy(*, argument: str | None, root: Path | None) -> Dataset:
    """Return the dataset as a plugin does."""
    return toy_dataset()


def lightest_pixel() -> nn.Module:
    """Return the network that is always right on clean images, with a margin that tells how far an image is."""
    layer = nn.Linear(N_CLASSES, N_CLASSES, bias=False)
    with torch.no_grad():
        layer.weight.copy_(10 * torch.eye(N_CLASSES))
    return nn.Sequential(nn.Flatten(), layer)


def touched(x: Tensor) -> Tensor:
    """Return which images were attacked: a clean one has three dark pixels, shape ``(N,)``."""
    return ((x - DARK).abs() < 1e-6).flatten(1).sum(dim=1) < N_CLASSES - 1


class Steady(Defense):
    """Answers with the lightest pixel."""

    meta: ClassVar[DefenseMeta] = DefenseMeta(name="steady", title="Steady")

    def __init__(self, images: Any, settings: Any = None) -> None:
        super().__init__(images, settings)
        self.network = lightest_pixel()

    @property
    def members(self) -> Sequence[nn.Module]:
        return [self.network]

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.network(x).argmax(dim=1)


class Twin(Steady):
    """Calls itself as the other does."""


class Pair(Steady):
    """Two networks, each a target of its own; the second one is surer of itself."""

    meta = DefenseMeta(name="pair", title="Pair")

    def __init__(self, images: Any, settings: Any = None) -> None:
        super().__init__(images, settings)
        self.second = lightest_pixel()
        with torch.no_grad():
            self.second[1].weight.mul_(2)

    @property
    def members(self) -> Sequence[nn.Module]:
        return [self.network, self.second]


class Rejecting(Steady):
    """Rejects every image that was attacked; its one detector counts the pixels that are not dark."""

    meta = DefenseMeta(name="rejecting", title="Rejecting", abstains=True)

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.where(touched(x), ABSTAIN, self.network(x).argmax(dim=1))

    def rejections(self, x: Tensor) -> Mapping[str, Tensor]:
        return {"touched": touched(x).float() - 0.5}


class BrokenDetector(Rejecting):
    """Its detector fails on every image that was attacked."""

    meta = DefenseMeta(name="broken-detector", title="Broken detector", abstains=True)

    def rejections(self, x: Tensor) -> Mapping[str, Tensor]:
        if touched(x).any():
            raise RuntimeError("no such light")
        return super().rejections(x)


class Brittle(Steady):
    """Fails on every image that was attacked."""

    meta = DefenseMeta(name="brittle", title="Brittle")

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        if touched(x).any():
            raise RuntimeError("too light")
        return super().predict(x, generator=generator)


class Hidden(Steady):
    """Offers no surrogate."""

    meta = DefenseMeta(name="hidden", title="Hidden", non_differentiable=True)


class Learning(Steady):
    """Answers otherwise once it has seen an image that was attacked."""

    meta = DefenseMeta(name="learning", title="Learning")
    learnt = False

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        self.learnt = self.learnt or bool(touched(x).any())
        return (super().predict(x, generator=generator) + self.learnt) % N_CLASSES


class Sulking(Learning):
    """Fails on everything once it has seen an image that was attacked and answered to it."""

    meta = DefenseMeta(name="sulking", title="Sulking")

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        if self.learnt and not touched(x).any():
            raise RuntimeError("not in the mood")
        self.learnt = self.learnt or bool(touched(x).any())
        return self.network(x).argmax(dim=1)


class Untrainable(Steady):
    """Fails when it is trained."""

    meta = DefenseMeta(name="untrainable", title="Untrainable")

    def fit(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("will not learn")


class Noise(nn.Module):
    """Adds light that differs between calls."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * torch.rand_like(x)


class Noisy(Steady):
    """Answers with the lightest pixel after noise."""

    meta = DefenseMeta(name="noisy", title="Noisy", randomized=True)

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return super().predict(x + 0.2 * torch.rand(x.shape, generator=generator), generator=generator)

    def surrogates(self) -> Mapping[str, nn.Module]:
        return {"noisy": nn.Sequential(Noise(), self.network)}


class Undeclared(Steady):
    """Answers with a random pixel, and does not say so."""

    meta = DefenseMeta(name="undeclared", title="Undeclared")

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.randint(N_CLASSES, (len(x),), generator=generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSettings:
    """How far the attack goes, in units of the budget."""

    reach: float = 1.0


class Push(Attack):
    """Darkens the pixel of the label by eps, and lightens the others; counts how often it is run."""

    meta: ClassVar[AttackMeta] = AttackMeta(name="push", title="Push", kind="fixed", norms=("linf",))
    Settings = PushSettings

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.targets: list[str] = []
        """What it was run on, in order."""

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        self.targets.append(target.name)
        target(images)
        signs = 1 - 2 * nn.functional.one_hot(labels, N_CLASSES).view(images.shape).to(images)
        return project(images, images + self.settings.reach * budget.eps * signs, budget)


class Other(Push):
    """The same under another name."""

    meta = AttackMeta(name="other", title="Other", kind="fixed", norms=("linf",))


class Crashing(Push):
    """Fails."""

    meta = AttackMeta(name="crashing", title="Crashing", kind="fixed", norms=("linf",))

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        self.targets.append(target.name)
        raise RuntimeError("out of luck")


class Cheating(Push):
    """Goes twice as far as it may."""

    meta = AttackMeta(name="cheating", title="Cheating", kind="fixed", norms=("linf",))

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        return images + 2 * budget.eps * (0.5 - nn.functional.one_hot(labels, N_CLASSES).view(images.shape)).sign()


class Interrupted(Push):
    """Is interrupted by the user."""

    meta = AttackMeta(name="interrupted", title="Interrupted", kind="fixed", norms=("linf",))

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        raise KeyboardInterrupt


def toy_cast(
    *defenses: type[Defense],
    attacks: Sequence[Attack] = (),
    threat_models: Sequence[ThreatModel] = (),
    budgets: Sequence[Budget] = (LINF,),
    failures: Mapping[str, str] | None = None,
    **words: Any,
) -> Cast[RunRequest]:
    """Return a cast of these plugins, under ``joint`` unless told otherwise; ``words`` go to the request."""
    threat_models = threat_models or (Joint(),)
    attacks = attacks or (Push(),)
    names = (*(each.meta.name for each in defenses), *(failures or {}))
    values = {"defenses": names, "dataset": "toy", "attacks": tuple(each.meta.name for each in attacks)}
    return Cast(
        request=RunRequest(**(values | {"device": "cpu"} | words)),
        device=torch.device("cpu"),
        defenses={each.meta.name: each for each in defenses},
        failures=failures or {},
        attacks={each.meta.name: each for each in attacks},
        threat_models={each.meta.name: each for each in threat_models},
        budgets=tuple(budgets),
    )


def toy_prepared(
    *defenses: type[Defense], dataset: Dataset | None = None, progress: Progress | None = None, **words: Any
) -> Prepared:
    """Return what the first steps make of ``toy_cast``: all test images are attacked, in their order."""
    dataset = dataset or toy_dataset()
    cast = toy_cast(*defenses, **words)
    images = RunImages(dataset=dataset, indices=torch.arange(len(dataset.test)), device=cast.device)
    return prepare_cast(cast, images, progress or SilentProgress())


class Heard:
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.tasks: dict[str, int] = {}
        """Steps begun by description."""
        self.notes: list[tuple[str, str]] = []
        """Description and note of each step done."""

    def start(self, description: str, total: int) -> _HeardTask:
        self.tasks[description] = total
        return _HeardTask(self, description)


@dataclass
class _HeardTask:
    heard: Heard
    description: str

    def advance(self, steps: int = 1, note: str = "", seconds_left: float | None = None) -> None:
        self.heard.notes.append((self.description, note))
