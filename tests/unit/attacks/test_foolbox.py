"""Foolbox's failures, each seen to be kept away from the result."""

from __future__ import annotations

import inspect
import logging
import math
import pickle

import pytest
import torch
from foolbox.attacks.projected_gradient_descent import LinfProjectedGradientDescentAttack
from foolbox.criteria import Misclassification
from torch import nn

from dkd_bench.attacks.foolbox import _wrapper, table
from dkd_bench.attacks.foolbox.table import (
    FGSM,
    FMN,
    PGD,
    CarliniWagner,
    CarliniWagnerSettings,
    DDNSettings,
    DeepFool,
    DeepFoolSettings,
    FMNSettings,
    PGDSettings,
)
from dkd_bench.budget import Budget, perturbation_norms
from dkd_bench.errors import ConfigError
from dkd_bench.plugins.registry import installed
from dkd_bench.target import Target

UNBUDGETED = Budget(norm="l2")
MINIMUM_NORM = [
    pytest.param(row, Budget(norm=norm), id=f"{name} {norm}")
    for name, row in table.ROWS.items()
    for norm in row.meta.norms
    if row.meta.kind == "minimum_norm"
]


class Band(nn.Module):
    """Says class 1 only where the mean brightness is within ``width`` of ``centre``."""

    def __init__(self, *, centre, width):
        super().__init__()
        self.centre, self.width = centre, width

    def forward(self, x):
        excess = self.width - (x.flatten(1).mean(dim=1) - self.centre).abs()
        return torch.stack([torch.zeros_like(excess), 10 * excess], dim=1)


GREY = torch.full((2, 1, 5, 5), 0.5)
ZEROS = torch.zeros(2, dtype=torch.long)
TWO_STEPS = PGDSettings(steps=2, rel_stepsize=0.5, random_start=False)
"""From 0.5 into a band around 0.59 and, since that is past its centre, back again."""


@pytest.mark.parametrize("width", [0.02, -0.02], ids=["misclassified", "never misclassified"])
def test_pgd_returns_the_best_iterate_where_foolbox_returns_the_last(width):
    target = Target(Band(centre=0.59, width=width), name="band", n_classes=2)
    model = _wrapper._foolbox_model(target, GREY)
    library = LinfProjectedGradientDescentAttack(steps=2, rel_stepsize=0.5, random_start=False)
    assert torch.allclose(library.run(model, GREY, Misclassification(ZEROS), epsilon=0.2), GREY)

    adversarial = PGD(TWO_STEPS).run(target, GREY, ZEROS, Budget(norm="linf", eps=0.2), seed=0)

    assert torch.allclose(adversarial, GREY + 0.1)


def test_pgd_looks_at_the_last_point_too():
    target = Target(Band(centre=0.9, width=0.21), name="band", n_classes=2)

    adversarial = PGD(TWO_STEPS).run(target, GREY, ZEROS, Budget(norm="linf", eps=0.2), seed=0)

    assert target(adversarial).argmax(dim=1).tolist() == [1, 1]
    assert target.forward_passes == 2 * 3 + 2


def test_restarts_keep_the_best_of_each_image(linear):
    eps = float(linear.distances("linf").median())
    once, thrice = (
        PGD(PGDSettings(steps=1, restarts=restarts)).run(
            linear.target(), linear.images, linear.labels, Budget(norm="linf", eps=eps), seed=0
        )
        for restarts in (1, 3)
    )

    assert not (linear.fooled(once) & ~linear.fooled(thrice)).any()
    assert not torch.equal(once, thrice)


@pytest.mark.parametrize(("attack", "budget"), MINIMUM_NORM)
def test_images_that_are_wrong_when_clean_come_back_unperturbed(linear, attack, budget):
    labels = linear.labels.clone()
    labels[::3] = (labels[::3] + 1) % linear.n_classes

    adversarial = attack().run(linear.target(), linear.images, labels, budget, seed=0)

    norms = perturbation_norms(linear.images, adversarial, budget.norm)
    assert (norms[::3] == 0).all()
    assert (norms[1::3] > 0).all()


@pytest.mark.parametrize(("attack", "budget"), MINIMUM_NORM)
def test_nothing_is_queried_when_all_images_are_wrong(linear, attack, budget):
    target = linear.target()

    adversarial = attack().run(target, linear.images, (linear.labels + 1) % 4, budget, seed=0)

    assert torch.equal(adversarial, linear.images)
    assert target.forward_passes == len(linear.images)


def test_cw_returns_the_clean_image_where_it_finds_nothing_and_not_a_black_one(linear):
    hopeless = CarliniWagnerSettings(binary_search_steps=1, steps=1)
    black = linear.target()(torch.zeros_like(linear.images)).argmax(dim=1)
    assert (black != linear.labels).any(), "a black image must pass for a success somewhere"

    adversarial = CarliniWagner(hopeless).run(linear.target(), linear.images, linear.labels, UNBUDGETED, seed=0)

    assert torch.equal(adversarial, linear.images)


@pytest.mark.parametrize(("attack", "budget"), MINIMUM_NORM)
def test_batch_mates_change_nothing(linear, attack, budget):
    """Foolbox's early abort of C&W sums the loss over the batch; a mate that is far away would stop the others."""
    together = attack().run(linear.target(), linear.images, linear.labels, budget, seed=0)
    alone = attack().run(linear.target(), linear.images[:1], linear.labels[:1], budget, seed=0)

    assert torch.equal(together[:1], alone)


class Blind(nn.Module):
    """Says class 0 of every image, by as much as ``lead``, and has no gradient."""

    def __init__(self, lead):
        super().__init__()
        self.lead = lead

    def forward(self, x):
        return torch.tensor([self.lead, 0.0, 0.0]) + 0 * x.flatten(1)[:, :3]


@pytest.mark.parametrize("lead", [0.0, 1.0])
@pytest.mark.parametrize(("attack", "budget"), MINIMUM_NORM)
def test_where_nothing_is_found_the_clean_image_comes_back(attack, budget, lead):
    """FMN makes logits that are not numbers of a loss and a gradient of 0, and in L0 asks for one value too many."""
    adversarial = attack().run(Target(Blind(lead), name="blind", n_classes=3), GREY, ZEROS, budget, seed=0)

    assert torch.equal(adversarial, GREY)


def test_cw_pays_for_every_step_it_announces(linear):
    target = linear.target()

    CarliniWagner().run(target, linear.images, linear.labels, UNBUDGETED, seed=0)

    assert target.forward_passes == len(linear.images) * (4 * 100 + 2)


class Bent(nn.Module):
    """Rises ever more slowly, so that one step of a linear model falls short; class 1 is of a mean over 0.7."""

    def forward(self, x):
        mean = x.flatten(1).mean(dim=1)
        return torch.stack([torch.zeros_like(mean), mean.log() - math.log(0.7)], dim=1)


def test_deepfool_returns_the_clean_image_where_it_finds_nothing():
    target = Target(Bent(), name="bent", n_classes=2)

    short = DeepFool(DeepFoolSettings(steps=1)).run(target, GREY, ZEROS, UNBUDGETED, seed=0)
    long = DeepFool().run(target, GREY, ZEROS, UNBUDGETED, seed=0)

    assert torch.equal(short, GREY)
    assert target(long).argmax(dim=1).tolist() == [1, 1]


class Held(nn.Module):
    """Class 1 is of ten bright pixels; the others are black, and theirs is the larger gradient, out of the box."""

    def forward(self, x):
        pixels = x.flatten(1)
        excess = pixels[:, :10].sum(dim=1) - 2 * pixels[:, 10:].sum(dim=1) - 7
        return torch.stack([torch.zeros_like(excess), excess], dim=1)


HALF_BLACK = torch.zeros(2, 1, 16, 16).index_fill(3, torch.arange(10), 0.5)
HALF_BLACK[:, :, 1:] = 0


@pytest.mark.parametrize(
    ("network", "images", "norm", "nearest"),
    [
        (Bent(), GREY, "linf", 0.2),
        (Bent(), GREY, "l2", 1.0),
        (Bent(), GREY, "l0", 11),
        (Held(), HALF_BLACK, "linf", 0.2),
        (Held(), HALF_BLACK, "l2", 0.2 * math.sqrt(10)),
        (Held(), HALF_BLACK, "l0", 5),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_fmn_gets_across_where_the_loss_bends_and_where_the_box_holds_the_gradient(network, images, norm, nearest):
    """Foolbox's own comes ever nearer and finds nothing, or projects onto no ball at all."""
    target = Target(network, name="held", n_classes=2)

    adversarial = FMN().run(target, images, ZEROS, Budget(norm=norm), seed=0)

    assert target(adversarial).argmax(dim=1).tolist() == [1, 1]
    assert (perturbation_norms(images, adversarial, norm) <= 1.01 * nearest).all()


@pytest.mark.parametrize("n_classes", [2, 12])
def test_deepfool_takes_few_and_many_classes_and_leaves_the_root_logger_bare(problem, n_classes, monkeypatch):
    """Its ``logging.info`` would give the root logger a handler that prints everybody's messages."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    linear = problem(n_classes=n_classes)

    adversarial = DeepFool().run(linear.target(), linear.images, linear.labels, UNBUDGETED, seed=0)

    assert linear.fooled(adversarial).double().mean() > 0.9
    assert logging.getLogger().handlers == []


def test_deepfool_is_the_librarys_at_a_fraction_of_the_passes(linear, monkeypatch):
    """One image that nothing can fool holds up all its batch mates in Foolbox."""

    class Partly(nn.Module):
        """Bends where the linear problem lives, and says class 0 of a black corner for ever."""

        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            stubborn = (x.flatten(1)[:, :1] == 0) * torch.tensor([1e3] + [0.0] * (linear.n_classes - 1))
            return self.module(x) + 30 * torch.tanh(self.module(x)) + stubborn

    images, labels = linear.images.clone(), linear.labels.clone()
    images[0, 0, 0, 0], labels[0] = 0, 0
    target = Target(Partly(linear.module()), name="partly", n_classes=linear.n_classes)

    with monkeypatch.context() as patch:
        patch.setattr(DeepFool, "short_steps", None)
        plain = DeepFool().run(target, images, labels, UNBUDGETED, seed=0)
    plain_passes = target.forward_passes
    ours = DeepFool().run(target, images, labels, UNBUDGETED, seed=0)

    assert torch.equal(ours[0], images[0])
    assert torch.allclose(ours, plain, atol=1e-5)
    assert target.forward_passes - plain_passes < plain_passes / 3


def test_foolbox_is_told_the_device(linear, monkeypatch):
    """Left alone it moves the network to a GPU where there is one."""
    seen = {}

    def spy(module, **arguments):
        seen.update(arguments)
        return original(module, **arguments)

    original = _wrapper.PyTorchModel
    monkeypatch.setattr(_wrapper, "PyTorchModel", spy)

    FGSM().run(linear.target(), linear.images, linear.labels, Budget(norm="linf", eps=0.1), seed=0)

    assert seen == {"bounds": (0, 1), "device": linear.images.device}


def test_fgsm_costs_one_pass_and_pgd_one_more_than_its_steps(linear):
    passes = []
    for attack in (FGSM(), PGD()):
        target = linear.target()
        attack.run(target, linear.images, linear.labels, Budget(norm="l2", eps=0.1), seed=0)
        passes.append(target.forward_passes / len(linear.images))

    assert passes == [1, 41]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: PGDSettings(steps=0), "steps must be over 0, got 0"),
        (
            lambda: PGDSettings(restarts=2, random_start=False),
            "2 restarts of PGD without random_start are all the same",
        ),
        (lambda: DeepFoolSettings(candidates=1), "candidates must be at least 2"),
        (lambda: DeepFoolSettings(overshoot=-0.1), "overshoot must not be negative, got -0.1"),
        (lambda: CarliniWagnerSettings(stepsize=0.0), "stepsize must be over 0, got 0.0"),
        (lambda: FMNSettings(max_stepsize=0.001), "max_stepsize must not be under min_stepsize, got 0.001 and 0.01"),
        (lambda: FMNSettings(gamma=1.0), "gamma must be under 1, a share of the norm, got 1.0"),
        (lambda: DDNSettings(init_epsilon=0.0), "init_epsilon must be over 0, got 0.0"),
        (lambda: DDNSettings(gamma=1.0), "gamma must be under 1, a share of the norm, got 1.0"),
        (lambda: CarliniWagnerSettings(confidence=-1.0), "confidence must not be negative, got -1.0"),
    ],
)
def test_parameters_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        settings()


def test_every_row_is_registered_and_every_registered_attack_of_foolbox_is_a_row():
    of_the_table = {name: entry for name, entry in installed("attacks").items() if entry.module == table.__name__}

    assert {name: entry.load() for name, entry in of_the_table.items()} == table.ROWS


@pytest.mark.parametrize("row", table.ROWS.values(), ids=table.ROWS)
def test_a_row_has_no_code_and_says_of_what_it_is_made(row):
    assert not [name for name, value in vars(row).items() if inspect.isfunction(value)]
    assert row.__module__ == table.__name__, "spawned workers and the digest of the code look for it there"
    assert pickle.loads(pickle.dumps(row())).settings == row.Settings()
    assert tuple(row.library) == row.meta.norms
    assert set(row.meta.libraries) == {"foolbox", "eagerpy"}
