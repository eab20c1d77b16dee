"""Trained defences: made once, kept under a key of everything that determines them, found again after."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch import Tensor

import dkd_bench
from dkd_bench.data import Dataset, Split
from dkd_bench.defense import Defense, check_structure
from dkd_bench.defense.admission import admit
from dkd_bench.errors import DkdBenchError, PluginError
from dkd_bench.plugins.settings import settings_as_json
from dkd_bench.progress import EstimatedProgress, Progress, Task
from dkd_bench.steps.resolve import DefenseFactory
from dkd_bench.steps.scoring import clean_accuracy, decided
from dkd_bench.store.cache import cache_root
from dkd_bench.store.code import code_digest
from dkd_bench.store.digests import digest_json, digest_module, library_versions
from dkd_bench.store.files import TensorStore, write_file
from dkd_bench.target.randomness import isolated_randomness
from dkd_bench.training import Recipe, TrainingSet
from dkd_bench.training.speed import log_slowness

_T = TypeVar("_T")

log = logging.getLogger(__name__)

MOST_SEARCHED = 1000
"""Number of test images on which a defence that optimises at every answer is asked for its clean accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedDefense:
    """Defence ready to be attacked: on its device, in evaluation mode, its weights on disk."""

    name: str
    defense: Defense
    key: str
    """Key of everything that determined the training."""
    sha256: str
    """Digest of structure, code and weights."""
    clean_accuracy: dict[str, float]
    """Clean accuracy on the first ``n_clean`` test images, by decision rule."""
    n_clean: int
    """Number of those images: the whole test set, or ``MOST_SEARCHED`` images of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """Trainer of defences on one dataset by one recipe, which loads what was trained before."""

    dataset: Dataset
    dataset_digest: str
    recipe: Recipe
    seed: int
    device: torch.device
    progress: Progress
    probe: Tensor
    """Clean images that every defence must answer as it promises, float32, shape ``(N, C, H, W)``, on the device."""
    cache: Path | None = None
    """Folder where weights are kept; ``None`` for the user's cache folder."""

    def trained(self, name: str, factory: DefenseFactory) -> TrainedDefense:
        """Return the defence that ``factory`` builds, trained and admitted.

        Raises:
            PluginError: if building or training it fails, or it breaks a promise; names the defence and the cause.
            StoreError: if its weights cannot be written, or those found are damaged.
        """
        with isolated_randomness(self.seed):
            defense = _guarded(name, "be built", lambda: factory(self.dataset.image_spec))
        check_structure(defense)
        key = self._key(defense)
        store = weights_store(self.cache)
        found = store.get_with_metadata(key)
        defense.to(self.device)
        if found is None:
            accuracy = self._train(name, defense)
            metadata: dict[str, Any] = {"name": name, "clean_accuracy": accuracy, "n_clean": self._n_clean(defense)}
            store.put(key, defense.state_dict(), metadata)
            write_file(store.path(key).with_suffix(".json"), self._manifest(defense, metadata))
        else:
            tensors, metadata = found
            defense.load_state_dict(tensors)
            accuracy = metadata["clean_accuracy"]
            ready_for_inference(defense)
            admit(name, defense, self.probe)
        return TrainedDefense(
            name=name,
            defense=defense,
            key=key,
            sha256=digest_module(defense),
            clean_accuracy=accuracy,
            n_clean=self._n_clean(defense),
        )

    def _n_clean(self, defense: Defense) -> int:
        n_test = len(self.dataset.test)
        return min(n_test, MOST_SEARCHED) if defense.meta.optimizes else n_test

    def _train(self, name: str, defense: Defense) -> dict[str, float]:
        data = TrainingSet(
            split=self.dataset.train,
            digest=self.dataset_digest,
            networks=TensorStore((self.cache or cache_root()) / "networks"),
        )
        generator = torch.Generator().manual_seed(self.seed)
        progress = _AnnouncedProgress(EstimatedProgress(self.progress), lambda: self._announce(name, defense))
        with isolated_randomness(self.seed):
            _guarded(
                name,
                "be trained",
                lambda: defense.fit(data, recipe=self.recipe, generator=generator, progress=progress),
            )
            ready_for_inference(defense)
            admit(name, defense, self.probe)
            return accuracy_on(defense, self.dataset.test, n_images=self._n_clean(defense), seed=self.seed)

    def _announce(self, name: str, defense: Defense) -> None:
        members = f"{len(defense.members)} members, " if len(defense.members) > 1 else ""
        epochs = f"recipe {self.recipe.name}, {self.recipe.epochs} epochs"
        log.info("training %r on %s: %s%s", name, self.dataset.name, members, epochs)
        if self.device.type == "cpu":
            log_slowness()

    def _key(self, untrained: Defense) -> str:
        return digest_json(
            {
                "untrained": digest_module(untrained),
                "code": code_digest(type(untrained)),
                "settings": settings_as_json(untrained.settings),
                "dataset": self.dataset_digest,
                "recipe": asdict(self.recipe),
                "seed": self.seed,
                "libraries": library_versions("torch"),
                "dkd-bench": dkd_bench.__version__,
            }
        )

    def _manifest(self, defense: Defense, metadata: dict[str, Any]) -> str:
        return json.dumps(
            {
                **metadata,
                "settings": settings_as_json(defense.settings),
                "recipe": asdict(self.recipe),
                "seed": self.seed,
                "dataset": {"name": self.dataset.name, "digest": self.dataset_digest},
                "sha256": digest_module(defense),
                "libraries": library_versions("torch") | {"dkd-bench": dkd_bench.__version__},
                "device": self.device.type,
            },
            indent=2,
        )


@final
class _AnnouncedProgress:
    """Progress that says what is trained before its first task: a defence that comes trained begins none."""

    def __init__(self, progress: Progress, announce: Callable[[], None]) -> None:
        self._progress = progress
        self._announce = announce
        self._announced = False

    def start(self, description: str, total: int) -> Task:
        if not self._announced:
            self._announced = True
            self._announce()
        return self._progress.start(description, total)


def weights_store(cache: Path | None = None) -> TensorStore:
    """Return where trained defences are kept: in ``cache``, else in the user's cache folder."""
    return TensorStore((cache or cache_root()) / "weights")


def ready_for_inference(defense: Defense) -> None:
    """Put a defence into the one state in which it is attacked, scored and verified.

    Evaluation mode, frozen parameters, convolutions in channels-last order: one and a half times as fast on a
    CPU. Everything that asks a defence must ask it in this state, or rounding moves images at the boundary.
    """
    defense.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def accuracy_on(defense: Defense, split: Split, *, n_images: int, seed: int, chunk_size: int = 250) -> dict[str, float]:
    """Return the clean accuracy on the first ``n_images`` of a split by decision rule: one draw of a randomised one."""
    device = next((parameter.device for parameter in defense.parameters()), torch.device("cpu"))
    right: dict[str, float] = {}
    for indices in torch.arange(n_images).split(chunk_size):
        images, labels = split.batch(indices)
        for rule, answers in decided(defense, images.to(device), seed=seed, draws=1).items():
            right[rule] = right.get(rule, 0.0) + clean_accuracy(answers, labels) * len(labels)
    return {rule: total / n_images for rule, total in right.items()}


def _guarded(name: str, what: str, step: Callable[[], _T]) -> _T:
    """Run a plugin's own code; a failure names the plugin."""
    try:
        return step()
    except DkdBenchError:
        raise
    except Exception as error:
        raise PluginError(f"defence {name!r} cannot {what}: {type(error).__name__}: {error}") from error
