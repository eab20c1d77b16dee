"""What DKD and KD minimise, against their formulas, and what becomes of the networks trained by them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from dkd_baselines.undefended import Undefended
from dkd_bench.api import ConfigError, Defense, Split, TrainingBatch, TrainingSet, digest_module, outputs_on
from dkd_bench.data import Dataset, load_dataset
from dkd_bench.progress import SilentProgress
from dkd_bench.training import Recipe
from dkd_defenses._sequential import DistilledSettings, EnsembleSettings, FrozenOutputs
from dkd_defenses.dkd import DKD, Diversity, DKDSettings
from dkd_defenses.kd import KD, Distillation, KDSettings
from dkd_defenses.ri import RI

N, K, D = 12, 5, 7


class Remembered:
    """Stands for the frozen outputs of earlier networks."""

    def __init__(self, count: int, width: int) -> None:
        generator = torch.Generator().manual_seed(4)
        self.tensors = [torch.randn(N, width, generator=generator) for _ in range(count)]

    def identity(self) -> list[str]:
        return [f"network {position}" for position in range(len(self.tensors))]


def a_batch() -> TrainingBatch:
    indices = torch.tensor([7, 0, 11, 4])
    generator = torch.Generator().manual_seed(3)
    return TrainingBatch(
        indices=indices,
        labels=torch.tensor([1, 4, 0, 2]),
        logits=torch.randn(4, K, generator=generator, requires_grad=True),
        latent=torch.randn(4, D, generator=generator, requires_grad=True),
    )


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    return dot / (sum(a * a for a in first) ** 0.5 * sum(b * b for b in second) ** 0.5)


def cross_entropy(batch: TrainingBatch) -> float:
    rows = batch.logits.detach().softmax(dim=1)
    return float(-torch.stack([row[label].log() for row, label in zip(rows, batch.labels, strict=True)]).mean())


@pytest.mark.parametrize("earlier", [1, 2, 3])
@pytest.mark.parametrize("zeta", [0.0, 0.5, 0.9])
def test_diversity_is_equation_4(earlier: int, zeta: float) -> None:
    batch, frozen = a_batch(), Remembered(earlier, D)
    assert batch.latent is not None
    similarities = 0.0
    for latents in frozen.tensors:
        pairs = zip(batch.latent.tolist(), latents[batch.indices].tolist(), strict=True)
        similarities += sum(itertools.starmap(cosine, pairs)) / len(batch.labels)
    expected = (1 - zeta) * cross_entropy(batch) + zeta / earlier * similarities
    loss = Diversity(cast(FrozenOutputs, frozen), zeta=zeta, latent_layer="latent").loss(batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_diversity_is_at_its_bounds_for_parallel_and_opposite_latents() -> None:
    batch, frozen = a_batch(), Remembered(2, D)
    assert batch.latent is not None
    objective = Diversity(cast(FrozenOutputs, frozen), zeta=1.0, latent_layer="latent")
    frozen.tensors = [torch.zeros(N, D).index_copy(0, batch.indices, 3 * batch.latent.detach()) for _ in range(2)]
    assert objective.loss(batch).item() == pytest.approx(1.0)
    opposite = Diversity(cast(FrozenOutputs, frozen), zeta=1.0, latent_layer="latent")
    frozen.tensors = [-latents for latents in frozen.tensors]
    assert opposite.loss(batch).item() == pytest.approx(-1.0)


def test_diversity_drives_latents_apart() -> None:
    batch, frozen = a_batch(), Remembered(2, D)
    objective = Diversity(cast(FrozenOutputs, frozen), zeta=0.9, latent_layer="latent")
    assert batch.latent is not None
    (gradient,) = torch.autograd.grad(objective.loss(batch), batch.latent)
    assert gradient.any()
    step = TrainingBatch(
        indices=batch.indices,
        labels=batch.labels,
        logits=batch.logits,
        latent=batch.latent.detach() - 0.1 * gradient,
    )
    assert objective.loss(step) < objective.loss(batch)


def test_a_dead_latent_is_no_division_by_zero() -> None:
    batch = a_batch()
    dead = TrainingBatch(indices=batch.indices, labels=batch.labels, logits=batch.logits, latent=torch.zeros(4, D))
    loss = Diversity(cast(FrozenOutputs, Remembered(1, D)), zeta=0.5, latent_layer="latent").loss(dead)
    assert loss.item() == pytest.approx(0.5 * cross_entropy(dead), rel=1e-5)


@pytest.mark.parametrize("teachers", [1, 2, 3])
@pytest.mark.parametrize(("temperature", "weight"), [(4.0, 0.7), (1.0, 0.5), (2.5, 0.0), (4.0, 1.0)])
def test_distillation_is_the_softened_divergence(teachers: int, temperature: float, weight: float) -> None:
    batch, frozen = a_batch(), Remembered(teachers, K)
    student = (batch.logits.detach() / temperature).softmax(dim=1)
    divergences = []
    for logits in frozen.tensors:
        teacher = (logits[batch.indices] / temperature).softmax(dim=1)
        divergences.append(float((teacher * (teacher / student).log()).sum(dim=1).mean()))
    expected = (1 - weight) * cross_entropy(batch) + weight * temperature**2 * sum(divergences) / teachers
    objective = Distillation(cast(FrozenOutputs, frozen), temperature=temperature, weight=weight)
    assert objective.loss(batch).item() == pytest.approx(expected, rel=1e-5)


def test_a_student_like_its_teacher_has_nothing_to_learn() -> None:
    batch, frozen = a_batch(), Remembered(1, K)
    frozen.tensors = [torch.zeros(N, K).index_copy(0, batch.indices, batch.logits.detach() + 2)]
    loss = Distillation(cast(FrozenOutputs, frozen), temperature=4.0, weight=1.0).loss(batch)
    assert loss.item() == pytest.approx(0.0, abs=1e-5)


def test_objectives_are_identified_by_what_they_compute() -> None:
    two, three = cast(FrozenOutputs, Remembered(2, D)), cast(FrozenOutputs, Remembered(3, D))
    identities = [
        Diversity(two, zeta=0.5, latent_layer="latent").identity(),
        Diversity(two, zeta=0.6, latent_layer="latent").identity(),
        Diversity(two, zeta=0.5, latent_layer="dense").identity(),
        Diversity(three, zeta=0.5, latent_layer="latent").identity(),
        Distillation(two, temperature=4.0, weight=0.7).identity(),
        Distillation(two, temperature=5.0, weight=0.7).identity(),
        Distillation(two, temperature=4.0, weight=0.8).identity(),
        Distillation(three, temperature=4.0, weight=0.7).identity(),
    ]
    assert all(first != second for first, second in itertools.combinations(identities, 2))
    assert identities[0] == Diversity(two, zeta=0.5, latent_layer="latent").identity()


@pytest.mark.parametrize("zeta", [1.0, -0.1, float("nan"), 2])
def test_zeta_bounds(zeta: float) -> None:
    with pytest.raises(ConfigError, match=rf"zeta must be in \[0, 1\), since 1 - zeta weighs the accuracy; got {zeta}"):
        DKDSettings(zeta=zeta)


@pytest.mark.parametrize("zeta", [0.0, 0.999, None])
def test_zeta_within_bounds(zeta: float | None) -> None:
    assert DKDSettings(zeta=zeta).zeta == zeta


@pytest.mark.parametrize("temperature", [0.0, -4.0, float("nan")])
def test_temperature_bounds(temperature: float) -> None:
    with pytest.raises(ConfigError, match=f"temperature must be positive, got {temperature}"):
        KDSettings(temperature=temperature)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_distillation_weight_bounds(weight: float) -> None:
    with pytest.raises(ConfigError, match=rf"distillation_weight must be in \[0, 1\], got {weight}"):
        KDSettings(distillation_weight=weight)


@pytest.mark.parametrize("settings", [EnsembleSettings, DistilledSettings, DKDSettings, KDSettings])
def test_counts_must_be_positive(settings: type[Any]) -> None:
    with pytest.raises(ConfigError, match="n_members must be at least 1, got 0"):
        settings(n_members=0)
    with pytest.raises(ConfigError, match="top_n must be at least 1, got 0"):
        settings(top_n=0)


def test_defaults_are_the_papers() -> None:
    assert DKDSettings() == DKDSettings(n_members=3, top_n=2, include_main=False, zeta=None, latent_layer="latent")
    assert KDSettings() == KDSettings(n_members=3, temperature=4.0, distillation_weight=0.7, include_main=False)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", root=None)


@pytest.fixture(scope="module")
def few(digits: Dataset) -> TrainingSet:
    return few_digits(digits)


def few_digits(digits: Dataset) -> TrainingSet:
    """Return 200 digits to train on."""
    split = Split(images=digits.train.images[:200], labels=digits.train.labels[:200], white=digits.train.white)
    return TrainingSet(split=split, digest=split.digest())


BRIEF = Recipe(name="brief", epochs=2, batch_size=50, learning_rate=2e-3, schedule="one-cycle")
TEN_EPOCHS = replace(BRIEF, epochs=10)


def fitted(
    cls: type[Defense],
    digits: Dataset,
    data: TrainingSet,
    recipe: Recipe = BRIEF,
    settings: Any = None,
    seed: int = 0,
) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        defense = cls(digits.image_spec, settings)
    generator = torch.Generator().manual_seed(seed + 5)
    defense.fit(data, recipe=recipe, generator=generator, progress=SilentProgress())
    return defense


def test_zeta_is_the_papers_unless_set(digits: Dataset) -> None:
    gray = digits.image_spec
    colour = type(gray)(channels=3, height=8, width=8, n_classes=10)
    assert DKD(gray).zeta == 0.9
    assert DKD(colour).zeta == 0.5
    assert DKD(gray, DKDSettings(zeta=0.25)).zeta == 0.25
    assert DKD(gray, DKDSettings(zeta=0.0)).zeta == 0.0


def test_the_main_model_is_one_network_for_all(digits: Dataset, few: TrainingSet) -> None:
    settings = {"n_members": 1}
    none = fitted(Undefended, digits, few)
    mains = [
        none.network,
        fitted(DKD, digits, few, settings=DKDSettings(**settings)).main,
        fitted(KD, digits, few, settings=KDSettings(**settings)).main,
        fitted(RI, digits, few, settings=EnsembleSettings(**settings)).networks[0],
    ]
    assert len({digest_module(main) for main in mains}) == 1


def test_members_are_the_auxiliaries(digits: Dataset) -> None:
    ensemble = DKD(digits.image_spec, DKDSettings(n_members=2))
    assert [*ensemble.members] == [*ensemble.auxiliaries]
    with_main = DKD(digits.image_spec, DKDSettings(n_members=2, include_main=True))
    assert [*with_main.members] == [with_main.main, *with_main.auxiliaries]


@pytest.mark.parametrize("cls", [DKD, KD])
def test_networks_trained_before_stay_as_they_are(
    cls: type[Any], digits: Dataset, few: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the next network's objective is made, and when all is done, the earlier ones are the same."""
    seen: list[list[str]] = []
    networks: list[nn.Module] = []
    original = cls.auxiliary_objective

    def watched(self: Any, earlier: Sequence[nn.Module], split: Split) -> Any:
        seen.append([digest_module(network) for network in earlier])
        networks[:] = earlier
        return original(self, list(earlier), split)

    monkeypatch.setattr(cls, "auxiliary_objective", watched)
    ensemble = fitted(cls, digits, few)
    final = [digest_module(network) for network in [ensemble.main, *ensemble.auxiliaries]]
    assert seen == [final[:1], final[:2], final[:3]]
    assert len(set(final)) == 4


def test_frozen_outputs_are_of_all_training_images(digits: Dataset, few: TrainingSet) -> None:
    network = fitted(Undefended, digits, few).network
    latents = FrozenOutputs([network], few.split, latent_layer="latent").tensors
    (logits,) = FrozenOutputs([network], few.split).tensors
    images = few.split.batch(torch.arange(200))[0]
    assert latents[0].shape == (200, 64)
    assert not latents[0].requires_grad
    torch.testing.assert_close(logits, network(images).detach(), rtol=1e-4, atol=1e-4)


def mean_similarity(networks: Sequence[nn.Module], split: Split) -> float:
    latents = [outputs_on(network, split, latent_layer="latent") for network in networks]
    pairs = itertools.combinations(latents, 2)
    similarities: list[Tensor] = [nn.functional.cosine_similarity(a, b).mean() for a, b in pairs]
    return float(torch.stack(similarities).mean())


def test_dkd_is_more_diverse_than_ri(digits: Dataset, few: TrainingSet) -> None:
    dkd, ri = (copy.deepcopy(fitted(cls, digits, few, TEN_EPOCHS)) for cls in (DKD, RI))
    assert mean_similarity(dkd.members, digits.test) < mean_similarity(ri.members, digits.test) - 0.1
