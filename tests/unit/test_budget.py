"""Budgets: what is refused, and that a projection lands inside and leaves what is inside alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dkd_bench.budget import TOLERANCE, Budget, perturbation_norms, project
from dkd_bench.errors import ConfigError


@pytest.mark.parametrize("eps", [1e-6, 0.1, 1.0, 1, None])
def test_linf_budgets(eps: float | None) -> None:
    assert Budget(norm="linf", eps=eps).eps == eps


def test_l2_may_exceed_one() -> None:
    assert Budget(norm="l2", eps=12.5).eps == 12.5


def test_integer_levels_are_recognised() -> None:
    with pytest.raises(
        ConfigError, match=r"linf eps must be in \(0, 1\].*got 8\. Did you mean 8/255, .*--eps 0\.0313725"
    ):
        Budget(norm="linf", eps=8)


@pytest.mark.parametrize("eps", [0.0, -0.1, float("inf"), float("nan")])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eps_must_be_positive_and_finite(norm: str, eps: float) -> None:
    with pytest.raises(ConfigError, match=rf"eps must be positive and finite, in \[0, 1\] pixel units, got {eps}"):
        Budget(norm=norm, eps=eps)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["l1", "Linf", ""])
def test_unknown_norm(norm: str) -> None:
    with pytest.raises(ConfigError, match=rf"norm must be one of linf, l2, got '{norm}'"):
        Budget(norm=norm, eps=0.1)  # type: ignore[arg-type]


def test_said_in_words() -> None:
    assert str(Budget(norm="linf", eps=8 / 255)) == "linf 0.0313725"
    assert str(Budget(norm="l2")) == "l2 unbudgeted"


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
    norm = draw(st.sampled_from(["linf", "l2"]))
    budget = Budget(norm=norm, eps=draw(st.floats(1e-3, 1.0)))
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
