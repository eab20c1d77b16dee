"""Attacks on what rejects: half-spaces whose nearest accepted example is known, and detectors with no way past."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dkd_bench.attacks.detector_aware import (
    DetectorCarliniWagner,
    DetectorCarliniWagnerSettings,
    DetectorPGD,
    DetectorPGDSettings,
)
from dkd_bench.attacks.foolbox.table import PGD, CarliniWagner
from dkd_bench.budget import Budget, perturbation_norms
from dkd_bench.errors import ConfigError
from dkd_bench.target import Target
from dkd_bench.target.surrogates import Detecting

SHORT = DetectorCarliniWagner(DetectorCarliniWagnerSettings(steps=60))
BOTH = [DetectorPGD(), SHORT]
UNBUDGETED = Budget(norm="l2")
N_PIXELS = 36


class HalfSpaces(Detecting):
    """Says class 1 beyond one plane, and rejects beyond another, which is nearer than where the first is crossed."""

    def __init__(self, *, scale=1.0, threshold=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        across, along = torch.randn(2, N_PIXELS, generator=generator, dtype=torch.float64)
        self.normal = nn.Parameter(across, requires_grad=False)
        self.wall = nn.Parameter(0.8 * across + 0.6 * along, requires_grad=False)
        self.scale, self.threshold = scale, threshold

    def forward(self, x):
        logit = (x.flatten(1) - 0.5) @ self.normal
        return torch.stack([torch.zeros_like(logit), logit], dim=1)

    def rejections(self, x):
        return self.scale * ((x.flatten(1) - 0.5) @ self.wall - self.threshold).unsqueeze(1)


class Scene:
    """Images of class 0 before both planes, and how far the nearest accepted image of class 1 is."""

    def __init__(self, n_images=20, **options):
        self.module = HalfSpaces(**options).double()
        drawn = 0.3 + 0.4 * torch.rand(50 * n_images, 1, 6, 6, generator=torch.Generator().manual_seed(1))
        gaps, room = self.gaps(drawn)
        fit = (gaps > 0.7) & (room > 0.02) & (room < 0.4)
        self.images = drawn[fit][:n_images]
        assert len(self.images) == n_images
        self.labels = torch.zeros(n_images, dtype=torch.int64)

    def gaps(self, images):
        """Return how far the logit is below 0, and the wall's value below its threshold."""
        flat = images.double().flatten(1) - 0.5
        return -flat @ self.module.normal, self.module.threshold - flat @ self.module.wall

    def target(self):
        return Target(self.module, name="half-spaces", n_classes=2)

    def distances(self, norm):
        """Return the least norm of d with ``normal @ d >= gap`` and ``wall @ d <= room``, by its dual in one variable.

        That is the largest ``(gap - t * room) / |normal - t * wall|`` over t >= 0, in the dual norm.
        """
        gap, room = self.gaps(self.images)
        t = torch.linspace(0, 20, 20001, dtype=torch.float64)
        slope = self.module.normal - t.unsqueeze(1) * self.module.wall
        length = slope.norm(p=1 if norm == "linf" else 2, dim=1)
        return ((gap.unsqueeze(1) - t * room.unsqueeze(1)) / length).amax(dim=1)

    def fooled(self, images):
        return self.gaps(images)[0] < 0

    def rejected(self, images):
        return self.gaps(images)[1] < 0


@pytest.fixture
def scene():
    return Scene()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_walks_into_the_wall_and_detector_pgd_around_it(scene, norm):
    budget = Budget(norm=norm, eps=1.1 * float(scene.distances(norm).max()))

    plain, aware = (
        attack.run(scene.target(), scene.images, scene.labels, budget, seed=0) for attack in (PGD(), DetectorPGD())
    )

    assert (scene.fooled(plain) & scene.rejected(plain)).all()
    assert (scene.fooled(aware) & ~scene.rejected(aware)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_detector_pgd_finds_nothing_where_nothing_is(scene, norm):
    budget = Budget(norm=norm, eps=0.95 * float(scene.distances(norm).min()))

    aware = DetectorPGD().run(scene.target(), scene.images, scene.labels, budget, seed=0)

    assert not (scene.fooled(aware) & ~scene.rejected(aware)).any()


def test_plain_carlini_wagner_walks_into_the_wall(scene):
    plain = CarliniWagner().run(scene.target(), scene.images, scene.labels, UNBUDGETED, seed=0)

    assert (scene.fooled(plain) & scene.rejected(plain)).all()


def test_detector_cw_comes_within_a_twentieth_of_the_nearest_accepted_example(scene):
    aware = DetectorCarliniWagner().run(scene.target(), scene.images, scene.labels, UNBUDGETED, seed=0)

    assert (scene.fooled(aware) & ~scene.rejected(aware)).all()
    ratio = perturbation_norms(scene.images, aware, "l2") / scene.distances("l2")
    assert (ratio > 0.9999).all()
    assert (ratio < 1.05).all()


@pytest.mark.parametrize("scale", [0.001, 1000.0])
def test_detector_pgd_cares_for_the_sign_of_rejections_and_not_for_their_scale(scale):
    scene = Scene(scale=scale)
    budget = Budget(norm="linf", eps=1.1 * float(scene.distances("linf").max()))

    adversarial = DetectorPGD().run(scene.target(), scene.images, scene.labels, budget, seed=0)

    assert (scene.fooled(adversarial) & ~scene.rejected(adversarial)).all()


def test_without_momentum_detector_pgd_swings_between_the_planes(scene):
    budget = Budget(norm="linf", eps=1.1 * float(scene.distances("linf").min()))
    near = scene.distances("linf") < budget.eps / 1.05

    swinging, steady = (
        DetectorPGD(DetectorPGDSettings(momentum=momentum)).run(
            scene.target(), scene.images, scene.labels, budget, seed=0
        )
        for momentum in (0.0, 0.75)
    )

    assert near.any()
    assert (scene.fooled(steady) & ~scene.rejected(steady))[near].all()
    assert not (scene.fooled(swinging) & ~scene.rejected(swinging))[near].all()


HOPELESS = {"threshold": -50.0}
"""The wall is so near that the whole box is behind it."""


def test_detector_cw_gives_the_clean_image_back_where_all_is_rejected(scene):
    hopeless = Target(HalfSpaces(**HOPELESS).double(), name="hopeless", n_classes=2)

    adversarial = SHORT.run(hopeless, scene.images, scene.labels, UNBUDGETED, seed=0)

    assert torch.equal(adversarial, scene.images)


def test_detector_pgd_gives_a_misclassified_point_that_is_rejected_by_little_where_all_is_rejected(scene):
    module = HalfSpaces(**HOPELESS).double()
    target, budget = Target(module, name="hopeless", n_classes=2), Budget(norm="l2", eps=1.0)

    plain, aware = (attack.run(target, scene.images, scene.labels, budget, seed=0) for attack in (PGD(), DetectorPGD()))

    assert scene.fooled(aware).all()
    assert (module.rejections(aware.double()) < module.rejections(plain.double()) - 0.5).all()


def test_detector_pgd_gives_the_point_nearest_to_misclassification_where_none_is_misclassified(scene):
    budget = Budget(norm="linf", eps=0.001)

    adversarial = DetectorPGD().run(scene.target(), scene.images, scene.labels, budget, seed=0)

    assert not scene.fooled(adversarial).any()
    assert (scene.gaps(adversarial)[0] < scene.gaps(scene.images)[0] - 0.01).all()


@pytest.mark.parametrize("attack", BOTH, ids=["pgd", "cw"])
def test_an_image_that_is_wrong_and_accepted_when_clean_comes_back_as_it_is(scene, attack):
    labels = scene.labels.clone()
    labels[::3] = 1
    budget = Budget(norm="l2", eps=0.5 if attack.meta.kind == "fixed" else None)

    adversarial = attack.run(scene.target(), scene.images, labels, budget, seed=0)

    moved = (adversarial != scene.images).flatten(1).any(dim=1)
    assert moved.tolist() == (labels == 0).tolist()


@pytest.mark.parametrize("attack", BOTH, ids=["pgd", "cw"])
def test_an_image_that_is_wrong_and_rejected_when_clean_is_led_out_of_the_reject(attack):
    module = HalfSpaces(threshold=-0.3).double()
    images = Scene().images
    target, labels = Target(module, name="half-spaces", n_classes=2), torch.ones(len(images), dtype=torch.int64)
    assert (module.rejections(images.double()) > 0).any()

    adversarial = attack.run(
        target, images, labels, Budget(norm="l2", eps=0.5 if attack.meta.kind == "fixed" else None), seed=0
    )

    assert (target(adversarial).argmax(dim=1) == 0).all()
    assert (module.rejections(adversarial.double()) <= 1e-6).all()


def test_detector_cw_keeps_the_margin_and_the_slack_that_it_is_told_to(scene):
    settings = DetectorCarliniWagnerSettings(kappa=0.3, slack=0.2, binary_search_steps=6)

    adversarial = DetectorCarliniWagner(settings).run(scene.target(), scene.images, scene.labels, UNBUDGETED, seed=0)

    gap, room = scene.gaps(adversarial)
    assert (gap <= -0.3 + 1e-5).all()
    assert (room >= 0.2 - 1e-5).all()


def test_detector_pgd_walks_on_to_the_margin_that_it_is_told(scene):
    budget = Budget(norm="l2", eps=1.5 * float(scene.distances("l2").max()))

    bare, sure = (
        DetectorPGD(DetectorPGDSettings(kappa=kappa)).run(scene.target(), scene.images, scene.labels, budget, seed=0)
        for kappa in (0.0, 0.2)
    )

    assert scene.gaps(bare)[0].max() > -0.1
    assert (scene.gaps(sure)[0] < -0.2).all()
    assert not scene.rejected(sure).any()


@pytest.mark.parametrize("attack", [DetectorPGD(DetectorPGDSettings(restarts=1)), SHORT], ids=["pgd", "cw"])
def test_first_image_does_not_depend_on_its_batch_mates(scene, attack):
    budget = Budget(norm="linf", eps=0.05) if attack.meta.kind == "fixed" else UNBUDGETED

    together = attack.run(scene.target(), scene.images, scene.labels, budget, seed=0)
    alone = attack.run(scene.target(), scene.images[:1], scene.labels[:1], budget, seed=0)

    assert torch.allclose(together[:1], alone, atol=1e-6)


class Noisy(Detecting):
    """Answers and rejects by the half-spaces of an image with noise on it."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x + 0.01 * torch.randn_like(x))

    def rejections(self, x):
        return self.module.rejections(x + 0.01 * torch.randn_like(x))


@pytest.mark.parametrize("attack", BOTH, ids=["pgd", "cw"])
def test_a_random_target_is_attacked_in_expectation_and_again_by_the_same_seed(scene, attack):
    target = Target(Noisy(scene.module), name="noisy", n_classes=2, draws=4)
    eps = 1.3 * float(scene.distances("l2").max())
    budget = Budget(norm="l2", eps=eps if attack.meta.kind == "fixed" else None)

    first, again = (attack.run(target, scene.images, scene.labels, budget, seed=0) for _ in range(2))

    assert torch.equal(first, again)
    gap, room = scene.gaps(first)
    assert ((gap < 0.1) & (room > -0.2)).double().mean() > 0.9


class NoDetector(Detecting):
    """Has no detector that could reject."""

    def forward(self, x):
        return nn.functional.pad(x.flatten(1).mean(dim=1, keepdim=True) - 0.5, (1, 0))

    def rejections(self, x):
        return x.new_zeros(len(x), 0)


@pytest.mark.parametrize("attack", BOTH, ids=["pgd", "cw"])
def test_no_detector_is_a_number_of_detectors(attack):
    target = Target(NoDetector(), name="none", n_classes=2)
    images, labels = torch.full((2, 1, 6, 6), 0.45), torch.zeros(2, dtype=torch.int64)

    adversarial = attack.run(
        target, images, labels, Budget(norm="l2", eps=1.0 if attack.meta.kind == "fixed" else None), seed=0
    )

    assert (target(adversarial).argmax(dim=1) == 1).all()


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        (DetectorPGDSettings, {"steps": 0}, "steps must be over 0, got 0"),
        (DetectorPGDSettings, {"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        (DetectorPGDSettings, {"kappa": -1.0}, "kappa must not be negative, got -1.0"),
        (DetectorCarliniWagnerSettings, {"stepsize": 0.0}, "stepsize must be over 0, got 0.0"),
        (DetectorCarliniWagnerSettings, {"slack": -0.1}, "slack must not be negative, got -0.1"),
    ],
)
def test_parameters_are_checked(settings, values, message):
    with pytest.raises(ConfigError, match=message):
        settings(**values)
