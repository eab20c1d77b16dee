"""What holds for every attack of ours: known boundaries, seeds, batch sizes, no traces left behind."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from dkd_bench.attacks.detector_aware import DetectorCarliniWagner
from dkd_bench.attacks.foolbox.table import ROWS
from dkd_bench.budget import Budget, perturbation_norms
from dkd_bench.errors import AttackError
from dkd_bench.target import Target

OF_FOOLBOX = {kind: [name for name, row in ROWS.items() if row.meta.kind == kind] for kind in ("fixed", "minimum_norm")}
FIXED = (*OF_FOOLBOX["fixed"], "autoattack", "autoattack-rand", "detector-pgd", "square")
MINIMUM_NORM = (*OF_FOOLBOX["minimum_norm"], "jsma", "detector-cw", "hop-skip-jump")
EVERY = (*FIXED, *MINIMUM_NORM)
DRAWING = ("pgd", "autoattack", "autoattack-rand", "detector-pgd", "square", "hop-skip-jump")
BLIND = ("square", "hop-skip-jump")
"""Those that see no gradients; their targets fail when asked for one."""


def budget_of(name, *, norm="l2", eps=0.05):
    if name in MINIMUM_NORM:
        return Budget(norm="l0" if name == "jsma" else "l2")
    return Budget(norm=norm, eps=eps)


def mlp(n_pixels, n_classes=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(n_pixels, 16), nn.ReLU(), nn.Linear(16, n_classes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("name", EVERY)
def test_meta_name_is_the_entry_point(small_attacks, name):
    assert small_attacks[name].meta.name == name


THOROUGH = {name: ROWS[name] for name in OF_FOOLBOX["minimum_norm"]} | {"detector-cw": DetectorCarliniWagner}
"""Attacks that look for the nearest image of all; JSMA is greedy, and HopSkipJump knows labels alone."""


@pytest.mark.parametrize(("name", "norm"), [(name, norm) for name in THOROUGH for norm in THOROUGH[name].meta.norms])
def test_minimum_norm_attack_comes_within_a_quarter_of_the_nearest_boundary(linear, name, norm):
    attack = THOROUGH[name]()
    target = linear.target(access=attack.meta.access)

    adversarial = attack.run(target, linear.images, linear.labels, Budget(norm=norm), seed=0)

    assert linear.fooled(adversarial).all()
    norms, nearest = perturbation_norms(linear.images, adversarial, norm), linear.distances(norm)
    one_value = 1 if norm == "l0" else 0
    assert (norms >= nearest).all()
    assert (norms <= torch.maximum(1.25 * nearest, nearest + one_value)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", [name for name in FIXED if name not in BLIND])
def test_fixed_attack_breaks_what_is_nearer_than_eps_and_nothing_else(small_attacks, problem, name, norm):
    """With two classes every loss has the same gradient, so even one step is the best there is."""
    linear = problem(n_classes=2)
    distances = linear.distances(norm)
    eps = float(distances.median())

    adversarial = small_attacks[name].run(
        linear.target(access=small_attacks[name].meta.access),
        linear.images,
        linear.labels,
        Budget(norm=norm, eps=eps),
        seed=0,
    )

    broken = linear.fooled(adversarial)
    assert broken[distances < eps / 1.05].all()
    assert not broken[distances > eps / 0.9].any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", FIXED)
def test_fixed_attack_stays_in_budget_and_box_though_nobody_clips_it(small_attacks, offer, name, norm):
    images = (2 * torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5).clamp(0, 1)
    target = Target(offer(mlp(192), small_attacks[name].meta.access), name="mlp", n_classes=4)
    labels = target(images).argmax(dim=1)

    for eps in (0.03, 0.3, 0.9):
        adversarial = small_attacks[name].run(target, images, labels, Budget(norm=norm, eps=eps), seed=0)

        assert perturbation_norms(images, adversarial, norm).max() <= eps + 1e-6
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1


@pytest.mark.parametrize("name", EVERY)
def test_same_seed_gives_the_same_bytes_and_nobody_else_notices(small_attacks, linear, name):
    target = linear.target(access=small_attacks[name].meta.access)
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()

    first, again, other = (
        small_attacks[name].run(target, linear.images, linear.labels, budget_of(name), seed=seed) for seed in (3, 3, 4)
    )

    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name not in DRAWING)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])
    assert random.getstate() == python_state


@pytest.mark.parametrize("name", EVERY)
def test_batch_size_of_the_target_changes_nothing(small_attacks, linear, name):
    adversarial = [
        small_attacks[name].run(
            linear.target(batch_size=size, access=small_attacks[name].meta.access),
            linear.images,
            linear.labels,
            budget_of(name),
            seed=0,
        )
        for size in (7, 64, 250)
    ]

    assert torch.equal(adversarial[0], adversarial[1])
    assert torch.equal(adversarial[0], adversarial[2])


@pytest.mark.parametrize("name", EVERY)
def test_no_gradient_is_left_in_the_network(small_attacks, linear, name):
    target = linear.target(access=small_attacks[name].meta.access)

    small_attacks[name].run(target, linear.images, linear.labels, budget_of(name), seed=0)

    assert all(parameter.grad is None for parameter in target.parameters())
    assert (target.backward_passes > 0) == (name not in BLIND)


@pytest.mark.parametrize("name", EVERY)
def test_no_warning_reaches_the_user(small_attacks, linear, name, recwarn, caplog, capsys):
    target = linear.target(access=small_attacks[name].meta.access).train()

    small_attacks[name].run(target, linear.images, linear.labels, budget_of(name), seed=0)

    assert not recwarn.list
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", EVERY)
def test_images_outside_the_box_are_refused(small_attacks, linear, name):
    with pytest.raises(AttackError, match=r"must be given images in \[0, 1\], got values from -0\."):
        small_attacks[name].run(
            linear.target(access=small_attacks[name].meta.access),
            4 * linear.images - 1.5,
            linear.labels,
            budget_of(name),
            seed=0,
        )


@pytest.mark.parametrize("name", EVERY)
def test_logits_that_are_not_numbers_stop_the_attack(small_attacks, linear, name):
    class NotANumber(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :4] * torch.nan

    with pytest.raises(AttackError, match="not finite"):
        small_attacks[name].run(
            Target(NotANumber(), name="nan", n_classes=4),
            linear.images,
            linear.labels,
            budget_of(name),
            seed=0,
        )


@pytest.mark.parametrize("name", EVERY)
def test_images_and_networks_may_be_channels_last(small_attacks, offer, name):
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), mlp(144)).to(memory_format=torch.channels_last)
    target = Target(offer(network, small_attacks[name].meta.access), name="conv", n_classes=4)
    labels = target(images).argmax(dim=1)

    adversarial = small_attacks[name].run(
        target, images.to(memory_format=torch.channels_last), labels, budget_of(name, eps=0.5), seed=0
    )

    assert adversarial.shape == images.shape


@pytest.mark.parametrize("name", EVERY)
def test_one_image_alone_is_no_special_case(small_attacks, linear, name):
    adversarial = small_attacks[name].run(
        linear.target(access=small_attacks[name].meta.access),
        linear.images[:1],
        linear.labels[:1],
        budget_of(name),
        seed=0,
    )

    assert adversarial.shape == (1, 1, 6, 6)
