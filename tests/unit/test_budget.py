"""Budgets: what is refused, and that a projection lands inside and leaves what is inside alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dkd_bench.budget import TOLERANCE, Budget, perturbation_norms, project
from dkd_bench.errors import ConfigError
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.prepare import prepare
from dkd_bench.steps.request import RunRequest


@pytest.mark.parametrize("eps", [1e-6, 0.1, 1.0, 1, None])
def test_linf_budgets(eps: float | None) -> None:
    assert Budget(norm="linf", eps=eps).eps == eps


def test_l2_may_exceed_one() -> None:
    assert Budget(norm="l2", eps=12.5).eps == 12.5


@pytest.mark.parametrize("eps", [1, 112, 112.0, None])
def test_l0_counts_values(eps: float | None) -> None:
    assert Budget(norm="l0", eps=eps).eps == eps


@pytest.mark.parametrize("eps", [0, 0.5, 2.5, -1, float("inf"), float("nan")])
def test_l0_budgets_are_whole_numbers(eps: float) -> None:
    with pytest.raises(ConfigError, match=rf"l0 eps must be a whole number, at least 1: .*; got {eps}\."):
        Budget(norm="l0", eps=eps)


def test_integer_levels_are_recognised() -> None:
    with pytest.raises(
        ConfigError, match=r"linf eps must be in \(0, 1\].*got 8\. Did you mean 8/255, .*eps 0\.0313725"
    ):
        Budget(norm="linf", eps=8)


@pytest.mark.parametrize("eps", [0.0, -0.1, float("inf"), float("nan")])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eps_must_be_positive_and_finite(norm: str, eps: float) -> None:
    with pytest.raises(ConfigError, match=rf"eps must be positive and finite, in \[0, 1\] pixel units, got {eps}"):
        Budget(norm=norm, eps=eps)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["l1", "Linf", ""])
def test_unknown_norm(norm: str) -> None:
    with pytest.raises(ConfigError, match=rf"norm must be one of linf, l2, l0, got '{norm}'"):
        Budget(norm=norm, eps=0.1)  # type: ignore[arg-type]


def test_said_in_words() -> None:
    assert str(Budget(norm="linf", eps=8 / 255)) == "linf 0.0313725"
    assert str(Budget(norm="l2")) == "l2 unbudgeted"
    assert str(Budget(norm="l0", eps=112.0)) == "l0 112"


def test_norms_known_values() -> None:
    clean = torch.zeros(2, 1, 2, 2)
    adversarial = torch.tensor([[[[0.3, 0.0], [0.0, -0.4]]], [[[0.1, 0.1], [0.1, 0.1]]]])
    linf = perturbation_norms(clean, adversarial, "linf")
    l2 = perturbation_norms(clean, adversarial, "l2")
    assert linf.dtype == l2.dtype == torch.float64
    assert linf.tolist() == pytest.approx([0.4, 0.1])
    assert l2.tolist() == pytest.approx([0.5, 0.2])


def test_norms_are_taken_over_colours_too() -> None:
    adversarial = torch.full((1, 3, 2, 2), 0.5)
    assert perturbation_norms(torch.zeros(1, 3, 2, 2), adversarial, "l2").tolist() == [pytest.approx(0.5 * 12**0.5)]


def test_l0_counts_every_difference() -> None:
    clean = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    adversarial = clean.clone()
    adversarial[1, 0, 2, 2] = torch.nextafter(clean[1, 0, 2, 2], torch.tensor(2.0))
    adversarial[2, :, 1, 1] = 1.0
    norms = perturbation_norms(clean, adversarial, "l0")
    assert norms.dtype == torch.float64
    assert norms.tolist() == [0, 1, 3]


def test_linf_projection_known_values() -> None:
    clean = torch.tensor([[[[0.5, 0.5, 0.05, 0.95]]]])
    adversarial = torch.tensor([[[[0.9, 0.45, -0.4, 1.2]]]])
    expected = torch.tensor([[[[0.6, 0.45, 0.0, 1.0]]]])
    torch.testing.assert_close(project(clean, adversarial, Budget(norm="linf", eps=0.1)), expected)


def test_l2_projection_known_values() -> None:
    clean = torch.full((1, 1, 1, 2), 0.5)
    # Along the direction (0.3, 0.4), of length 0.5.
    adversarial = clean + torch.tensor([[[[0.3, 0.4]]]])
    expected = clean + torch.tensor([[[[0.06, 0.08]]]])
    torch.testing.assert_close(project(clean, adversarial, Budget(norm="l2", eps=0.1)), expected)


def test_l0_projection_known_values() -> None:
    clean = torch.tensor([[[[0.1, 0.2, 0.3, 0.4]]], [[[1.0, 0.2, 0.3, 0.4]]]])
    # In the second image the box takes the first change back whole, and equal changes are kept from the left.
    adversarial = torch.tensor([[[[0.2, 0.9, 0.3, 0.0]]], [[[7.0, 0.2, 0.0, 0.7]]]])
    one, two, four = (project(clean, adversarial, Budget(norm="l0", eps=eps)) for eps in (1, 2, 40))
    assert torch.equal(one, torch.tensor([[[[0.1, 0.9, 0.3, 0.4]]], [[[1.0, 0.2, 0.0, 0.4]]]]))
    assert torch.equal(two, torch.tensor([[[[0.1, 0.9, 0.3, 0.0]]], [[[1.0, 0.2, 0.0, 0.7]]]]))
    assert torch.equal(four, adversarial.clamp(0, 1))


def test_l0_without_eps_keeps_the_box_and_every_clean_value() -> None:
    clean = torch.tensor([[[[0.1, 0.3, 0.7]]]])
    adversarial = torch.tensor([[[[0.1, 1.4, 0.7]]]])
    assert torch.equal(project(clean, adversarial, Budget(norm="l0")), torch.tensor([[[[0.1, 1.0, 0.7]]]]))


def test_without_eps_only_the_box_is_kept() -> None:
    clean = torch.full((1, 1, 1, 2), 0.5)
    adversarial = torch.tensor([[[[-3.0, 0.9]]]])
    torch.testing.assert_close(project(clean, adversarial, Budget(norm="l2")), torch.tensor([[[[0.0, 0.9]]]]))


@st.composite
def perturbed_images(draw: st.DrawFn) -> tuple[Tensor, Tensor, Budget]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    shape = (draw(st.integers(1, 4)), draw(st.sampled_from([1, 3])), draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    clean = torch.rand(shape, generator=generator).round(decimals=draw(st.integers(0, 3)))
    distance = draw(st.sampled_from([0.0, 1e-9, 0.01, 0.2, 5.0]))
    norm = draw(st.sampled_from(["linf", "l2", "l0"]))
    budget = Budget(norm=norm, eps=draw(st.integers(1, 30) if norm == "l0" else st.floats(1e-3, 1.0)))
    return clean, clean + distance * torch.randn(shape, generator=generator), budget


@given(perturbed_images())
def test_a_projection_is_in_budget_and_box(drawn: tuple[Tensor, Tensor, Budget]) -> None:
    clean, adversarial, budget = drawn
    assert budget.eps is not None
    found = project(clean, adversarial, budget)
    assert found.shape == clean.shape
    assert found.dtype == clean.dtype
    assert ((found >= 0) & (found <= 1)).all()
    assert (perturbation_norms(clean, found, budget.norm) <= budget.eps + TOLERANCE / 10).all()


@given(perturbed_images())
def test_a_projection_leaves_what_is_inside(drawn: tuple[Tensor, Tensor, Budget]) -> None:
    clean, adversarial, budget = drawn
    inside = project(clean, adversarial, budget)
    torch.testing.assert_close(project(clean, inside, budget), inside, rtol=0, atol=1e-6)


def test_a_dataset_without_a_budget_in_the_norm_asks_for_one_before_anything_is_trained() -> None:
    request = RunRequest(defenses=("none",), attacks=("jsma",), norm="l0")
    with pytest.raises(ConfigError, match="dataset 'digits' has no budget of its own in l0; give one with eps"):
        prepare(request, SilentProgress())
