"""The search among generated images, on generators whose nearest misclassified image is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from dkd_bench.attacks.latent import LatentSettings, LatentSpace
from dkd_bench.budget import Budget, perturbation_norms
from dkd_bench.errors import AttackError, ConfigError
from dkd_bench.target import Target
from dkd_bench.target.surrogates import OnManifold

L2 = Budget(norm="l2")
SIDE = 3
N_LATENTS = 3
N_CLASSES = 2
"""One boundary: of several, the search need not find the nearest."""


class Plane(OnManifold):
    """Images ``A z + 1/2``, the columns of A orthonormal, and a linear classifier of them.

    The nearest generated image of any image is its projection onto the plane, and the boundaries in the plane
    are those of ``W A z``: the least distance follows by Pythagoras.
    """

    latent_dimension = N_LATENTS

    def __init__(self, *, bias=0.0, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        columns, _ = torch.linalg.qr(torch.randn(SIDE * SIDE, N_LATENTS, generator=generator))
        self.register_buffer("columns", columns)
        self.register_buffer("weight", 5 * torch.randn(N_CLASSES, SIDE * SIDE, generator=generator))
        self.register_buffer("bias", torch.tensor([bias] + [0.0] * (N_CLASSES - 1)))

    def forward(self, x):
        raise AssertionError("the attack must not ask for the projection")

    def generate(self, latent):
        return (latent @ self.columns.T + 0.5).view(-1, 1, SIDE, SIDE)

    def classify(self, images):
        return (images - 0.5).flatten(1) @ self.weight.T + self.bias

    def nearest(self, images, labels):
        """Return the least distance of each image to a generated one of another class."""
        latents = (images - 0.5).flatten(1) @ self.columns
        beside = (images - self.generate(latents)).flatten(1).norm(dim=1)
        logits = self.classify(self.generate(latents))
        inside = self.weight @ self.columns
        gaps = logits.gather(1, labels.unsqueeze(1)) - logits
        along = gaps / (inside[labels].unsqueeze(1) - inside).norm(dim=2)
        along = along.masked_fill(torch.arange(N_CLASSES) == labels.unsqueeze(1), torch.inf).amin(dim=1)
        return (beside.square() + along.clamp_min(0).square()).sqrt()


@pytest.fixture
def plane():
    return Plane()


def clean(plane, number=12):
    """Return images beside the plane, and the classes of their projections onto it."""
    generator = torch.Generator().manual_seed(1)
    latents = 0.15 * torch.randn(number, N_LATENTS, generator=generator)
    images = plane.generate(latents) + 0.02 * torch.randn(number, 1, SIDE, SIDE, generator=generator)
    nearest = plane.generate((images - 0.5).flatten(1) @ plane.columns)
    return images, plane.classify(nearest).argmax(dim=1)


def target(module):
    return Target(module, name="plane", n_classes=N_CLASSES)


THOROUGH = LatentSettings(kappa=0.0, restarts=3, search_steps=150, binary_search_steps=6, steps=150, stepsize=0.02)


def attack(**changes):
    return LatentSpace(replace(THOROUGH, **changes))


def test_comes_near_the_nearest_misclassified_image_of_the_plane(plane):
    images, labels = clean(plane)

    found = attack().run(target(plane), images, labels, L2, seed=0)

    assert (plane.classify(found).argmax(dim=1) != labels).all()
    ratio = perturbation_norms(images, found, "l2") / plane.nearest(images, labels)
    assert (ratio > 1 - 1e-4).all()
    assert (ratio < 1.1).all()


def test_what_is_found_is_generated(plane):
    images, labels = clean(plane)

    found = attack().run(target(plane), images, labels, L2, seed=0)

    inside = plane.generate((found - 0.5).flatten(1) @ plane.columns)
    assert torch.allclose(found, inside, atol=1e-5)
    assert not torch.allclose(images, plane.generate((images - 0.5).flatten(1) @ plane.columns), atol=1e-3)


def test_an_image_that_is_generated_as_another_class_costs_only_the_way_to_the_plane(plane):
    images, labels = clean(plane)
    wrong = (labels + 1) % N_CLASSES

    found = attack().run(target(plane), images, wrong, L2, seed=0)

    distance = perturbation_norms(images, found, "l2")
    assert (distance / plane.nearest(images, wrong) < 1.1).all()


def test_clean_images_come_back_where_nothing_generated_is_misclassified():
    constant = Plane(bias=1e6)
    images, _ = clean(constant)

    found = attack(binary_search_steps=2, steps=5).run(
        target(constant), images, torch.zeros(len(images), dtype=torch.int64), L2, seed=0
    )

    assert torch.equal(found, images)


def test_restarts_find_the_valley_that_one_start_misses():
    class TwoValleys(Plane):
        """One latent that matters, and nothing but a far valley for those who begin on the wrong side."""

        latent_dimension = 1

        def generate(self, latent):
            height = torch.where(latent > 0, latent, 0.4 * latent).clamp(-0.5, 0.5)
            return (0.5 + height).view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE)

        def classify(self, images):
            brightness = images.mean(dim=(1, 2, 3))
            return torch.stack([0.75 - brightness, brightness - 0.75], dim=1)

    images, labels = torch.full((6, 1, SIDE, SIDE), 0.7), torch.zeros(6, dtype=torch.int64)

    found = attack(restarts=8).run(target(TwoValleys()), images, labels, L2, seed=0)

    least = 0.05 * math.sqrt(SIDE * SIDE)
    assert (perturbation_norms(images, found, "l2") < 1.2 * least).all()


def test_kappa_asks_for_a_lead(plane):
    images, labels = clean(plane)

    found = attack(kappa=0.5).run(target(plane), images, labels, L2, seed=0)

    logits = plane.classify(found)
    wrong = logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(dim=1)
    assert (wrong - logits.gather(1, labels.unsqueeze(1)).squeeze(1) >= 0.5).all()


def test_same_seed_gives_the_same_images_and_another_seed_others(plane):
    images, labels = clean(plane)

    first, again, other = (
        attack(search_steps=5, steps=5).run(target(plane), images, labels, L2, seed=seed) for seed in (0, 0, 1)
    )

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_do_not_meddle_with_each_other(plane, monkeypatch):
    images, labels = clean(plane)
    together = attack().run(target(plane), images, labels, L2, seed=0)
    monkeypatch.setattr("dkd_bench.attacks.latent.ROWS_AT_ONCE", 9)

    in_pieces = attack().run(target(plane), images, labels, L2, seed=0)

    assert torch.allclose(together, in_pieces, atol=1e-3)


def test_counts_the_images_that_it_has_classified(plane):
    images, labels = clean(plane)
    aimed_at = target(plane)

    attack(binary_search_steps=2, steps=5).run(aimed_at, images, labels, L2, seed=0)

    assert aimed_at.forward_passes == 2 * 6 * len(images)
    assert aimed_at.backward_passes == 2 * 5 * len(images)


def test_a_target_without_a_generator_is_refused(plane):
    images, labels = clean(plane)

    with pytest.raises(AttackError, match="has no generator"):
        attack().run(target(nn.Sequential(nn.Flatten(), nn.Linear(9, N_CLASSES))), images, labels, L2, seed=0)


def test_logits_that_are_not_numbers_stop_the_attack():
    images, labels = clean(Plane())

    with pytest.raises(AttackError, match="not finite"):
        attack().run(target(Plane(bias=math.nan)), images, labels, L2, seed=0)


def test_parameters_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="restarts must be over 0, got 0"):
        LatentSettings(restarts=0)
    with pytest.raises(ConfigError, match="kappa must not be negative, got -1"):
        LatentSettings(kappa=-1)
