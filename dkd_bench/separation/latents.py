"""Measurement of a trained ensemble's latent space separation: computed once, then remembered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from inspect import getfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from dkd_bench.data import Dataset, Split, select_balanced
from dkd_bench.errors import ConfigError, DkdBenchError, FieldName, StoreError
from dkd_bench.progress import Progress, SilentTask
from dkd_bench.records import SeparationRecord
from dkd_bench.separation import lss as separation
from dkd_bench.separation import margin
from dkd_bench.separation import records as separation_records
from dkd_bench.separation.lss import ensemble_separation, permutation_null
from dkd_bench.separation.records import EnsembleSeparation, PermutationNull, SeparationReport
from dkd_bench.store.cache import cache_root
from dkd_bench.store.digests import digest_json, library_versions
from dkd_bench.store.files import read_file, write_file
from dkd_bench.training import captured_latent, outputs_on

if TYPE_CHECKING:
    from dkd_bench.steps.train import Subjects
    from dkd_bench.steps.weights import TrainedDefense

log = logging.getLogger(__name__)

WIDEST = 1024
"""Number of values of a latent beyond which an exact margin takes minutes."""

LATENT_LAYER = "latent"
"""Name that the networks of dkd-bench give to the layer before their logits."""

_Record = TypeVar("_Record", bound=BaseModel)


def measured_separation(  # noqa: PLR0913
    trained: TrainedDefense,
    dataset: Dataset,
    dataset_digest: str,
    *,
    layer: str = LATENT_LAYER,
    n_examples: int | None = None,
    null_draws: int = 0,
    seed: int = 0,
) -> SeparationReport:
    """Return the separation of the members' latents of the test images, and of random labels.

    Args:
        trained: the ensemble.
        dataset: whose test images are taken.
        dataset_digest: of the dataset.
        layer: the layer of every member whose flattened outputs are its latents.
        n_examples: how many images, chosen as a run chooses them; ``None`` for the whole test set.
        null_draws: permutations of the labels; 0 for no null.
        seed: of the choice of images and of the permutations.

    Raises:
        ConfigError: if the defence has fewer than two members, a member has no such layer, their latents differ in
            shape or are not finite, or a number is out of range.
        StoreError: if what was measured before is damaged, or cannot be kept.
    """
    _check(trained, null_draws)
    split = _chosen(dataset.test, n_examples, seed)
    ground = _ground(trained, dataset_digest, layer, n=len(split), chosen_by=None if n_examples is None else seed)

    @cache
    def latents() -> list[Tensor]:
        return _latents(trained, split, layer)

    found = _remembered({"what": "separation", **ground}, EnsembleSeparation, lambda: ensemble_separation(latents()))
    null = None
    if null_draws:
        drawn = {"what": "null", "draws": null_draws, "seed": seed, **ground}
        null = _remembered(drawn, PermutationNull, lambda: _null(latents(), draws=null_draws, seed=seed))
    return SeparationReport(
        defense=trained.name,
        weights_sha256=trained.sha256,
        dataset=dataset.name,
        dataset_digest=dataset_digest,
        layer=layer,
        n_examples=len(split),
        seed=seed,
        separation=found,
        null=null,
    )


def separations(subjects: Subjects, progress: Progress) -> dict[str, SeparationRecord]:
    """Return the separation of each ensemble's latents on the whole test set; others are left out.

    Left out are single networks, and ensembles without a usable layer ``latent`` in every member: a run goes on
    without them.
    """
    ensembles = [
        (name, each)
        for name, each in subjects.defenses.items()
        if len(each.defense.members) > 1
        and all(LATENT_LAYER in dict(member.named_modules()) for member in each.defense.members)
    ]
    task = progress.start("separation of latents", len(ensembles)) if ensembles else SilentTask()
    found = {}
    for name, each in ensembles:
        try:
            report = measured_separation(each, subjects.dataset, subjects.dataset_digest)
        except DkdBenchError as error:
            log.warning("no LSS of %s: %s", name, error)
            continue
        found[name] = SeparationRecord(
            layer=report.layer,
            n=report.n_examples,
            dimension=report.separation.members[0].dimension,
            margin=report.separation.lss,
            scaled_margin=report.separation.scaled_lss,
            reason=report.separation.reason,
        )
        task.advance(note=f"LSS of {name}")
    return found


def _check(trained: TrainedDefense, null_draws: int) -> None:
    n_members = len(trained.defense.members)
    if n_members < 2:
        raise ConfigError(
            f"defence {trained.name!r} has one member, and an ensemble of one has nothing to separate; "
            "latent space separation takes at least two"
        )
    if null_draws < 0:
        raise ConfigError(FieldName("null_draws"), f" must be at least 0, got {null_draws}")


def _chosen(split: Split, n_examples: int | None, seed: int) -> Split:
    if n_examples is None:
        return split
    indices = select_balanced(split.labels, n_examples=n_examples, seed=seed)
    return Split(images=split.images[indices], labels=split.labels[indices], white=split.white)


def _latents(trained: TrainedDefense, split: Split, layer: str) -> list[Tensor]:
    """Return each member's latents, float32, shape ``(N, D)``, on the CPU."""
    latents = []
    for number, member in enumerate(trained.defense.members, start=1):
        try:
            _check_layer(member, split, layer)
            latents.append(outputs_on(member, split, latent_layer=layer).cpu())
        except ConfigError as error:
            raise ConfigError(f"member {number} of defence {trained.name!r}: ", error.sentence) from error
    return latents


@torch.no_grad()
def _check_layer(member: nn.Module, split: Split, layer: str) -> None:
    """Raise ConfigError unless ``layer`` gives one tensor, not too wide, in each evaluation of ``member``."""
    weights = next(member.parameters(), None)
    device = torch.device("cpu") if weights is None else weights.device
    images, _ = split.batch(torch.arange(1))
    with captured_latent(member, layer) as captured:
        member(images.to(device))
    if weights is None or len(captured) != 1 or not isinstance(captured[0], Tensor):
        raise ConfigError(f"layer {layer!r} must give one tensor in each evaluation of a network with weights")
    if captured[0].numel() > WIDEST:
        raise ConfigError(
            f"latents of {captured[0].numel()} values are too many for an exact margin, at most {WIDEST}; "
            "name a narrower layer"
        )


def _ground(
    trained: TrainedDefense, dataset_digest: str, layer: str, *, n: int, chosen_by: int | None
) -> dict[str, Any]:
    """Return what the numbers depend on, beside what is measured."""
    return {
        "weights": trained.sha256,
        "dataset": dataset_digest,
        "layer": layer,
        "n_examples": n,
        "chosen_by": chosen_by,
        "code": _code(),
        "libraries": library_versions("torch", "numpy", "scipy"),
    }


def _null(latents: list[Tensor], *, draws: int, seed: int) -> PermutationNull:
    """Return the null of random labels; the members' latents are pooled, so that one serves every member."""
    return permutation_null(latents[0], torch.cat(latents[1:]), draws=draws, seed=seed)


@cache
def _code() -> str:
    """Return a digest of the source that the numbers come from."""
    sources = (margin.__file__, separation.__file__, separation_records.__file__, getfile(outputs_on), __file__)
    return digest_json([sha256(Path(source).read_bytes()).hexdigest() for source in sources])


def _remembered(key: dict[str, Any], record: type[_Record], measure: Callable[[], _Record]) -> _Record:
    path = cache_root() / "separations" / f"{digest_json(key)}.json"
    if not path.is_file():
        measured = measure()
        write_file(path, measured.model_dump_json(indent=2))
        return measured
    try:
        return record.model_validate_json(read_file(path))
    except ValidationError as error:
        raise StoreError(f"{path} is damaged ({error.error_count()} errors); delete it and run again") from error
