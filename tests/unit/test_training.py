"""The training loop: deterministic, remembered, and with the recipes' numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dkd_bench.data import Dataset, Split
from dkd_bench.errors import ConfigError, UnknownNameError
from dkd_bench.store.digests import digest_module
from dkd_bench.store.files import TensorStore
from dkd_bench.training import (
    CrossEntropy,
    Objective,
    Recipe,
    TrainingBatch,
    TrainingSet,
    captured_latent,
    outputs_on,
    recipe_named,
    train_network,
)

RECIPE = Recipe(name="brief", epochs=3, batch_size=16, learning_rate=1e-2, schedule="one-cycle")


def a_split(n: int = 40) -> Split:
    """Return images whose class is whether their left half is the brighter one."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, 4, 4), generator=generator).to(torch.uint8)
    labels = (images[..., :2].float().sum(dim=(1, 2, 3)) > images[..., 2:].float().sum(dim=(1, 2, 3))).long()
    return Split(images=images, labels=labels)


@pytest.fixture
def data() -> TrainingSet:
    return TrainingSet(split=a_split(), digest="images")


@pytest.fixture
def remembering(data: TrainingSet, tmp_path: Path) -> TrainingSet:
    return TrainingSet(split=data.split, digest=data.digest, networks=TensorStore(tmp_path))


def a_network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential()
        network.add_module("features", nn.Conv2d(1, 4, 3))
        network.add_module("latent", nn.Sequential(nn.ReLU(), nn.Flatten()))
        network.add_module("logits", nn.Linear(16, 2))
    return network


def trained(data: TrainingSet, *, seed: int = 1, network: nn.Module | None = None, **changes: Any) -> nn.Module:
    network = network or a_network()
    values: dict[str, Any] = {"recipe": RECIPE, "generator": torch.Generator().manual_seed(seed)}
    train_network(network, data, **values | changes)
    return network


class Notes:
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.advanced: list[tuple[int, str]] = []

    def start(self, description: str, total: int) -> Notes:
        self.started.append((description, total))
        return self

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.advanced.append((steps, note))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count the optimizer's steps."""
    counted: list[int] = []
    original = torch.optim.Adam.step

    def step(self: torch.optim.Adam, *arguments: Any, **options: Any) -> Any:
        counted.append(1)
        return original(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    return counted  # type: ignore[return-value]


class Weighted(Objective):
    """Cross-entropy times a weight; remembers the batches."""

    def __init__(self, weight: float, latent_layer: str | None = None) -> None:
        self.weight, self.latent_layer = weight, latent_layer
        self.batches: list[TrainingBatch] = []

    def identity(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def loss(self, batch: TrainingBatch) -> Tensor:
        self.batches.append(batch)
        return self.weight * nn.functional.cross_entropy(batch.logits, batch.labels)


def test_training_learns(data: TrainingSet) -> None:
    recipe = Recipe(name="longer", epochs=200, batch_size=16, learning_rate=1e-2, schedule="constant")
    network = trained(data, recipe=recipe)
    right = outputs_on(network, data.split).argmax(dim=1) == data.split.labels
    assert right.float().mean() > 0.9


def test_training_is_deterministic(data: TrainingSet) -> None:
    assert digest_module(trained(data)) == digest_module(trained(data))
    assert digest_module(trained(data, seed=2)) != digest_module(trained(data, seed=1))


def test_training_touches_no_global_generator(data: TrainingSet) -> None:
    before = torch.random.get_rng_state()
    trained(data)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_training_depends_on_no_global_generator(data: TrainingSet) -> None:
    first = digest_module(trained(data))
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert digest_module(trained(data)) == first


def test_a_trained_network_is_in_evaluation_mode(data: TrainingSet, remembering: TrainingSet) -> None:
    for each in (trained(data), trained(remembering), trained(remembering)):
        assert not each.training


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_every_image_once_an_epoch(data: TrainingSet, schedule: str, steps: list[int]) -> None:
    objective = Weighted(1.0)
    recipe = Recipe(name="brief", epochs=2, batch_size=16, learning_rate=1e-3, schedule=schedule)  # type: ignore[arg-type]
    trained(data, objective=objective, recipe=recipe)
    seen = [batch.indices for batch in objective.batches]
    assert [len(indices) for indices in seen] == [16, 16, 8] * 2
    assert len(steps) == 6
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(40))
    assert not torch.equal(first, second)
    for batch in objective.batches:
        assert torch.equal(batch.labels, data.split.labels[batch.indices])


def test_cross_entropy_is_the_default(data: TrainingSet) -> None:
    assert digest_module(trained(data)) == digest_module(trained(data, objective=CrossEntropy()))


def test_cross_entropy_known_value() -> None:
    batch = TrainingBatch(
        indices=torch.tensor([0]), labels=torch.tensor([0]), logits=torch.tensor([[3.0, 1.0]]).log(), latent=None
    )
    assert CrossEntropy().loss(batch).item() == pytest.approx(-torch.tensor(0.75).log().item())


def test_a_network_trained_before_is_loaded(remembering: TrainingSet, steps: list[int]) -> None:
    first, again = Notes(), Notes()
    network = trained(remembering, progress=first, description="main model")
    assert len(steps) == 3 * 3
    found = trained(remembering, progress=again, description="main model")
    assert len(steps) == 3 * 3
    assert digest_module(found) == digest_module(network)
    assert first.started == again.started == [("main model", 3)]
    assert [count for count, _ in first.advanced] == [1, 1, 1]
    assert all(note.startswith("loss ") for _, note in first.advanced)
    assert again.advanced == [(3, "trained before")]


def test_a_loaded_network_is_like_the_trained_one_in_all_that_rounds(remembering: TrainingSet) -> None:
    """Networks trained against it must not differ by whether it was found: one memory format for both."""
    network, found = trained(remembering), trained(remembering)
    weight, found_weight = (each.get_parameter("features.weight") for each in (network, found))
    assert weight.stride() == found_weight.stride()
    assert torch.equal(outputs_on(network, remembering.split), outputs_on(found, remembering.split))


def test_the_generator_advances_alike_whether_trained_or_loaded(remembering: TrainingSet, data: TrainingSet) -> None:
    states = []
    for each in (data, remembering, remembering):
        generator = torch.Generator().manual_seed(1)
        trained(each, generator=generator)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"seed": 2}, id="seed"),
        pytest.param({"network": a_network(seed=7)}, id="initial weights"),
        pytest.param(
            {"recipe": Recipe(name="brief", epochs=4, batch_size=16, learning_rate=1e-2, schedule="one-cycle")},
            id="recipe",
        ),
        pytest.param({"objective": Weighted(0.5)}, id="objective"),
    ],
)
def test_what_determines_training_is_in_the_key(
    remembering: TrainingSet, changes: dict[str, Any], steps: list[int]
) -> None:
    trained(remembering)
    trained(remembering, **changes)
    assert len(steps) > 3 * 3


def test_the_dataset_is_in_the_key(remembering: TrainingSet, steps: list[int]) -> None:
    trained(remembering)
    trained(TrainingSet(split=remembering.split, digest="other images", networks=remembering.networks))
    assert len(steps) == 2 * 3 * 3


def test_objectives_are_told_apart_by_what_they_say(remembering: TrainingSet, steps: list[int]) -> None:
    for weight in (0.5, 0.25, 0.5):
        trained(remembering, objective=Weighted(weight))
    assert len(steps) == 2 * 3 * 3


def test_latents_reach_the_objective(data: TrainingSet) -> None:
    objective = Weighted(1.0, latent_layer="latent")
    trained(data, objective=objective)
    latent = objective.batches[0].latent
    assert latent is not None
    assert latent.shape == (16, 16)
    assert latent.requires_grad


def test_latents_are_flattened(data: TrainingSet) -> None:
    objective = Weighted(1.0, latent_layer="features")
    trained(data, objective=objective)
    latent = objective.batches[0].latent
    assert latent is not None
    assert latent.shape == (16, 4 * 2 * 2)


@pytest.mark.parametrize("layer", ["nowhere", ""])
def test_unknown_latent_layer(data: TrainingSet, layer: str) -> None:
    message = rf"no layer '{layer}' to take latents from; its layers: features, latent, latent\.0, latent\.1, logits"
    with pytest.raises(ConfigError, match=message):
        trained(data, objective=Weighted(1.0, latent_layer=layer))


def test_captured_latent_leaves_no_hook() -> None:
    network = a_network()
    with captured_latent(network, "latent") as captured:
        network(torch.zeros(1, 1, 4, 4))
        network(torch.zeros(3, 1, 4, 4))
    network(torch.zeros(1, 1, 4, 4))
    assert [len(latent) for latent in captured] == [1, 3]


def test_outputs_on_a_split_longer_than_one_batch() -> None:
    split, network = a_split(n=260), a_network().eval()
    images = split.batch(torch.arange(260))[0]
    logits = outputs_on(network, split)
    assert logits.shape == (260, 2)
    assert not logits.requires_grad
    torch.testing.assert_close(logits, network(images).detach())
    latents = outputs_on(network, split, latent_layer="latent")
    torch.testing.assert_close(latents, network.latent(network.features(images)).detach())


def a_dataset(channels: int, side: int, n_train: int) -> Dataset:
    """Return a dataset of that size that takes no memory."""
    image = torch.zeros(1, channels, side, side, dtype=torch.uint8)
    train = Split(images=image.expand(n_train, -1, -1, -1), labels=torch.zeros(n_train, dtype=torch.int64))
    return Dataset(
        name="blank", train=train, test=Split(images=image, labels=torch.zeros(1, dtype=torch.int64)), n_classes=10
    )


MNIST, CIFAR10, DIGITS = (1, 28, 60_000), (3, 32, 50_000), (1, 8, 1297)


@pytest.mark.parametrize(
    ("name", "dataset", "epochs", "batch_size", "learning_rate", "schedule"),
    [
        ("paper", MNIST, 100, 64, 1e-4, "constant"),
        ("paper", CIFAR10, 100, 128, 1e-4, "constant"),
        ("paper", DIGITS, 100, 64, 1e-4, "constant"),
        ("fast", MNIST, 4, 128, 2e-3, "one-cycle"),
        ("fast", CIFAR10, 5, 128, 2e-3, "one-cycle"),
        ("fast", DIGITS, 40, 32, 2e-3, "one-cycle"),
    ],
)
def test_recipes(
    name: str, dataset: tuple[int, int, int], epochs: int, batch_size: int, learning_rate: float, schedule: str
) -> None:
    assert recipe_named(name, a_dataset(*dataset)) == Recipe(
        name=name,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,  # type: ignore[arg-type]
    )


def test_unknown_recipe() -> None:
    with pytest.raises(UnknownNameError, match=r"no recipe named 'fsat'\. Did you mean 'fast'\? Recipes: fast, paper"):
        recipe_named("fsat", a_dataset(*DIGITS))
