"""Threat models on images of four pixels, where the candidates can be written down."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dkd_bench.budget import Budget
from dkd_bench.threats import Roles, ThreatModel
from dkd_bench.threats.aggregated import MAGNITUDES, Aggregated
from dkd_bench.threats.black_box import BlackBox
from dkd_bench.threats.joint import Joint
from dkd_bench.threats.standalone import Standalone

ROLES = Roles(reference="reference", members=("member-1", "member-2"), surrogates=("mean-logit", "sum-of-margins"))
CLEAN = torch.full((1, 1, 2, 2), 0.5)


def images(*pixels: float) -> Tensor:
    return torch.tensor(pixels).view(1, 1, 2, 2)


def candidates(
    threat_model: ThreatModel, crafted: dict[str, Tensor], budget: Budget, clean: Tensor = CLEAN
) -> dict[str, Tensor]:
    return dict(threat_model.candidates(clean, crafted, budget))


@pytest.mark.parametrize(
    ("threat_model", "name", "targets"),
    [
        (BlackBox(), "black-box", ("reference",)),
        (Standalone(), "standalone", ("member-1", "member-2")),
        (Aggregated(), "aggregated", ("member-1", "member-2")),
        (Joint(), "joint", ("mean-logit", "sum-of-margins")),
    ],
)
def test_names_and_targets(threat_model: ThreatModel, name: str, targets: tuple[str, ...]) -> None:
    assert threat_model.meta.name == name
    assert tuple(threat_model.targets(ROLES)) == targets


def test_joint_has_no_targets_without_surrogates() -> None:
    assert tuple(Joint().targets(Roles(reference="reference", members=("member-1",), surrogates=()))) == ()


@pytest.mark.parametrize("threat_model", [BlackBox(), Standalone(), Joint()])
def test_each_craft_is_a_candidate_as_it_stands(threat_model: ThreatModel) -> None:
    crafted = {"first": images(0.6, 0.4, 0.5, 0.5), "second": images(0.5, 0.5, 0.45, 0.5)}
    found = candidates(threat_model, crafted, Budget(norm="linf", eps=0.1))
    assert list(found) == ["first", "second"]
    assert torch.equal(found["first"], crafted["first"])
    assert torch.equal(found["second"], crafted["second"])


@pytest.mark.parametrize("threat_model", [BlackBox(), Standalone(), Joint()])
def test_a_minimum_norm_craft_over_the_budget_is_no_success(threat_model: ThreatModel) -> None:
    clean = CLEAN.expand(3, 1, 2, 2)
    # 0.3, 0.2 and exactly 0.25 away in L2.
    crafted = torch.cat([images(0.8, 0.5, 0.5, 0.5), images(0.5, 0.7, 0.5, 0.5), images(0.5, 0.5, 0.75, 0.5)])
    found = candidates(threat_model, {"craft": crafted}, Budget(norm="l2", eps=0.25), clean)["craft"]
    assert torch.equal(found[0], clean[0])
    assert torch.equal(found[1], crafted[1])
    assert torch.equal(found[2], crafted[2])
    unbudgeted = candidates(threat_model, {"craft": crafted}, Budget(norm="l2"), clean)["craft"]
    assert torch.equal(unbudgeted, crafted)


# Summed: (0.2, 0, -0.05, 0).
CRAFTED = {"member-1": images(0.6, 0.6, 0.5, 0.5), "member-2": images(0.6, 0.4, 0.45, 0.5)}


def test_aggregated_follows_the_sum() -> None:
    found = candidates(Aggregated(), CRAFTED, Budget(norm="linf", eps=0.1))
    assert list(found) == ["0.25 of the sum", "0.5 of the sum", "0.75 of the sum", "1 of the sum", "to the edge"]
    torch.testing.assert_close(found["0.25 of the sum"], images(0.55, 0.5, 0.4875, 0.5))
    torch.testing.assert_close(found["0.5 of the sum"], images(0.6, 0.5, 0.475, 0.5))
    torch.testing.assert_close(found["0.75 of the sum"], images(0.6, 0.5, 0.4625, 0.5))
    torch.testing.assert_close(found["1 of the sum"], images(0.6, 0.5, 0.45, 0.5))
    assert MAGNITUDES == (0.25, 0.5, 0.75, 1.0)


def test_aggregated_goes_to_the_edge_in_linf() -> None:
    """Where the members cancel out, the sum has no sign and the pixel stays."""
    found = candidates(Aggregated(), CRAFTED, Budget(norm="linf", eps=0.1))["to the edge"]
    torch.testing.assert_close(found, images(0.6, 0.5, 0.4, 0.5))


def test_aggregated_goes_to_the_edge_in_l2() -> None:
    crafted = {"member-1": images(0.53, 0.5, 0.5, 0.5), "member-2": images(0.5, 0.54, 0.5, 0.5)}
    found = candidates(Aggregated(), crafted, Budget(norm="l2", eps=0.5))
    torch.testing.assert_close(found["to the edge"], images(0.8, 0.9, 0.5, 0.5))
    torch.testing.assert_close(found["1 of the sum"], images(0.53, 0.54, 0.5, 0.5))


def test_aggregated_is_projected_in_l2() -> None:
    crafted = {"member-1": images(0.8, 0.5, 0.5, 0.5), "member-2": images(0.5, 0.9, 0.5, 0.5)}
    found = candidates(Aggregated(), crafted, Budget(norm="l2", eps=0.25))
    torch.testing.assert_close(found["1 of the sum"], images(0.65, 0.7, 0.5, 0.5))
    torch.testing.assert_close(found["0.5 of the sum"], images(0.65, 0.7, 0.5, 0.5))
    torch.testing.assert_close(found["0.25 of the sum"], images(0.575, 0.6, 0.5, 0.5))


def test_aggregated_keeps_the_largest_of_the_sum_in_l0() -> None:
    crafted = {"member-1": images(1.0, 0.5, 0.5, 0.75), "member-2": images(1.0, 0.875, 0.5, 0.5)}
    found = candidates(Aggregated(), crafted, Budget(norm="l0", eps=2))
    assert torch.equal(found["0.25 of the sum"], images(0.75, 0.59375, 0.5, 0.5))
    assert torch.equal(found["1 of the sum"], images(1.0, 0.875, 0.5, 0.5))
    assert torch.equal(found["to the edge"], images(1.0, 0.875, 0.5, 0.5))
    unbudgeted = candidates(Aggregated(), crafted, Budget(norm="l0"))
    assert torch.equal(unbudgeted["1 of the sum"], images(1.0, 0.875, 0.5, 0.75))


def test_a_craft_with_too_many_values_is_no_success_in_l0() -> None:
    clean = CLEAN.expand(2, 1, 2, 2)
    crafted = torch.cat([images(1.0, 1.0, 1.0, 0.5), images(1.0, 1.0, 0.5, 0.5)])
    found = candidates(Standalone(), {"craft": crafted}, Budget(norm="l0", eps=2), clean)["craft"]
    assert torch.equal(found[0], clean[0])
    assert torch.equal(found[1], crafted[1])


def test_aggregated_keeps_the_box() -> None:
    crafted = {"member-1": images(0.9, 0.5, 0.0, 0.5), "member-2": images(0.9, 0.5, 0.0, 0.5)}
    found = candidates(Aggregated(), crafted, Budget(norm="l2"))
    torch.testing.assert_close(found["1 of the sum"], images(1.0, 0.5, 0.0, 0.5))


def test_aggregated_without_budget_has_no_edge() -> None:
    found = candidates(Aggregated(), CRAFTED, Budget(norm="l2"))
    assert list(found) == ["0.25 of the sum", "0.5 of the sum", "0.75 of the sum", "1 of the sum"]
    torch.testing.assert_close(found["1 of the sum"], images(0.7, 0.5, 0.45, 0.5))


@pytest.mark.parametrize("budget", [Budget(norm="linf", eps=0.1), Budget(norm="l2", eps=0.1), Budget(norm="l0", eps=3)])
def test_aggregated_leaves_an_image_that_nobody_moved(budget: Budget) -> None:
    found = candidates(Aggregated(), {"member-1": CLEAN, "member-2": CLEAN}, budget)
    for candidate in found.values():
        assert torch.equal(candidate, CLEAN)


def test_aggregated_over_one_member_is_that_member() -> None:
    crafted = {"member-1": images(0.6, 0.4, 0.5, 0.5)}
    found = candidates(Aggregated(), crafted, Budget(norm="linf", eps=0.1))
    torch.testing.assert_close(found["1 of the sum"], crafted["member-1"])
