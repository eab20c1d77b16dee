"""Rates and ROC curves of detectors whose scores are written on the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from dkd_bench.data import ImageSpec
from dkd_bench.defense import ABSTAIN, NO_MAJORITY, Defense, DefenseMeta
from dkd_bench.defense.decision_target import Decision
from dkd_bench.defense.detection import ROC_POINTS, DetectorTallies


class Gray(Defense):
    """Rejects what is lighter than 0.5 on average; else class 1, or a failed vote for what is black."""

    meta = DefenseMeta(name="gray", title="Gray", abstains=True)

    def __init__(self) -> None:
        super().__init__(ImageSpec(channels=1, height=2, width=2, n_classes=3))

    @property
    def members(self) -> Sequence[nn.Module]:
        return []

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        mean = x.mean(dim=(1, 2, 3))
        labels = torch.where(mean == 0, NO_MAJORITY, 1)
        return torch.where(mean > 0.5, ABSTAIN, labels)

    def rejections(self, x: Tensor) -> Mapping[str, Tensor]:
        return {"lightness": x.mean(dim=(1, 2, 3)) - 0.5}


class Certain(Gray):
    meta = DefenseMeta(name="certain", title="Certain")


def painted(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def test_rates_and_area_are_those_of_the_scores() -> None:
    tallies = DetectorTallies(Gray(), seed=0)
    tallies.add_clean(painted(0.1, 0.3))
    tallies.add("whole", painted(0.2, 0.9))
    tallies.add_clean(painted(0.4, 0.6))
    tallies.add("whole", painted(0.8))
    (found,) = tallies.records()
    assert (found.detector, found.candidate, found.n_clean, found.n_adversarial) == ("lightness", "whole", 4, 3)
    assert found.false_positive_rate == 0.25
    assert found.true_positive_rate == pytest.approx(2 / 3)
    # Of 12 pairs the adversarial image scores higher in 4 + 4 + 1.
    assert found.auc == pytest.approx(9 / 12)
    assert found.roc[0] == (0.0, 0.0)
    assert found.roc[-1] == (1.0, 1.0)


def test_a_long_curve_is_thinned_and_its_area_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, adversarial = (torch.rand(1000, generator=generator).tolist() for _ in range(2))
    tallies = DetectorTallies(Gray(), seed=0)
    tallies.add_clean(painted(*clean))
    tallies.add("whole", painted(*adversarial))
    (found,) = tallies.records()
    assert len(found.roc) == ROC_POINTS
    assert found.auc == pytest.approx(0.5, abs=0.05)


def test_nothing_adversarial_is_no_curve() -> None:
    tallies = DetectorTallies(Gray(), seed=0)
    tallies.add_clean(painted(0.1))
    tallies.add("whole", painted(0.2)[:0])
    assert tallies.records() == ()


def test_only_a_defence_that_abstains_has_detectors() -> None:
    tallies = DetectorTallies(Certain(), seed=0)
    tallies.add_clean(painted(0.1))
    tallies.add("whole", painted(0.9))
    assert tallies.records() == ()


def test_answers_as_a_target() -> None:
    target, images = Decision(Gray()), painted(0.2, 0.9, 0.0)
    assert target(images).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert target.rejections(images).tolist() == [[-1], [1], [-1]]
