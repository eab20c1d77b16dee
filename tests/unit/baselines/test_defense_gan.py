"""Defense-GAN: the generator's game, the descent to the nearest image, and what an attack is offered."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import conv_transpose2d, cross_entropy

from dkd_baselines._wgan import Critic, Game, Generator, Schedule, doubled, gradient_penalty, train_generator
from dkd_baselines.defense_gan import DefenseGAN, DefenseGANSettings, Projection, ThroughProjection, descend
from dkd_bench.data import ImageSpec
from dkd_bench.errors import ConfigError
from dkd_bench.progress import SilentProgress
from dkd_bench.store.files import TensorStore
from dkd_bench.target.randomness import isolated_randomness
from dkd_bench.testing._common import QUICK_RECIPE, quick_dataset
from dkd_bench.training import TrainingSet, recipe_named

GRAY = ImageSpec(channels=1, height=8, width=8, n_classes=10)
SCHEDULE = Schedule(epochs=1, learning_rate=1e-3, decays=True)


class Linear(nn.Module):
    """Images ``A z + 1/2`` of 2 x 2 pixels."""

    def __init__(self, n_latents=2, scale=0.5, seed=0):
        super().__init__()
        self.latent_dimension = n_latents
        matrix = scale * torch.randn(4, n_latents, generator=torch.Generator().manual_seed(seed))
        self.matrix = nn.Parameter(matrix)

    def forward(self, latent):
        return (latent @ self.matrix.T + 0.5).view(-1, 1, 2, 2)


class Recorder:
    """Progress that keeps its notes."""

    def __init__(self):
        self.notes = []

    def start(self, description, total):
        return self

    def advance(self, steps=1, note=""):
        self.notes.append(note)


def projection(generator=None, **changes):
    return Projection(generator or Linear(), **({"restarts": 4, "steps": 3, "rate": 0.1, "same_init": False} | changes))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def images(number=5, seed=1, side=2):
    return torch.rand(number, 1, side, side, generator=seeded(seed))


def training_set(networks=None):
    split = quick_dataset().train
    return TrainingSet(split=split, digest=split.digest(), networks=networks)


@pytest.fixture(scope="module")
def trained():
    return trained_by(0)


def trained_by(seed):
    recipe = replace(QUICK_RECIPE, epochs=24)
    with isolated_randomness(seed):
        defense = DefenseGAN(GRAY, DefenseGANSettings(restarts=4, steps=50, epochs_ratio=3.0))
        defense.fit(training_set(), recipe=recipe, generator=seeded(seed), progress=SilentProgress())
    return defense.eval().requires_grad_(False)


class TestGame:
    def test_penalty_takes_the_norm_over_the_whole_image(self):
        weight = torch.randn(2, 3, 4, generator=seeded(0)).requires_grad_()

        penalty = gradient_penalty(lambda x: (x * weight).sum(dim=(1, 2, 3)), torch.rand(7, 2, 3, 4))

        norm = weight.detach().norm()
        assert torch.allclose(penalty, (norm - 1).square())
        (gradient,) = torch.autograd.grad(penalty, weight)
        assert torch.allclose(gradient, 2 * (norm - 1) * weight / norm, atol=1e-6)

    @pytest.mark.parametrize(("n_in", "n_out", "side"), [(4, 1, 5), (3, 2, 4)])
    def test_doubling_is_the_transposed_convolution(self, n_in, n_out, side):
        generator = seeded(0)
        x, weight, bias = (
            torch.randn(shape, generator=generator, dtype=torch.float64)
            for shape in ((2, n_in, side, side + 1), (n_in, n_out, 5, 5), (n_out,))
        )

        expected = conv_transpose2d(x, weight, bias, stride=2, padding=2, output_padding=1)
        assert torch.allclose(doubled(x, weight, bias), expected)

    @pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 9, 14)])
    def test_networks_fit_the_images(self, shape):
        spec = ImageSpec(channels=shape[0], height=shape[1], width=shape[2], n_classes=10)
        made = Generator(spec, latent_dimension=6, width=2)(torch.randn(3, 6))

        assert made.shape == (3, *shape)
        assert made.min() >= 0
        assert made.max() <= 1
        assert Critic(spec, width=2)(made).shape == (3,)

    def test_at_full_width_the_generator_is_the_authors(self):
        network = Generator(ImageSpec(channels=1, height=28, width=28, n_classes=10), latent_dimension=128, width=64)

        assert [tuple(parameter.shape) for parameter in network.parameters() if parameter.ndim > 1] == [
            (4 * 4 * 256, 128),
            (256, 128, 5, 5),
            (128, 64, 5, 5),
            (64, 1, 5, 5),
        ]

    def test_generator_moves_once_for_so_many_batches_of_the_critic(self, monkeypatch):
        steps = []
        monkeypatch.setattr(Game, "_generator_step", lambda self, optimizer: steps.append(optimizer))
        monkeypatch.setattr(Game, "_critic_step", lambda self, real, optimizer: torch.zeros(()))
        schedule = Schedule(epochs=3, learning_rate=1e-3, decays=True, critic_steps=4)

        network = Generator(GRAY, latent_dimension=4, width=2)
        game = Game(network, Critic(GRAY, width=2), schedule=schedule, dataset="", seed=0)
        game.play(training_set(), SilentProgress())

        assert len(steps) == 3 * (400 // 50) // 4

    def test_generator_step_raises_the_critics_score_and_leaves_the_critic_alone(self):
        torch.manual_seed(0)
        game = Game(
            Generator(GRAY, latent_dimension=4, width=2), Critic(GRAY, width=2), schedule=SCHEDULE, dataset="", seed=0
        )
        latents = torch.randn(50, 4)
        before = game.critic(game.generator(latents)).mean()

        for _ in range(5):
            game._generator_step(torch.optim.SGD(game.generator.parameters(), lr=0.1))

        assert game.critic(game.generator(latents)).mean() > before
        assert all(parameter.grad is None for parameter in game.critic.parameters())

    def test_same_seed_trains_the_same_weights_whatever_the_global_generator(self):
        trained = []
        start = Generator(GRAY, latent_dimension=4, width=2).state_dict()
        for seed in (0, 0, 1):
            network = Generator(GRAY, latent_dimension=4, width=2)
            network.load_state_dict(start)
            train_generator(network, training_set(), schedule=SCHEDULE, seed=seed, progress=SilentProgress())
            trained.append(network.dense.weight)

        assert torch.equal(trained[0], trained[1])
        assert not torch.equal(trained[0], trained[2])

    def test_trained_generator_is_found_again(self, tmp_path):
        data, notes, weights = training_set(TensorStore(tmp_path)), [], []
        start = Generator(GRAY, latent_dimension=4, width=2).state_dict()
        for schedule in (SCHEDULE, SCHEDULE, Schedule(epochs=1, learning_rate=1e-4, decays=True)):
            network, recorder = Generator(GRAY, latent_dimension=4, width=2), Recorder()
            network.load_state_dict(start)
            train_generator(network, data, schedule=schedule, seed=0, progress=recorder)
            notes.append(recorder.notes[-1])
            weights.append(network.dense.weight)

        assert [note == "trained before" for note in notes] == [False, True, False]
        assert torch.equal(weights[0], weights[1])


class TestDescent:
    def test_follows_the_authors_schedule(self):
        """One latent ``z``, one pixel ``2 z``: the error is ``(2 z - x)^2``, its slope ``4 (2 z - x)``."""
        z, velocity, goal, rate = 0.3, 0.0, 0.8, 0.05
        for step in range(7):
            velocity = 0.7 * velocity + 4 * (2 * z - goal)
            z -= velocity * rate * (1 if step < 6 else 0.1)

        reached = descend(
            lambda latent: 2 * latent.view(-1, 1, 1, 1),
            torch.full((1, 1, 1, 1), goal),
            torch.tensor([[0.3]]),
            steps=7,
            rate=rate,
        )

        assert reached.item() == pytest.approx(z, abs=1e-6)

    def test_error_is_the_mean_over_pixels(self):
        reached = [
            descend(
                lambda latent, n=n: latent.view(-1, 1, 1, 1).expand(-1, 1, 1, n),
                torch.ones(1, 1, 1, n),
                torch.zeros(1, 1),
                steps=4,
                rate=0.1,
            )
            for n in (1, 9)
        ]

        assert torch.allclose(*reached)

    def test_finds_the_nearest_image_of_a_linear_generator(self):
        network, x = Linear(), images()
        with torch.no_grad():
            projected = projection(network, steps=400, rate=0.5)(x, seeded(0))

        matrix = network.matrix.detach()
        flat = (x - 0.5).flatten(1)
        expected = flat @ torch.linalg.pinv(matrix).T @ matrix.T + 0.5
        assert torch.allclose(projected.flatten(1), expected, atol=1e-4)

    def test_of_all_restarts_the_nearest_counts(self):
        network = Linear()
        module = projection(network, rate=1e-6, same_init=True)
        module.start.copy_(torch.randn(4, 2, generator=seeded(5)))
        with torch.no_grad():
            wanted = network(module.start[[3, 0, 2, 1, 3]])

            assert torch.allclose(module(wanted), wanted, atol=1e-4)

    def test_images_do_not_meddle_with_each_other(self, monkeypatch):
        monkeypatch.setattr("dkd_baselines.defense_gan.ROWS_AT_ONCE", 8)
        module = projection(same_init=True)
        module.redraw(seeded(0))
        x = images(5)

        together = module(x)

        assert together.shape == x.shape
        assert torch.allclose(together, torch.cat([module(image) for image in x.split(1)]), atol=1e-6)


class TestRandomness:
    def test_every_evaluation_begins_elsewhere_by_its_generator(self):
        module, x, generator = projection(), images(), seeded(0)

        first, second, again = module(x, generator), module(x, generator), module(x, seeded(0))

        assert torch.equal(first, again)
        assert not torch.equal(first, second)

    def test_without_a_generator_the_global_one_is_drawn_from(self):
        module, x = projection(), images()
        answers = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            answers.append(module(x))

        assert torch.equal(answers[0], answers[1])
        assert not torch.equal(answers[0], answers[2])

    def test_starts_are_nearer_to_zero_than_the_latents_of_training(self):
        drawn = projection(Linear(n_latents=50), restarts=40)._drawn(30, seeded(0))

        assert drawn.shape == (30, 40, 50)
        assert drawn.std().item() == pytest.approx(50**-0.5, rel=0.02)

    def test_same_init_takes_the_randomness_away(self):
        module, x = projection(same_init=True), images()
        module.redraw(seeded(0))

        assert torch.equal(module(x, seeded(0)), module(x, seeded(1)))


class TestSurrogate:
    def test_gradient_is_the_classifiers_at_the_projection(self):
        torch.manual_seed(0)
        classifier, module, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), projection(), images()
        surrogate = ThroughProjection(module, classifier).requires_grad_(False)
        labels = torch.tensor([0, 1, 2, 0, 1])

        torch.manual_seed(7)
        leaves = x.clone().requires_grad_()
        logits = surrogate(leaves)
        (gradient,) = torch.autograd.grad(cross_entropy(logits, labels), leaves)

        torch.manual_seed(7)
        projected = module(x).requires_grad_()
        expected = classifier(projected)
        assert torch.equal(logits, expected)
        assert torch.allclose(gradient, torch.autograd.grad(cross_entropy(expected, labels), projected)[0])

    def test_latents_are_classified_without_a_search(self):
        network, classifier = Linear(), nn.Flatten()
        surrogate = ThroughProjection(projection(network), classifier)
        latent = torch.randn(3, surrogate.latent_dimension)

        made = surrogate.generate(latent)

        assert torch.equal(made, network(latent))
        assert torch.equal(surrogate.classify(made), made.flatten(1))


class TestDefense:
    def test_answers_through_the_projection_nearly_as_well_as_without(self, trained):
        x, labels = quick_dataset().test.batch(torch.arange(100))
        with torch.no_grad():
            defended = (trained.predict(x, generator=seeded(0)) == labels).double().mean()
            bare = (trained.classifier(x).argmax(dim=1) == labels).double().mean()

        assert bare > 0.8
        assert defended > bare - 0.3

    def test_answers_for_an_image_that_is_nearer_than_any_other(self, trained):
        x, _ = quick_dataset().test.batch(torch.arange(40))

        projected = trained.projection(x, seeded(0))

        errors = (projected.unsqueeze(1) - x.unsqueeze(0)).square().mean(dim=(2, 3, 4))
        assert (errors.argmin(dim=1) == torch.arange(40)).double().mean() > 0.8

    def test_members_know_nothing_of_the_projection(self, trained):
        assert list(trained.members) == [trained.classifier]

    def test_asking_leaves_no_gradient_behind(self, trained):
        trained.zero_grad()
        with torch.no_grad():
            trained.predict(images(3, side=8), generator=seeded(0))

        assert all(parameter.grad is None for parameter in trained.parameters())

    def test_starts_that_stay_are_drawn_in_training(self, trained):
        assert trained.projection.start.std() > 0

    @pytest.mark.parametrize(("recipe", "expected"), [("paper", (1e-4, False)), ("fast", (2e-3, True))])
    def test_generator_is_trained_as_networks_are(self, recipe, expected):
        schedule = DefenseGAN(GRAY).schedule(recipe_named(recipe, quick_dataset()))

        assert (schedule.learning_rate, schedule.decays) == expected

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"restarts": 0}, "restarts must be over 0, got 0"),
            ({"steps": -1}, "steps must not be negative"),
            ({"critic_steps": 0}, "critic_steps must be over 0, got 0"),
        ],
    )
    def test_settings_out_of_range_are_refused(self, settings, message):
        with pytest.raises(ConfigError, match=message):
            DefenseGANSettings(**settings)
