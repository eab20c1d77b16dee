"""PixelDefend: sizes that fit the images, p-values by hand, and attacked digits that are digits again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dkd_baselines._pixelcnn import PixelCNN, levels_of
from dkd_baselines.pixel_defend import (
    AUTHORS,
    SMALL,
    PixelDefend,
    PixelDefendSettings,
    default_reach,
    density_recipe,
    density_size,
)
from dkd_baselines.undefended import Undefended
from dkd_bench.api import BPDA, ConfigError, Defense, ImageSpec, Split, TrainingSet, digest_module
from dkd_bench.data import load_dataset
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.weights import ready_for_inference
from dkd_bench.target.randomness import isolated_randomness
from dkd_bench.training import Recipe

DIGITS = load_dataset("digits")
QUICK = Recipe(name="quick", epochs=12, batch_size=25, learning_rate=5e-3, schedule="one-cycle")
N_TRAINING = 300
SETTINGS = PixelDefendSettings(filters=8, references=200)


def spec(channels: int, side: int) -> ImageSpec:
    return ImageSpec(channels=channels, height=side, width=side, n_classes=10)


def training_split(n: int = N_TRAINING) -> Split:
    return Split(images=DIGITS.train.images[:n], labels=DIGITS.train.labels[:n], white=DIGITS.train.white)


def trained(
    kind: type[Defense], settings: object, recipe: Recipe = QUICK, n: int = N_TRAINING, seed: int = 0
) -> Defense:
    with isolated_randomness(seed):
        built = kind(DIGITS.image_spec, settings)
    built.fit(
        TrainingSet(split=training_split(n), digest="digits"),
        recipe=recipe,
        generator=torch.Generator().manual_seed(seed),
        progress=SilentProgress(),
    )
    ready_for_inference(built)
    return built


@pytest.fixture(scope="module")
def defense() -> PixelDefend:
    return trained(PixelDefend, SETTINGS)


@pytest.fixture(scope="module")
def test_images() -> tuple[Tensor, Tensor]:
    return DIGITS.test.batch(torch.arange(100))


@pytest.fixture(scope="module")
def attacked(defense: PixelDefend, test_images: tuple[Tensor, Tensor]) -> Tensor:
    return attacked_by_fgsm(defense, *test_images)


def attacked_by_fgsm(defense: PixelDefend, images: Tensor, labels: Tensor) -> Tensor:
    """Return FGSM's images of 0.1 against the classifier without its protection."""
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(defense.network(leaf), labels), leaf)
    return (images + 0.1 * gradient.sign()).clamp(0, 1)


def answers(defense: Defense, x: Tensor) -> Tensor:
    with torch.no_grad():
        return defense.predict(x, generator=torch.Generator())


def like(defense: PixelDefend, **changes: object) -> PixelDefend:
    """Return the trained defence with other settings."""
    other = PixelDefend(DIGITS.image_spec, replace(SETTINGS, **changes))
    other.load_state_dict(defense.state_dict())
    ready_for_inference(other)
    return other


def test_attacked_images_become_likely_again_and_are_classified_better(defense, test_images, attacked):
    images, labels = test_images
    purified = defense.purifier(attacked)
    bits = {
        name: float(defense.bits_per_dimension(each).mean())
        for name, each in (("clean", images), ("attacked", attacked), ("purified", purified))
    }
    right = {
        "clean": float((answers(defense, images) == labels).double().mean()),
        "attacked": float((answers(defense, attacked) == labels).double().mean()),
        "bare": float((defense.network(attacked).argmax(dim=1) == labels).double().mean()),
    }

    assert bits["attacked"] > bits["clean"] + 1
    assert bits["purified"] < bits["clean"]
    assert (purified - attacked).abs().max() < 26.5 / 255
    assert right["clean"] > 0.7
    assert right["attacked"] > right["bare"]


def test_p_values_tell_attacked_from_clean_images(defense, test_images, attacked):
    known = training_split().batch(torch.arange(N_TRAINING))[0]
    assert 0.4 < defense.p_values(known).mean() < 0.6
    assert defense.p_values(test_images[0]).median() > 0.2
    assert defense.p_values(attacked).median() < 0.05


def test_p_values_by_hand(defense, test_images):
    other = like(defense)
    images = test_images[0][:3]
    ascending = other.bits_per_dimension(images).sort().values
    other.purifier.reference_bits.fill_(-torch.inf)
    other.purifier.reference_bits[-4:] = torch.cat([ascending[:1] - 1, ascending])

    found = other.p_values(images)

    assert found.sort().values.tolist() == [2 / 5, 3 / 5, 4 / 5]
    assert found[other.bits_per_dimension(images).argmax()] == 2 / 5
    assert other.p_values(torch.rand(1, 1, 8, 8)).tolist() == [1 / 5]


def test_references_are_training_images_or_all_there_are():
    brief = replace(QUICK, epochs=1)
    few = trained(PixelDefend, SETTINGS, brief, n=60)
    kept = few.purifier.reference_bits
    images = training_split(60).batch(torch.arange(60))[0]

    assert kept.isinf().sum() == 140
    assert torch.allclose(kept[140:], few.bits_per_dimension(images).sort().values, rtol=1e-12)
    assert float(few.p_values(images).min()) == 2 / 61


def test_before_training_every_image_has_a_p_value_of_one():
    assert PixelDefend(DIGITS.image_spec).p_values(torch.rand(2, 1, 8, 8)).tolist() == [1, 1]


def test_only_unlikely_images_are_purified_if_so_set(defense, test_images, attacked):
    images = torch.cat([test_images[0][:20], attacked[:20]])
    selective = like(defense, purify_below=0.1)
    unlikely = selective.p_values(images) <= 0.1
    assert 0 < unlikely.sum() < 40

    found, everywhere = selective.purifier(images), defense.purifier(images)

    assert torch.equal(found[unlikely], everywhere[unlikely])
    assert torch.equal(found[~unlikely], images[~unlikely])
    assert (everywhere[~unlikely] != images[~unlikely]).any()
    assert digest_module(selective.purifier) != digest_module(defense.purifier)


def test_purified_images_are_the_same_alone(defense, attacked):
    some = attacked[:8]
    for purifier in (defense.purifier, like(defense, purify_below=0.1).purifier):
        assert torch.equal(purifier(some), torch.cat([purifier(image.unsqueeze(0)) for image in some]))


def test_the_surrogate_answers_as_deployed_with_the_gradient_at_the_purified_images(defense, attacked):
    (name, surrogate), *others = defense.surrogates().items()
    assert name == "bpda-identity"
    assert not others
    assert isinstance(surrogate, BPDA)
    leaf = attacked[:10].clone().requires_grad_()
    logits = surrogate(leaf)
    (found,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    purified = defense.purifier(attacked[:10]).requires_grad_()
    (expected,) = torch.autograd.grad(defense.network(purified)[:, 0].sum(), purified)

    assert torch.equal(logits.argmax(dim=1), answers(defense, attacked[:10]))
    assert torch.equal(found, expected)


def test_the_classifier_is_the_undefended_network(defense):
    """An attacker who knows nothing of the protection attacks what the board calls no defence."""
    undefended = trained(Undefended, None)
    assert list(defense.members) == [defense.network]
    assert digest_module(undefended.network) == digest_module(defense.network)


@pytest.mark.parametrize(
    ("channels", "side", "reach", "filters", "resolutions"),
    [
        (1, 8, 0.1, 16, 2),
        (1, 28, 0.3, 16, 2),
        (1, 25, 0.3, 16, 1),
        (3, 32, 16 / 255, 160, 3),
        (3, 34, 16 / 255, 160, 2),
    ],
)
def test_reach_and_size_fit_the_images(channels, side, reach, filters, resolutions):
    images = spec(channels, side)
    size = density_size(images, PixelDefendSettings())
    assert default_reach(images) == reach
    assert (size.filters, size.resolutions) == (filters, resolutions)


def test_settings_override_the_size():
    asked = PixelDefendSettings(filters=40, resnets=3, resolutions=3, mixtures=10)
    assert density_size(spec(1, 28), asked) == replace(AUTHORS, filters=40, resnets=3, dropout=SMALL.dropout)


def test_the_authors_density_builds_and_sees_nothing_it_should_not():
    """At full size on no device; with few filters, the same on the images of a colour set."""
    images = spec(3, 32)
    with torch.device("meta"):
        full = PixelCNN(images, density_size(images, PixelDefendSettings()))
        assert full(torch.zeros(2, 3, 32, 32)).shape == (2, 100, 32, 32)
    assert sum(parameter.numel() for parameter in full.parameters()) > 50e6

    with isolated_randomness(0):
        few = PixelCNN(images, density_size(images, PixelDefendSettings(filters=2))).eval()
    levels = levels_of(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    changed = levels.clone()
    changed[:, :, 13, 17] = 255 - changed[:, :, 13, 17]
    with torch.no_grad():
        moved = (few(levels) - few(changed)).abs().amax(dim=(0, 1)).flatten()
    place = 13 * 32 + 17
    assert moved[: place + 1].max() < 1e-6
    assert moved[place + 1] > 1e-4


def test_the_densitys_recipe_follows_the_one_given():
    fast = Recipe(name="fast", epochs=4, batch_size=128, learning_rate=2e-3, schedule="one-cycle")
    paper = Recipe(name="paper", epochs=100, batch_size=16, learning_rate=1e-4, schedule="constant")
    assert density_recipe(fast, 0.25) == replace(fast, epochs=1, batch_size=32, learning_rate=5e-3)
    assert density_recipe(paper, 0.25) == replace(paper, epochs=25, learning_rate=1e-3)
    assert density_recipe(fast, 0.01).epochs == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps_defend": 16}, r"eps_defend must be in \(0, 1\].*got 16"),
        ({"purify_below": 0}, r"purify_below must be in \(0, 1\]"),
        ({"references": 0}, "references must be at least 1"),
        ({"filters": -1}, "filters must be at least 1, or 0"),
        ({"epochs_ratio": 0}, "epochs_ratio must be positive"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        PixelDefendSettings(**change)
