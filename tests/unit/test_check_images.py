"""Every way in which adversarial images can be refused, and how little is forgiven."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dkd_bench.budget import TOLERANCE, Budget, check_images
from dkd_bench.errors import EvidenceError

LINF = Budget(norm="linf", eps=0.1)
L2 = Budget(norm="l2", eps=0.5)
FREE = Budget(norm="l2")


@pytest.fixture
def clean() -> Tensor:
    return torch.full((3, 1, 4, 4), 0.5)


def moved(clean: Tensor, *, image: int, by: float, pixels: int = 1) -> Tensor:
    adversarial = clean.clone()
    adversarial[image].view(-1)[:pixels] += by
    return adversarial


def test_clean_images_pass(clean: Tensor) -> None:
    for budget in (LINF, L2, FREE):
        check_images(clean, clean.clone(), budget, source="nobody")


def test_no_images_pass() -> None:
    check_images(torch.zeros(0, 1, 4, 4), torch.zeros(0, 1, 4, 4), LINF, source="nobody")


@pytest.mark.parametrize("sign", [-1, 1])
def test_linf_is_kept_to_rounding(clean: Tensor, sign: int) -> None:
    check_images(clean, moved(clean, image=1, by=sign * 0.1), LINF, source="pgd")
    check_images(clean, moved(clean, image=1, by=sign * (0.1 + TOLERANCE / 2)), LINF, source="pgd")
    with pytest.raises(
        EvidenceError, match=r"^pgd: image 1 must be within linf 0\.1 of the clean one, is 0\.1001 away"
    ):
        check_images(clean, moved(clean, image=1, by=sign * 0.1001), LINF, source="pgd")


def test_l2_is_kept_to_rounding(clean: Tensor) -> None:
    # Four pixels moved by a quarter are half a unit away.
    check_images(clean, moved(clean, image=2, by=0.25, pixels=4), L2, source="cw")
    check_images(clean, moved(clean, image=2, by=(0.5 + TOLERANCE / 2) / 2, pixels=4), L2, source="cw")
    with pytest.raises(EvidenceError, match=r"^cw: image 2 must be within l2 0\.5 of the clean one, is 0\.5001 away"):
        check_images(clean, moved(clean, image=2, by=0.5001 / 2, pixels=4), L2, source="cw")


def test_the_first_image_at_fault_is_named(clean: Tensor) -> None:
    adversarial = moved(moved(clean, image=2, by=0.3), image=1, by=0.2)
    with pytest.raises(EvidenceError, match=r"image 1 .* is 0\.2 away"):
        check_images(clean, adversarial, LINF, source="pgd")


def test_without_budget_any_distance_passes(clean: Tensor) -> None:
    check_images(clean, torch.ones_like(clean), FREE, source="deepfool")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("budget", [LINF, FREE])
def test_values_must_be_finite(clean: Tensor, value: float, budget: Budget) -> None:
    adversarial = clean.clone()
    adversarial[1, 0, 2, 3] = value
    with pytest.raises(EvidenceError, match=r"^fgsm: image 1 has values that are not finite"):
        check_images(clean, adversarial, budget, source="fgsm")


def test_the_box_is_kept_exactly(clean: Tensor) -> None:
    low, high = clean.clone(), clean.clone()
    low[0, 0, 0, 0], high[2, 0, 0, 0] = -1e-7, 1.0001
    with pytest.raises(EvidenceError, match=r"image 0 must have pixels in \[0, 1\], has -1e-07 to 0\.5"):
        check_images(clean, low, FREE, source="square")
    with pytest.raises(EvidenceError, match=r"image 2 must have pixels in \[0, 1\], has 0\.5 to 1\.0001"):
        check_images(clean, high, FREE, source="square")


@pytest.mark.parametrize(
    ("adversarial", "got"),
    [
        (torch.full((2, 1, 4, 4), 0.5), r"torch\.float32 \(2, 1, 4, 4\)"),
        (torch.full((3, 4, 4), 0.5), r"torch\.float32 \(3, 4, 4\)"),
        (torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64), r"torch\.float64 \(3, 1, 4, 4\)"),
        (torch.full((3, 1, 4, 4), 0.5, dtype=torch.float16), r"torch\.float16 \(3, 1, 4, 4\)"),
    ],
)
def test_shape_and_type_must_be_those_of_the_clean_images(clean: Tensor, adversarial: Tensor, got: str) -> None:
    with pytest.raises(
        EvidenceError, match=rf"^pgd: expected torch\.float32 images of shape \(3, 1, 4, 4\), got {got}"
    ):
        check_images(clean, adversarial, LINF, source="pgd")


def test_nothing_is_repaired(clean: Tensor) -> None:
    adversarial = moved(clean, image=0, by=0.4)
    before = adversarial.clone()
    with pytest.raises(EvidenceError, match="image 0"):
        check_images(clean, adversarial, LINF, source="pgd")
    assert torch.equal(adversarial, before)
