"""Random points of a budget, and what it takes for images lost to be told of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dkd_bench.budget import Budget, check_images, perturbation_norms
from dkd_bench.doubts.challenges import TOLERATED_LOSS, flag_if_significant, noise_within
from dkd_bench.records import CellRecord
from dkd_bench.records.flags import NOISE

MakeCell = Callable[..., CellRecord]


@pytest.fixture
def images() -> Tensor:
    return 0.25 + 0.5 * torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "budget", [Budget(norm="linf", eps=0.1), Budget(norm="l2", eps=0.5), Budget(norm="l0", eps=5)], ids=str
)
def test_noise_fills_the_budget(images: Tensor, budget: Budget) -> None:
    noisy = noise_within(images, budget, generator=torch.Generator().manual_seed(1))
    check_images(images, noisy, budget, source="noise")
    assert perturbation_norms(images, noisy, budget.norm).tolist() == pytest.approx([budget.eps] * 6)
    again = noise_within(images, budget, generator=torch.Generator().manual_seed(1))
    other = noise_within(images, budget, generator=torch.Generator().manual_seed(2))
    assert torch.equal(noisy, again)
    assert not torch.equal(noisy, other)


def test_noise_stays_in_the_box() -> None:
    noisy = noise_within(torch.zeros(4, 1, 3, 3), Budget(norm="linf", eps=0.3), generator=torch.Generator())
    assert noisy.unique().tolist() == pytest.approx([0.0, 0.3])


def test_what_is_told_is_sure_to_cost_more_than_is_tolerated(make_cell: MakeCell) -> None:
    """Wilson's lower bound of 3 in 12 is 0.0889, of 2 in 12 it is 0.0470; a quarter of the images stood everything."""
    cell = make_cell("r" * 25 + "f" * 75)
    assert 0.0470 * 0.25 < TOLERATED_LOSS < 0.0889 * 0.25
    assert flag_if_significant(NOISE, "seen", lost=2, looked_at=12, cells=[cell], cell=cell) == []
    (raised,) = flag_if_significant(NOISE, "seen", lost=3, looked_at=12, cells=[cell], cell=cell)
    assert (raised.cell, raised.flag.name, raised.flag.detail, raised.flag.share) == (cell, NOISE, "seen", 0.25)


def test_where_little_stands_little_can_be_lost(make_cell: MakeCell) -> None:
    cells = [make_cell("r" * 25 + "f" * 75), make_cell("r" * 5 + "f" * 95, attack="fgsm")]
    assert flag_if_significant(NOISE, "seen", lost=3, looked_at=12, cells=cells, cell=cells[0]) == []
