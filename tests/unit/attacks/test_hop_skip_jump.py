"""HopSkipJump: known boundaries by labels alone, and images that there is no way from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dkd_bench.attacks.hop_skip_jump import HopSkipJump, HopSkipJumpSettings
from dkd_bench.budget import Budget, perturbation_norms
from dkd_bench.errors import ConfigError
from dkd_bench.target import Target
from dkd_bench.target.surrogates import Detecting

QUICK = HopSkipJumpSettings(steps=4, initial_gradient_evals=30)


@pytest.mark.parametrize(("norm", "within"), [("l2", 1.03), ("linf", 1.15)])
def test_labels_alone_lead_to_the_nearest_boundary_of_a_linear_model(problem, norm, within):
    linear = problem(n_classes=2, n_images=20)
    target = linear.target(access="decisions")

    adversarial = HopSkipJump().run(target, linear.images, linear.labels, Budget(norm=norm), seed=0)

    assert linear.fooled(adversarial).all()
    ratio = perturbation_norms(linear.images, adversarial, norm) / linear.distances(norm)
    assert (ratio >= 1).all()
    assert (ratio < within).all()
    assert target.backward_passes == 0


def test_scores_are_not_looked_at(linear):
    by_scores, by_labels = (
        HopSkipJump(QUICK).run(linear.target(access=access), linear.images, linear.labels, Budget(norm="l2"), seed=0)
        for access in ("scores", "decisions")
    )

    assert torch.equal(by_scores, by_labels)


def test_steps_bring_it_nearer(linear):
    short, long = (
        HopSkipJump(HopSkipJumpSettings(steps=steps)).run(
            linear.target(), linear.images, linear.labels, Budget(norm="l2"), seed=0
        )
        for steps in (1, 8)
    )

    lengths = [perturbation_norms(linear.images, x, "l2") for x in (short, long)]
    assert (lengths[1] <= lengths[0]).all()
    assert lengths[1].mean() < 0.8 * lengths[0].mean()


class Brightness(nn.Module):
    """Says class 1 to images over 0.9 on average, class 2 to those under 0.1, and class 0 to all others."""

    def forward(self, x):
        mean = x.flatten(1).mean(dim=1)
        answers = torch.where(mean > 0.9, 1, torch.where(mean < 0.1, 2, 0))
        return nn.functional.one_hot(answers, 3).float()


def grey(*levels):
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 1, 6, 6).contiguous()


def test_an_image_with_no_starting_point_comes_back_and_the_others_are_searched():
    """Noise is all class 0; only of class 1 and 2 is every other image a start."""
    target = Target(Brightness(), name="brightness", n_classes=3)
    images, labels = grey(0.5, 0.6, 0.95), torch.tensor([0, 0, 1])

    alone = HopSkipJump(QUICK).run(target, images[:2], labels[:2], Budget(norm="l2"), seed=0)
    together = HopSkipJump(QUICK).run(target, images, labels, Budget(norm="l2"), seed=0)

    assert torch.equal(alone, images[:2])
    assert (target(together).argmax(dim=1) != labels).all()
    assert torch.allclose(perturbation_norms(images, together, "l2").float(), torch.tensor([2.4, 1.8, 0.3]), atol=0.05)


def test_images_that_are_wrong_when_clean_come_back_unperturbed(linear):
    labels = linear.labels.clone()
    labels[::3] = (labels[::3] + 1) % linear.n_classes

    adversarial = HopSkipJump(QUICK).run(linear.target(), linear.images, labels, Budget(norm="l2"), seed=0)

    norms = perturbation_norms(linear.images, adversarial, "l2")
    assert (norms[::3] == 0).all()
    assert (norms[1::3] > 0).all()


class Guarded(Detecting):
    """The same classes, and a detector that rejects what is darker than a limit."""

    def __init__(self, limit):
        super().__init__()
        self.classes = Brightness()
        self.limit = limit

    def forward(self, x):
        return self.classes(x)

    def rejections(self, x):
        return self.limit - x.flatten(1).mean(dim=1, keepdim=True)


def test_a_rejected_image_is_not_misclassified():
    images, labels = grey(0.3, 0.02, 0.98), torch.tensor([0, 2, 1])

    open_door, guarded = (
        HopSkipJump(QUICK).run(
            Target(Guarded(limit), name="guarded", n_classes=3), images, labels, Budget(norm="l2"), seed=0
        )
        for limit in (0.0, 0.2)
    )

    assert open_door[0].mean() < 0.1
    assert guarded[0].mean() > 0.9
    assert guarded[1].mean() >= 0.2


def test_nothing_is_found_where_all_is_rejected():
    images, labels = grey(0.3, 0.5, 0.95), torch.tensor([0, 0, 1])

    adversarial = HopSkipJump(QUICK).run(
        Target(Guarded(2.0), name="guarded", n_classes=3), images, labels, Budget(norm="l2"), seed=0
    )

    assert torch.equal(adversarial, images)


class FailedVote(Detecting):
    """Has no answer to images over 0.7 on average; rejects them or not."""

    def __init__(self, *, rejects):
        super().__init__()
        self.rejects = rejects

    def forward(self, x):
        answered = x.flatten(1).mean(dim=1, keepdim=True) <= 0.7
        return answered * torch.tensor([[1.0, 0.0]])

    def rejections(self, x):
        return (x.flatten(1).mean(dim=1, keepdim=True) - 0.7) * (1 if self.rejects else 0)


@pytest.mark.parametrize("rejects", [False, True])
def test_no_answer_is_an_error_unless_it_is_a_reject(rejects):
    images, labels = grey(0.6, 0.8), torch.tensor([0, 0])

    adversarial = HopSkipJump(QUICK).run(
        Target(FailedVote(rejects=rejects), name="vote", n_classes=2), images, labels, Budget(norm="linf"), seed=0
    )

    assert (adversarial[0].mean() > 0.7) == (not rejects)
    assert torch.equal(adversarial[1], images[1])


def test_beyond_its_starting_points_an_image_does_not_depend_on_its_batch_mates(problem):
    """Batch mates of the same class are no starting points."""
    linear = problem(n_classes=2)
    same = linear.labels == 0
    images, labels = linear.images[same], linear.labels[same]

    together = HopSkipJump(QUICK).run(linear.target(), images, labels, Budget(norm="l2"), seed=0)
    alone = HopSkipJump(QUICK).run(linear.target(), images[:1], labels[:1], Budget(norm="l2"), seed=0)

    assert torch.allclose(together[:1], alone, atol=1e-6)


class Fickle(nn.Module):
    """Answers to an image with much noise on it."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x + 0.1 * torch.randn_like(x))


def test_a_target_whose_answers_vary_is_not_asked_for_ever(linear):
    target = Target(Fickle(linear.module()), name="fickle", n_classes=4)

    adversarial = HopSkipJump(QUICK).run(target, linear.images, linear.labels, Budget(norm="l2"), seed=0)

    assert target.forward_passes < 1000 * len(linear.images)
    assert adversarial.isfinite().all()


def test_cost_is_what_the_parameters_say(linear):
    target = linear.target()

    HopSkipJump().run(target, linear.images, linear.labels, Budget(norm="l2"), seed=0)

    assert 3000 < target.forward_passes / len(linear.images) < 4000


def test_parameters_are_checked():
    with pytest.raises(ConfigError, match="starts must be over 0, got 0"):
        HopSkipJumpSettings(starts=0)
