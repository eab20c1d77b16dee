"""Claims of strangers: adversarial images with a JSON of what they are said to do, measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ConfigDict, Field, ValidationError
from torch import Tensor

from dkd_bench.budget import TOLERANCE, Budget, Norm
from dkd_bench.data import CHUNK_SIZE, Chunk, Dataset, load_dataset, select_balanced
from dkd_bench.defense import Defense
from dkd_bench.errors import ConfigError, FieldName, PluginError, StoreError, UnknownNameError
from dkd_bench.plugins import registry
from dkd_bench.plugins.suites import ALL
from dkd_bench.progress import Progress
from dkd_bench.records import Record
from dkd_bench.steps.request import DeviceName, TrainRequest
from dkd_bench.steps.resolve import resolve
from dkd_bench.steps.train import train
from dkd_bench.store.files import read_file
from dkd_bench.verify._answers import CandidateAnswers, answers_of, candidate_answers, survival
from dkd_bench.verify._images import fault_of
from dkd_bench.verify._intervals import wilson

IMAGES, LABELS = "adversarial", "labels"
"""Names of the tensors in a claim's file; labels need not be there, and tell whether the order is ours if they are."""


class Claim(Record):
    """Claim on the first images, in seeded balanced order, of a dataset's test set."""

    model_config = ConfigDict(strict=True)

    images: str
    """Name of a safetensors file with the tensor ``adversarial``; relative to the claim's own file."""
    defense: str
    """Name of an installed defence; any other, whose code would be run, is named by whoever checks the claim."""
    dataset: str
    norm: Norm
    eps: float | None
    """Budget in [0, 1] pixel units, in l0 a number of values; ``None`` for images as far away as they like."""
    robust_accuracy: float = Field(ge=0, le=1)
    """Share of all images that survive, in [0, 1]; one that is wrong when clean is lost."""
    decision: str | None = None
    """Decision rule; may be left out where the defence has one."""
    n_examples: int | None = Field(default=None, ge=1)
    """Number of images, if it is to be checked."""
    seed: int | None = None
    """Seed of the order of the images and of the training; this and what follows are a run's where they are left
    out."""
    training_seed: int | None = None
    recipe: str | None = None
    settings: tuple[str, ...] | None = None

    def request(self, *, device: DeviceName, data_root: Path | None) -> TrainRequest:
        """Return the request to train the defence; raises ConfigError if a word is refused."""
        names = ("dataset", "recipe", "seed", "training_seed", "settings")
        words = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return TrainRequest(defenses=(self.defense,), data_root=data_root, device=device, **words)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimReport:
    """Result of checking a claim."""

    findings: tuple[str, ...]
    """Sentence for each thing that is wrong; empty if the claim holds."""
    n: int
    claimed: float
    measured: float | None
    """Measured robust accuracy, in [0, 1]; ``None`` for images that are not what they claim to be: they are not
    scored."""
    ci95: tuple[float, float] | None
    rounded: float | None
    """Robust accuracy measured after every image was rounded to 8 bits."""
    broken: int | None
    """Number of images that were right when clean, and are lost."""
    tolerance: float = TOLERANCE

    @property
    def summary(self) -> str:
        """Sentence on what was claimed and what was measured."""
        claimed = f"claimed robust accuracy {100 * self.claimed:.2f} % of {self.n} images"
        if self.measured is None or self.ci95 is None or self.rounded is None:
            return f"{claimed}; not measured, since the images are not what they claim to be"
        low, high = self.ci95
        return (
            f"{claimed}, measured {100 * self.measured:.2f} % [{100 * low:.1f}, {100 * high:.1f}], "
            f"after 8-bit rounding {100 * self.rounded:.2f} %; {self.broken} images broken: "
            + ("the claim does not hold" if self.findings else "the claim holds")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """Clean images that a claim is about."""

    images: Tensor
    labels: Tensor


def read_claim(file: Path) -> tuple[Claim, Path]:
    """Return the claim in ``file``, a JSON or the images with the JSON of the same stem beside, and its images' path.

    Raises:
        ConfigError: if it is not there, or not a claim.
    """
    text = file.with_suffix(".json") if file.suffix == ".safetensors" else file
    if not text.is_file():
        raise ConfigError(
            f"no claim at {text}; expected a JSON that names images, defense, dataset and what is claimed"
        )
    try:
        claim = Claim.model_validate_json(read_file(text))
    except ValidationError as error:
        raise ConfigError(f"{text} is not a claim: {_first_error(error)}") from error
    except StoreError as error:
        raise ConfigError(error.sentence) from error
    images = text.parent / claim.images
    if file.suffix == ".safetensors" and images.resolve() != file.resolve():
        raise ConfigError(f"{text} is a claim about {images}, not about {file}; give the JSON of {file.name}")
    return claim, images


def check_claim(
    file: Path, *, device: DeviceName, data_root: Path | None, progress: Progress, defense: str | None = None
) -> ClaimReport:
    """Check the images of the claim in ``file``, score them through the whole defence, and compare.

    Args:
        file: a JSON or the images, as ``read_claim`` takes them.
        device: to score on.
        data_root: where the datasets are.
        progress: where training reports to.
        defense: whose images they are, instead of the one that the claim names; may be ``path/to/file.py:Class``.

    Raises:
        ConfigError: if the claim, its images or a name in it cannot be used.
        DatasetError: if the clean images cannot be loaded.
        PluginError: if the defence cannot be built or trained.
    """
    claim, path = read_claim(file)
    _refuse_code(claim, file, named=defense is not None)
    claim = claim if defense is None else claim.model_copy(update={"defense": defense})
    budget = Budget(norm=claim.norm, eps=claim.eps)
    request = claim.request(device=device, data_root=data_root)
    tensors = _tensors(path)
    dataset = load_dataset(claim.dataset, root=data_root)
    images = tensors[IMAGES]
    ground = _ground(claim, path, images, dataset, seed=request.seed)
    faults = _faults(path, tensors, ground, budget)
    if faults:
        return ClaimReport(
            findings=faults,
            n=len(images),
            claimed=claim.robust_accuracy,
            measured=None,
            ci95=None,
            rounded=None,
            broken=None,
        )
    if claim.defense == ALL:
        raise ConfigError("a claim is about one defence; name it with ", FieldName("defense"))
    trained = train(resolve(request), progress, dataset=dataset)
    for reason in trained.failures.values():
        raise PluginError(reason)
    (each,) = trained.defenses.values()
    return _measured(claim, each.defense, ground, images, seed=request.seed, device=trained.device)


def _refuse_code(claim: Claim, file: Path, *, named: bool) -> None:
    """Refuse a claim whose own words would run code that is not installed.

    Args:
        claim: of a stranger.
        file: where it is.
        named: whether the user named the defence, so that the claim's does not matter.
    """
    if ".py:" in claim.dataset:
        raise ConfigError(
            f"{file}: the dataset must be an installed one, npz:FILE or imagefolder:DIR, got {claim.dataset!r}; "
            "a claim's own code is not run"
        )
    if named:
        return
    if any(mark in claim.defense for mark in (":", "/", "\\")):
        raise ConfigError(
            f"{file}: the defence must be an installed one, got {claim.defense!r}; a claim's own code is not run: "
            "if you trust it, name it yourself with ",
            FieldName("defense"),
        )
    known = registry.installed("defenses")
    if claim.defense not in known:
        raise UnknownNameError("defence", claim.defense, known)


def _tensors(path: Path) -> Mapping[str, Tensor]:
    """Return the tensors of a safetensors file, whoever made it; its metadata are not looked at."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_file():
        raise ConfigError(f"no images at {path}; expected a safetensors file with the tensor {IMAGES!r}")
    try:
        tensors = load(read_file(path))
    except (SafetensorError, StoreError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{path} is not a whole safetensors file ({error}); save the images with safetensors.torch.save_file, "
            "nothing else is read: a pickle can run what it likes"
        ) from error
    if IMAGES not in tensors:
        raise ConfigError(f"{path} should have a tensor {IMAGES!r}, has {', '.join(tensors) or 'none'}; rename it")
    return tensors


def _ground(claim: Claim, path: Path, images: Tensor, dataset: Dataset, *, seed: int) -> _Ground:
    """Return the clean images; refuse a file that cannot hold as many of their shape."""
    shape, n_test = tuple(dataset.test.batch(torch.tensor([0]))[0].shape[1:]), len(dataset.test)
    if images.dtype != torch.float32 or images.dim() != 4 or tuple(images.shape[1:]) != shape:
        raise ConfigError(
            f"{path}: expected float32 images of shape (N, {', '.join(map(str, shape))}), as {dataset.name} has them, "
            f"got {str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        )
    n = len(images)
    if not 1 <= n <= n_test:
        raise ConfigError(f"{path}: expected from 1 to {n_test} images, the test images of {dataset.name}, got {n}")
    if claim.n_examples not in (None, n):
        raise ConfigError(f"{path}: expected {claim.n_examples} images, as the claim's n_examples says, got {n}")
    clean, labels = dataset.test.batch(select_balanced(dataset.test.labels, n_examples=n, seed=seed))
    return _Ground(images=clean, labels=labels)


def _faults(path: Path, tensors: Mapping[str, Tensor], ground: _Ground, budget: Budget) -> tuple[str, ...]:
    """Return the faults of the images: order, values, budget."""
    faults = []
    labels = tensors.get(LABELS)
    if labels is not None:
        stated = labels.flatten().tolist()
        pairs = enumerate(zip(stated, ground.labels.tolist(), strict=False))
        differing = [image for image, (one, other) in pairs if one != other]
        if differing or len(stated) != len(ground.labels):
            first = differing[0] if differing else min(len(stated), len(ground.labels))
            faults.append(f"{path}: the labels are not those of the images from image {first} on; the order is another")
    fault = fault_of(ground.images, tensors[IMAGES], budget)
    return (*faults, *([f"{path}: {fault}"] if fault is not None else []))


def _measured(
    claim: Claim, defense: Defense, ground: _Ground, images: Tensor, *, seed: int, device: torch.device
) -> ClaimReport:
    rule: str | None = None
    before, after, broken = [], [], 0
    for start in range(0, len(images), CHUNK_SIZE):
        rows = slice(start, start + CHUNK_SIZE)
        chunk = Chunk(number=0, images=ground.images[rows].to(device), labels=ground.labels[rows])
        clean = answers_of(defense, chunk.images, seed=seed)
        shown = images[rows].to(device)
        answers = candidate_answers(defense, chunk, clean, shown, norm=claim.norm, seed=seed)
        rule = rule or _rule(claim, answers)
        now = answers[rule]
        before.append(now.survival)
        after.append(survival(now.rounded))
        broken += int(((now.survival <= 0.5) & ~now.clean_error).sum())
    total, n = float(np.concatenate(before).sum()), len(images)
    ci95 = wilson(total, n)
    measured = total / n
    finding = _finding(claim, measured, ci95, n, randomized=defense.meta.randomized)
    return ClaimReport(
        findings=finding,
        n=n,
        claimed=claim.robust_accuracy,
        measured=measured,
        ci95=ci95,
        rounded=float(np.concatenate(after).mean()),
        broken=broken,
    )


def _rule(claim: Claim, answers: Mapping[str, CandidateAnswers]) -> str:
    """Return the decision rule that the claim is about."""
    if claim.decision is not None:
        if claim.decision not in answers:
            raise UnknownNameError("decision rule", claim.decision, answers, known_as="Of this defence")
        return claim.decision
    if len(answers) > 1:
        raise ConfigError(f"{claim.defense} has the decision rules {', '.join(answers)}; name one as 'decision'")
    return next(iter(answers))


def _finding(claim: Claim, measured: float, ci95: tuple[float, float], n: int, *, randomized: bool) -> tuple[str, ...]:
    """Return the fault of the number: off by more than half an image; of random answers, outside the interval."""
    claimed = claim.robust_accuracy
    holds = ci95[0] <= claimed <= ci95[1] if randomized else abs(claimed - measured) <= 0.5 / n
    if holds:
        return ()
    return (f"robust accuracy is claimed as {claimed:.6g}, measured it is {measured:.6g} ({n} images)",)


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    value = first["input"]
    if first["loc"] == ("robust_accuracy",) and isinstance(value, (int, float)) and 1 < value <= 100:
        return f"{where} must be a fraction in [0, 1], got {value}; did you mean {value / 100:g}?"
    return f"{where}: {first['msg']}"
