"""Stand-ins for a vote against plain computations, and their gradients where naive ones vanish."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dkd_bench.target.surrogates import (
    EnsembleSurrogate,
    LogMeanProbability,
    MeanLogit,
    SumOfMargins,
    ensemble_surrogates,
)


class FixedLogits(nn.Module):
    """Answers every image with the same logits plus the image's first values."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits + x.flatten(1)[:, : len(self.logits)]


def surrogate(cls: type[EnsembleSurrogate], members: int = 1) -> EnsembleSurrogate:
    return cls([nn.Identity() for _ in range(members)])


def gradient(value: Tensor, wanted: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(value.sum(), wanted, retain_graph=True)
    return found


def random_logits(members: int = 3, images: int = 5, classes: int = 4) -> Tensor:
    return 3 * torch.randn(members, images, classes, generator=torch.Generator().manual_seed(1))


def test_log_mean_probability() -> None:
    logits = random_logits()
    expected = torch.stack([each.softmax(dim=1) for each in logits]).mean(dim=0).log()
    torch.testing.assert_close(surrogate(LogMeanProbability).combine(logits), expected)


def test_log_mean_probability_worked_by_hand() -> None:
    # Probabilities (3/4, 1/4) and (1/2, 1/2) have the mean (5/8, 3/8).
    logits = torch.tensor([[[math.log(3.0), 0.0]], [[0.0, 0.0]]])
    expected = torch.tensor([[math.log(5 / 8), math.log(3 / 8)]])
    torch.testing.assert_close(surrogate(LogMeanProbability).combine(logits), expected)


def test_mean_logit() -> None:
    logits = torch.tensor([[[1.0, 2.0, -3.0]], [[3.0, 0.0, 1.0]]])
    assert surrogate(MeanLogit).combine(logits).tolist() == [[2.0, 1.0, -1.0]]


def test_members_are_asked_and_combined() -> None:
    members = [FixedLogits(1.0, 2.0, -3.0), FixedLogits(3.0, 0.0, 1.0)]
    images = torch.zeros(2, 1, 2, 2)
    assert MeanLogit(members)(images).tolist() == [[2.0, 1.0, -1.0]] * 2


def test_sum_of_margins_orders_classes_as_a_margin_should() -> None:
    # Class 0 leads the first member by 0.5 and trails the second's by 0.25.
    logits = torch.tensor([[[2.0, 1.5, 1.25]], [[1.0, 1.25, 0.75]]])
    combined = surrogate(SumOfMargins).combine(logits)
    torch.testing.assert_close(combined, torch.tensor([[0.5 - 0.25, -0.5 + 0.25, -0.75 - 0.5]]))


def test_sum_of_margins_by_plain_loops() -> None:
    logits = random_logits()
    expected = torch.zeros(logits.shape[1:])
    for member in logits:
        for image, row in enumerate(member.tolist()):
            for label, own in enumerate(row):
                margin = own - max(other for place, other in enumerate(row) if place != label)
                expected[image, label] += min(margin, SumOfMargins.kappa)
    torch.testing.assert_close(surrogate(SumOfMargins).combine(logits), expected)


@pytest.mark.parametrize("cls", [LogMeanProbability, MeanLogit])
def test_two_classes_and_a_single_member_keep_their_order(cls: type[EnsembleSurrogate]) -> None:
    logits = random_logits(members=1, classes=2)
    assert torch.equal(surrogate(cls).combine(logits).argmax(dim=1), logits[0].argmax(dim=1))


GAP = 200.0


def saturated(*, own: int, members: int = 3) -> Tensor:
    """Logits of members that are all sure of class 0; the gap is beyond float32's exponent."""
    logits = torch.zeros(members, 1, 4)
    logits[:, :, own] = GAP
    return logits.requires_grad_()


def naive(logits: Tensor) -> Tensor:
    return logits.softmax(dim=2).mean(dim=0).clamp_min(1e-40).log()


def test_log_mean_probability_has_a_gradient_where_the_probability_underflows() -> None:
    logits = saturated(own=0)
    loss_of_another_class = -naive(logits)[:, 1]
    assert not gradient(loss_of_another_class, logits).any(), "the naive form is not the one to beat"
    found = gradient(-surrogate(LogMeanProbability, 3).combine(logits)[:, 1], logits)
    torch.testing.assert_close(found[:, 0, 0], torch.full((3,), 1 / 3))
    torch.testing.assert_close(found[:, 0, 1], torch.full((3,), -1 / 3))


def test_mean_logit_has_a_gradient_at_saturation() -> None:
    logits = saturated(own=0)
    combined = surrogate(MeanLogit).combine(logits)
    found = gradient(combined[:, 1] - combined[:, 0], logits)
    torch.testing.assert_close(found[:, 0, :2], torch.tensor([[-1 / 3, 1 / 3]] * 3))


def test_sum_of_margins_has_a_gradient_at_saturation() -> None:
    logits = saturated(own=0)
    assert not gradient(nn.functional.cross_entropy(naive(logits), torch.tensor([0])), logits).any()
    combined = surrogate(SumOfMargins).combine(logits)
    found = gradient(combined[:, 1] - combined[:, 0], logits)
    assert (found[:, 0, 0] < 0).all()
    assert (found[:, 0, 1:].sum(dim=1) > 0).all()


def dlr(logits: Tensor, label: int) -> Tensor:
    """Return the loss of Croce and Hein 2020: the margin over the distance from the first to the third logit."""
    first, second, third = logits.topk(3, dim=1).values.unbind(dim=1)
    own = logits[:, label]
    return -(own - torch.where(own == first, second, first)) / (first - third + 1e-12)


@pytest.mark.parametrize("loss", ["cross-entropy", "dlr"])
@pytest.mark.parametrize(
    "cls",
    [
        LogMeanProbability,
        MeanLogit,
        SumOfMargins,
    ],
)
def test_losses_of_the_attacks_have_a_gradient_where_members_are_sure(cls: type[EnsembleSurrogate], loss: str) -> None:
    """Every member leads by 10, which an ordinary image of the digits does."""
    logits = torch.zeros(3, 1, 4)
    logits[:, 0] = torch.tensor([10.0, 1.0, 0.5, 0.0])
    logits.requires_grad_()
    combined = surrogate(cls, 3).combine(logits)
    value = dlr(combined, 0) if loss == "dlr" else nn.functional.cross_entropy(combined, torch.tensor([0]))
    assert gradient(value, logits).any()


def test_a_member_fooled_with_kappa_to_spare_is_not_pushed_further_to_its_wrong_class() -> None:
    kappa = SumOfMargins.kappa
    logits = torch.zeros(3, 1, 4)
    logits[0, 0, 0] = 5.0  # right by 5
    logits[1, 0, 1] = 0.5 * kappa  # fooled, but by less than kappa
    logits[2, 0, 1] = 1.5 * kappa  # fooled with kappa to spare
    logits.requires_grad_()
    found = gradient(surrogate(SumOfMargins).combine(logits)[:, 1], logits)
    assert found[0, 0, 1] == 1
    assert found[1, 0, 1] == 1
    assert not found[2, 0].any()


def test_no_member_outvotes_the_others_by_being_sure() -> None:
    logits = torch.zeros(3, 1, 4)
    logits[0, 0, 0] = 100.0
    logits[1:, 0, 1] = 2.0
    combined = surrogate(SumOfMargins, 3).combine(logits)
    assert combined[0, 0] == SumOfMargins.kappa - 2 - 2
    assert combined[0, 1] == -100 + 2 * SumOfMargins.kappa


def test_an_ensemble_has_three() -> None:
    members = [nn.Linear(2, 2), nn.Linear(2, 2)]
    found = ensemble_surrogates(members)
    assert {name: type(each) for name, each in found.items()} == {
        "log-mean-probability": LogMeanProbability,
        "mean-logit": MeanLogit,
        "sum-of-margins": SumOfMargins,
    }
    for each in found.values():
        assert isinstance(each, EnsembleSurrogate)
        assert [*each.members] == members


def test_one_network_stands_for_itself() -> None:
    member = nn.Linear(2, 2)
    found = ensemble_surrogates([member])
    assert list(found) == ["whole"]
    assert found["whole"] is member
