from __future__ import annotations

import numpy as np
import pytest
import torch

from dkd_bench.budget import Budget
from dkd_bench.verify._images import distances, fault_of, rounded_to_8_bits

CLEAN = torch.tensor([[0.2, 0.4], [0.6, 0.8]]).view(2, 1, 1, 2)


def moved(image: int, *values: float) -> torch.Tensor:
    images = CLEAN.clone()
    images[image] = torch.tensor(values).view(1, 1, 2)
    return images


@pytest.mark.parametrize(
    ("norm", "expected"), [("linf", [0.0, 0.2]), ("l2", [0.0, 0.25]), ("l0", [0.0, 2.0])], ids=["linf", "l2", "l0"]
)
def test_distances_are_what_they_are_by_hand(norm, expected):
    found = distances(CLEAN, moved(1, 0.45, 0.6), norm)
    assert found.dtype == np.float64
    assert found == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("images", "budget", "fault"),
    [
        (CLEAN, Budget(norm="linf", eps=0.1), None),
        (moved(1, 0.6, 0.9 + 5e-6), Budget(norm="linf", eps=0.1), None),
        (
            moved(1, 0.6, 0.9001),
            Budget(norm="linf", eps=0.1),
            "image 1 must be within linf 0.1 of the clean one (tolerance 1e-05), is 0.1001 away",
        ),
        (
            moved(1, 0.45, 0.6),
            Budget(norm="l2", eps=0.24),
            "image 1 must be within l2 0.24 of the clean one (tolerance 1e-05), is 0.25 away",
        ),
        (moved(1, 0.0, 0.8), Budget(norm="l0", eps=1), None),
        (
            moved(1, 0.0, 0.0),
            Budget(norm="l0", eps=1),
            "image 1 must be within l0 1 of the clean one (tolerance 1e-05), is 2 away",
        ),
        (moved(1, 0.0, 1.0), Budget(norm="l2"), None),
        (moved(0, 0.2, float("nan")), Budget(norm="l2"), "image 0 has values that are not finite"),
        (moved(1, 0.2, 1.25), Budget(norm="l2"), "image 1 must have pixels in [0, 1], has 0.2 to 1.25"),
        (CLEAN[:1], Budget(norm="l2"), "expected float32 images of shape (2, 1, 1, 2), got float32 (1, 1, 1, 2)"),
        (CLEAN.double(), Budget(norm="l2"), "expected float32 images of shape (2, 1, 1, 2), got float64 (2, 1, 1, 2)"),
        (
            CLEAN.flip(0),
            Budget(norm="linf", eps=0.1),
            "image 0 must be within linf 0.1 of the clean one (tolerance 1e-05), is 0.4 away; "
            "it is that near to clean image 1: the order is wrong (2 such images)",
        ),
    ],
)
def test_what_is_wrong_is_said_of_the_first_image(images, budget, fault):
    assert fault_of(CLEAN, images, budget) == fault


def test_rounding_takes_the_nearest_of_256_values():
    images = torch.tensor([0.0, 0.5, 1 / 255, 1.49 / 255, 1.51 / 255, 1.0])
    assert (rounded_to_8_bits(images) * 255).tolist() == pytest.approx([0, 128, 1, 1, 2, 255])
