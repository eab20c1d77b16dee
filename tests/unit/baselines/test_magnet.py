"""MagNet: thresholds and marks by hand, rejects, what a white-box attacker sees, and autoencoders that differ."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dkd_baselines._magnet_autoencoders import Autoencoders, Denoising, DenoisingTerms, Reconstruction
from dkd_baselines._magnet_guards import DrawnGuard, Guard, jensen_shannon, threshold
from dkd_baselines.magnet import DiverseMagNet, DiverseMagNetSettings, MagNet, MagNetSettings
from dkd_baselines.undefended import Undefended
from dkd_bench.api import ABSTAIN, ConfigError, Defense, ImageSpec, Split, TrainingSet, TrainingStep, digest_module
from dkd_bench.data import load_dataset
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.weights import ready_for_inference
from dkd_bench.target import Target
from dkd_bench.target.randomness import isolated_randomness
from dkd_bench.training import Recipe

GRAY = ImageSpec(channels=1, height=8, width=8, n_classes=10)
COLOUR = ImageSpec(channels=3, height=8, width=8, n_classes=10)
QUICK = Recipe(name="quick", epochs=4, batch_size=25, learning_rate=5e-3, schedule="one-cycle")
DIGITS = load_dataset("digits")
FEW = Split(images=DIGITS.train.images[:400], labels=DIGITS.train.labels[:400], white=DIGITS.train.white)
N_HELD_OUT = 129
"""A tenth of the digits' 1297 training images."""


def images_of(split: Split, n: int = 200) -> Tensor:
    return split.batch(torch.arange(n))[0]


def mixtures() -> Tensor:
    """Return the images of two digits at once, clean digits, and noise: some are rejected, some not."""
    clean = images_of(DIGITS.test)
    noise = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.cat([(clean + clean.flip(0)) / 2, clean, noise])


def trained(defense: type[Defense], spec: ImageSpec, settings: object, split: Split, seed: int = 0) -> Defense:
    with isolated_randomness(seed):
        built = defense(spec, settings)
    built.fit(
        TrainingSet(split=split, digest="digits"),
        recipe=QUICK,
        generator=torch.Generator().manual_seed(seed),
        progress=SilentProgress(),
    )
    ready_for_inference(built)
    return built


def answers(defense: Defense, x: Tensor, *, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return defense.predict(x, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def magnet() -> MagNet:
    return a_magnet(0)


@pytest.fixture(scope="module")
def diverse() -> DiverseMagNet:
    return a_diverse_magnet(0)


@pytest.fixture(scope="module")
def in_colour() -> MagNet:
    return a_magnet_in_colour(0)


def a_magnet(seed: int) -> Defense:
    return trained(MagNet, GRAY, MagNetSettings(epochs=25, error_rate=0.1), DIGITS.train, seed)


def a_diverse_magnet(seed: int) -> Defense:
    settings = DiverseMagNetSettings(epochs=2, error_rate=0.1, autoencoders=3)
    return trained(DiverseMagNet, GRAY, settings, DIGITS.train, seed)


def a_magnet_in_colour(seed: int) -> Defense:
    coloured = Split(images=FEW.images.repeat(1, 3, 1, 1), labels=FEW.labels, white=FEW.white)
    return trained(MagNet, COLOUR, MagNetSettings(epochs=3, error_rate=0.1, divergence_rate=0.1), coloured, seed)


@pytest.mark.parametrize(("n", "rate", "rejected"), [(5000, 0.001, 5), (5000, 0.005, 25), (129, 0.001, 1), (7, 0.5, 3)])
def test_threshold_rejects_the_largest_marks(n, rate, rejected):
    marks = torch.arange(n, dtype=torch.float32)[torch.randperm(n, generator=torch.Generator().manual_seed(0))]

    beyond = marks > threshold(marks, rate)

    assert set(marks[beyond].tolist()) == set(range(n - rejected, n))


def test_threshold_rejects_marks_equal_to_the_last_rejected():
    """The authors pass marks strictly below the m-th largest."""
    marks = torch.tensor([0.3, 0.1, 0.3, 0.2, 0.3])

    assert (marks > threshold(marks, 0.2)).tolist() == [True, False, True, False, True]


def test_excess_keeps_its_sign_where_the_threshold_is_zero():
    guard = Guard(nn.Identity(), [Negative()], norms=(1,), temperatures=(), thresholds=threshold(torch.zeros(3), 0.5))

    assert (guard.rejections(torch.full((1, 1, 2, 2), 0.5)) > 0).all(), "a mark of 0 is not below 0"
    assert torch.isfinite(guard.rejections(torch.ones(1, 1, 2, 2))).all()


def test_jensen_shannon_is_its_formula():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(6, 5, generator=generator) * 3 for _ in range(2))

    expected = []
    for p, q in zip(first.softmax(dim=1).tolist(), second.softmax(dim=1).tolist(), strict=True):
        half_way = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        kl = [sum(a * math.log(a / m) for a, m in zip(each, half_way, strict=True)) for each in (p, q)]
        expected.append(sum(kl) / 2)

    assert jensen_shannon(first, second).tolist() == pytest.approx(expected, abs=1e-6)


def test_jensen_shannon_is_smooth_at_equality_and_at_underflow():
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 500.0, -500.0]], requires_grad=True)
    apart = torch.tensor([[1.0, 2.0, 3.0], [500.0, 0.0, -500.0]])

    divergence = jensen_shannon(logits, apart)
    (gradient,) = torch.autograd.grad(divergence.sum(), logits)

    assert divergence.tolist() == pytest.approx([0, math.log(2)], abs=1e-7)
    assert torch.isfinite(gradient).all()
    assert gradient[0].abs().max() < 1e-7


class Negative(nn.Module):
    """A reconstruction whose error is known."""

    def forward(self, x: Tensor) -> Tensor:
        return 1 - x


class Brightness(nn.Module):
    """A classifier whose logits are known: twice and minus the mean of an image."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(dim=1)
        return torch.stack([2 * mean, -mean], dim=1)


def test_marks_are_mean_powers_of_the_error_and_divergences():
    x = torch.tensor([[[[0.1, 0.9]]], [[[0.5, 0.2]]]])
    guard = Guard(
        Brightness(), [Negative(), nn.Identity()], norms=(2, 1), temperatures=(10.0, 40.0), thresholds=torch.ones(4)
    )

    marks = guard.marks(x)

    assert marks[:, 0].tolist() == pytest.approx([0.64, 0.18])
    assert marks[:, 1].tolist() == [0, 0]
    assert marks[0, 2:].abs().max() < 1e-9, "image and negative are as bright as each other"
    before, after = torch.tensor([[0.7, -0.35]]), torch.tensor([[1.3, -0.65]])
    expected = [float(jensen_shannon(before / temperature, after / temperature)) for temperature in (10, 40)]
    assert marks[1, 2:].tolist() == pytest.approx(expected, rel=1e-4)
    assert torch.equal(guard(x), Brightness()(1 - x)), "the first reconstruction is what is classified"


@pytest.mark.parametrize(("layout", "n_convolutions"), [("I", 5), ("II", 3)])
def test_autoencoders_side_by_side_are_autoencoders(layout, n_convolutions):
    several = Autoencoders(COLOUR, layout=layout, count=4)
    x = torch.rand(2, 3, 8, 8)

    together = several(x)

    assert len(several.convolutions) == n_convolutions
    assert together.shape == (2, 4, 3, 8, 8)
    for index in range(4):
        torch.testing.assert_close(Reconstruction(several, index)(x), together[:, index])
    assert (together[:, 0] - together[:, 1]).abs().max() > 1e-3, "each begins with weights of its own"


def test_denoising_is_the_error_less_the_distance_from_the_mean():
    network = Autoencoders(GRAY, layout="I", count=3)
    images = torch.rand(4, 1, 8, 8)
    generator = torch.Generator()
    terms = {"noise": 0.1, "noise_seed": 5, "n_held_out": 0}

    def loss(progress: float, **more: float) -> float:
        step = TrainingStep(
            indices=torch.tensor([3, 0, 5, 1]),
            images=images,
            labels=torch.zeros(4, dtype=torch.int64),
            progress=progress,
            generator=generator,
        )
        objective = Denoising(DenoisingTerms(**terms, **more), torch.Size((6, 1, 8, 8)))
        return objective.step_loss(network, step).item()

    network.requires_grad_(False)
    noise = (0.1 * torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(5)))[[3, 0, 5, 1]]
    activations = network.activations((images + noise).clamp(0, 1))
    each = [((one - images) ** 2).mean() for one in activations[-1].split(1, dim=1)]
    apart = [((one - activations[-1].mean(dim=1, keepdim=True)) ** 2).mean() for one in activations[-1].split(1, dim=1)]
    squares = sum((output**2).sum() for output in activations)

    assert loss(0.5) == pytest.approx(float(sum(each)), rel=1e-4)
    assert loss(0.5, diversity=0.2) == pytest.approx(float(sum(each) - 0.2 * sum(apart)), rel=1e-4)
    assert loss(0.5, diversity=0.2, apart=0.6) == pytest.approx(float(sum(each)), rel=1e-4)
    assert loss(0.5, activity=1e-3) == pytest.approx(float(sum(each) + 1e-3 * squares), rel=1e-4)


def test_noise_is_drawn_once_for_each_image():
    network = Autoencoders(GRAY, layout="II")
    objective = Denoising(DenoisingTerms(noise=0.5, noise_seed=0, n_held_out=0), torch.Size((2, 1, 8, 8)))

    def loss(index: int) -> float:
        step = TrainingStep(
            indices=torch.tensor([index]),
            images=torch.full((1, 1, 8, 8), 0.5),
            labels=torch.tensor([0]),
            progress=0.0,
            generator=torch.Generator(),
        )
        return objective.step_loss(network, step).item()

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_classifier_is_the_undefended_network(magnet):
    undefended = trained(Undefended, GRAY, None, DIGITS.train)

    assert [digest_module(member) for member in magnet.members] == [digest_module(undefended.network)]


def test_detectors_reject_their_rate_of_the_images_held_out(magnet):
    with torch.no_grad():
        rejections = magnet.rejections(images_of(DIGITS.train, N_HELD_OUT))

    assert {name: int((excess > 0).sum()) for name, excess in rejections.items()} == {"error-I": 12, "error-II": 12}


def test_images_held_out_do_not_train_the_autoencoders():
    blackened = FEW.images.clone()
    blackened[:40] = 0
    first = trained(MagNet, GRAY, MagNetSettings(epochs=1), FEW)
    second = trained(MagNet, GRAY, MagNetSettings(epochs=1), Split(images=blackened, labels=FEW.labels, white=16))

    assert digest_module(first.autoencoders) == digest_module(second.autoencoders)
    assert not torch.equal(first.thresholds, second.thresholds)


@pytest.mark.parametrize("name", ["magnet", "in_colour"])
def test_defense_rejects_where_a_detector_does_and_else_answers_as_its_surrogate(request, name):
    defense = request.getfixturevalue(name)
    x = mixtures().repeat(1, defense.images.channels, 1, 1)
    (surrogate,) = defense.surrogates().values()

    labels = answers(defense, x)
    with torch.no_grad():
        target = Target(surrogate, name="whole", n_classes=10)
        rejected = (target.rejections(x) > 0).any(dim=1)
        guess = target(x).argmax(dim=1)
        by_name = torch.stack(list(defense.rejections(x).values()), dim=1)

    assert 0 < rejected.double().mean() < 1
    assert torch.equal(labels == ABSTAIN, rejected)
    assert torch.equal(labels[~rejected], guess[~rejected])
    assert torch.equal((by_name > 0).any(dim=1), rejected)


def test_autoencoders_reform_what_the_classifier_still_knows(magnet):
    images, labels = DIGITS.test.batch(torch.arange(200))

    decided = answers(magnet, images)

    accepted = decided != ABSTAIN
    assert (decided == labels)[accepted].double().mean() > 0.7
    assert accepted.double().mean() > 0.5


def test_gray_images_have_two_errors_and_colour_images_divergences(magnet, in_colour):
    assert magnet.detectors == ["error-I", "error-II"]
    assert in_colour.detectors == ["error-II", "divergence-10", "divergence-40"]
    assert list(in_colour.rejections(torch.rand(2, 3, 8, 8))) == in_colour.detectors
    assert (in_colour.thresholds > 0).all()
    with torch.no_grad():
        assert int((in_colour.rejections(coloured_validation())["divergence-40"] > 0).sum()) == 4


def coloured_validation() -> Tensor:
    """Return the tenth of the 400 coloured images that set the thresholds."""
    return images_of(DIGITS.train, 40).repeat(1, 3, 1, 1)


def test_norms_can_be_those_of_the_attackers_paper():
    usual, other = (MagNet(GRAY, MagNetSettings(reversed_norms=each)) for each in (False, True))

    assert usual.norms == (2, 1)
    assert other.norms == (1, 2)
    assert MagNet(COLOUR).norms == (1,)


@pytest.mark.parametrize("name", ["magnet", "in_colour", "diverse"])
def test_every_detector_can_be_differentiated(request, name):
    defense = request.getfixturevalue(name)
    x = images_of(DIGITS.test, 20).repeat(1, defense.images.channels, 1, 1).requires_grad_()
    (surrogate,) = defense.surrogates().values()

    for excess in surrogate.rejections(x).unbind(dim=1):
        (gradient,) = torch.autograd.grad(excess.sum(), x, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert (gradient != 0).flatten(1).any(dim=1).all()


def test_grey_box_draws_an_autoencoder_for_each_call(diverse):
    x = mixtures()

    draws = [answers(diverse, x, seed=seed) for seed in range(12)]

    guards = [diverse.answer(guard, x) for guard in diverse.guards]
    assert all(any(torch.equal(draw, guard) for guard in guards) for draw in draws)
    assert len({tuple(draw.tolist()) for draw in draws}) == len(guards)


def test_grey_box_surrogate_draws_from_the_global_generator_and_shows_all_detectors(diverse):
    x = mixtures()
    (surrogate,) = diverse.surrogates().values()
    assert isinstance(surrogate, DrawnGuard)

    with torch.no_grad():
        drawn = []
        for seed in range(8):
            with isolated_randomness(seed):
                drawn.append(surrogate(x))
        each = [guard(x) for guard in diverse.guards]
        excess = surrogate.rejections(x)

    assert all(any(torch.equal(logits, one) for one in each) for logits in drawn)
    assert len({float(logits.sum()) for logits in drawn}) > 1
    assert excess.shape == (len(x), len(diverse.guards))
    rejected_by = torch.stack([answer == ABSTAIN for answer in (diverse.answer(one, x) for one in diverse.guards)], 1)
    assert torch.equal(excess > 0, rejected_by)
    assert list(diverse.rejections(x)) == [f"error-I of autoencoder {number}" for number in (1, 2, 3)]


def test_diversity_puts_autoencoders_apart():
    assert distance_between(0.8, seed=0) > 1.5 * distance_between(0.0, seed=0)


def distance_between(diversity: float, seed: int) -> float:
    """Return the mean square distance of three autoencoders' reconstructions from their mean."""
    settings = DiverseMagNetSettings(epochs=8, autoencoders=3, diversity=diversity)
    (autoencoders,) = trained(DiverseMagNet, GRAY, settings, FEW, seed).autoencoders
    with torch.no_grad():
        reconstructions = autoencoders(images_of(DIGITS.test))
    return float((reconstructions - reconstructions.mean(dim=1, keepdim=True)).square().mean())


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (MagNetSettings, {"epochs": -1}, "epochs must be at least 1"),
        (MagNetSettings, {"noise": -0.1}, "noise must be positive"),
        (MagNetSettings, {"error_rate": 1.0}, "must be fractions"),
        (MagNetSettings, {"divergence_rate": 0.0}, "must be fractions"),
        (DiverseMagNetSettings, {"noise": -0.1}, "noise must be positive"),
        (DiverseMagNetSettings, {"autoencoders": 1}, "autoencoders must be at least 2"),
        (DiverseMagNetSettings, {"diversity": 1.0}, r"diversity must be in \[0, 1\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ConfigError, match="sides must be even, got 7 x 8"):
        MagNet(ImageSpec(channels=1, height=7, width=8, n_classes=2))
