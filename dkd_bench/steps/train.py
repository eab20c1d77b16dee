"""Train: the defences of a cast, trained or found again, and why the others could not be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from dkd_bench.data import Dataset, RunImages, load_dataset, select_balanced
from dkd_bench.defense.reference import SEED_OFFSET, Reference
from dkd_bench.errors import PluginError, UndeclaredRandomnessError
from dkd_bench.progress import Progress
from dkd_bench.records import FlagRecord
from dkd_bench.records.flags import NOT_ADMITTED, RANDOM
from dkd_bench.steps.request import RunRequest, TrainRequest
from dkd_bench.steps.resolve import Cast
from dkd_bench.steps.targets import DECISION, REFERENCE, named_members
from dkd_bench.steps.weights import TrainedDefense, Trainer
from dkd_bench.training import recipe_named

ADMISSION_IMAGES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """Defences of a request: those that could be trained, and why the others could not."""

    dataset: Dataset
    dataset_digest: str
    device: torch.device
    defenses: Mapping[str, TrainedDefense]
    """Trained defences by name."""
    failure_flags: Mapping[str, FlagRecord]
    """Flag that each untrained defence raises, by its name; the flag's detail says why there is none."""
    trainer: Trainer

    @property
    def failures(self) -> Mapping[str, str]:
        """Reasons why there is no trained defence, by its name."""
        return {name: flag.detail for name, flag in self.failure_flags.items()}


def choose_images(cast: Cast[RunRequest]) -> RunImages:
    """Return the test images that a request attacks.

    Raises:
        ConfigError: if there are fewer than asked for.
        DatasetError: if the dataset cannot be loaded.
    """
    request = cast.request
    dataset = load_dataset(request.dataset, root=request.data_root)
    n_examples = dataset.default_n_examples if request.n_examples is None else request.n_examples
    indices = select_balanced(dataset.test.labels, n_examples=n_examples, seed=request.seed)
    return RunImages(dataset=dataset, indices=indices, device=cast.device)


def train(cast: Cast[TrainRequest], progress: Progress, *, dataset: Dataset | None = None) -> Subjects:
    """Return the defences of ``cast``, trained or loaded.

    Args:
        cast: which defences, and how they are set.
        progress: where training reports to.
        dataset: the request's, if it is loaded already.

    Raises:
        DatasetError: if the dataset cannot be loaded.
        UnknownNameError: if there is no such recipe.
        StoreError: if weights cannot be written, or those found are damaged.
    """
    request = cast.request
    dataset = dataset or load_dataset(request.dataset, root=request.data_root)
    n_probe = min(ADMISSION_IMAGES, len(dataset.test))
    probe = select_balanced(dataset.test.labels, n_examples=n_probe, seed=request.seed)
    trainer = Trainer(
        dataset=dataset,
        dataset_digest=dataset.digest(),
        recipe=recipe_named(request.recipe, dataset),
        seed=request.seed if request.training_seed is None else request.training_seed,
        device=cast.device,
        progress=progress,
        probe=dataset.test.batch(probe)[0].to(cast.device),
    )
    defenses = {}
    flags = {name: FlagRecord(name=NOT_ADMITTED, detail=reason) for name, reason in cast.failures.items()}
    for name, factory in cast.defenses.items():
        try:
            trained = trainer.trained(name, factory)
            _check_surrogate_names(trained)
            defenses[name] = trained
        except PluginError as error:
            flag = RANDOM if isinstance(error, UndeclaredRandomnessError) else NOT_ADMITTED
            flags[name] = FlagRecord(name=flag, detail=str(error))
    return Subjects(
        dataset=dataset,
        dataset_digest=trainer.dataset_digest,
        device=cast.device,
        defenses=defenses,
        failure_flags=flags,
        trainer=trainer,
    )


def train_reference(subjects: Subjects, *, seed: int) -> nn.Module:
    """Return the black-box adversary's own network; another ``--training-seed`` of the defences does not change it."""
    trainer = replace(subjects.trainer, seed=seed + SEED_OFFSET)
    return trainer.trained(REFERENCE, Reference).defense.members[0]


def _check_surrogate_names(trained: TrainedDefense) -> None:
    """Refuse a surrogate that would take the place of another target."""
    taken = trained.defense.surrogates().keys() & {REFERENCE, DECISION, *named_members(trained.defense.members)}
    if taken:
        raise PluginError(
            f"a surrogate of defence {trained.name!r} is called {min(taken)!r}, a target's name; rename it"
        )
