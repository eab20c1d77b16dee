"""Small targets whose nearest boundaries are known, and the attacks made small enough for unit tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dkd_bench.attacks import Attack
from dkd_bench.attacks.autoattack import (
    AutoAttackRand,
    AutoAttackRandSettings,
    AutoAttackSettings,
    AutoAttackStandard,
)
from dkd_bench.attacks.detector_aware import (
    DetectorCarliniWagner,
    DetectorCarliniWagnerSettings,
    DetectorPGD,
    DetectorPGDSettings,
)
from dkd_bench.attacks.foolbox.table import ROWS, CarliniWagnerSettings
from dkd_bench.attacks.hop_skip_jump import HopSkipJump, HopSkipJumpSettings
from dkd_bench.attacks.jsma import JSMA
from dkd_bench.attacks.square import Square, SquareSettings
from dkd_bench.target import Target
from dkd_bench.target.surrogates import Detecting
from dkd_bench.testing._access import offering
from dkd_bench.testing._linear import _values_to_change

QUICK = {"cw": CarliniWagnerSettings(binary_search_steps=3, steps=30)}
"""Settings for attacks of Foolbox whose defaults take long."""


class Lenient(Detecting):
    """A detector that rejects no image at all."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def rejections(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(dim=1, keepdim=True) - 2


def offered(network: nn.Module, access: str) -> nn.Module:
    """Return ``network`` as a target that offers ``access``, of which only the detectors are of no consequence."""
    return Lenient(network) if access == "detectors" else offering(network, access, ())


class LinearProblem:
    """A linear target, and images whose nearest boundary is not too near and yet nearer than the box.

    It computes in float64: there, unlike in float32, a matrix product does not depend on the batch it is in.
    """

    def __init__(self, *, n_classes: int = 4, n_images: int = 70, side: int = 6) -> None:
        generator = torch.Generator().manual_seed(n_classes)
        self.n_classes = n_classes
        n_pixels = side * side
        self.weight = 5 * torch.randn(n_classes, n_pixels, generator=generator, dtype=torch.float64)
        self.bias = -self.weight @ torch.full((n_pixels,), 0.5, dtype=torch.float64)
        self._take(0.2 + 0.6 * torch.rand(4 * n_images, 1, side, side, generator=generator))
        far = self.distances("l2").argsort(descending=True)[:n_images].sort().values
        self._take(self.images[far])

    def _take(self, images: Tensor) -> None:
        self.images, self.labels = images, self.logits(images).argmax(dim=1)

    def logits(self, images: Tensor) -> Tensor:
        return images.double().flatten(1) @ self.weight.T + self.bias

    def module(self) -> nn.Module:
        linear = nn.Linear(self.weight.shape[1], self.n_classes).double()
        with torch.no_grad():
            linear.weight.copy_(self.weight)
            linear.bias.copy_(self.bias)
        return nn.Sequential(nn.Flatten(), linear)

    def target(self, *, batch_size: int = 250, access: str = "gradients") -> Target:
        """Return the classifier, offering what ``access`` says and no more; its detector rejects nothing."""
        module = offered(self.module(), access)
        return Target(module, name="linear", n_classes=self.n_classes, batch_size=batch_size)

    def fooled(self, images: Tensor) -> Tensor:
        return self.logits(images).argmax(dim=1) != self.labels

    def distances(self, norm: str) -> Tensor:
        """Return how far each image is from its nearest boundary, a hyperplane; in l0 how many values must change."""
        logits = self.logits(self.images)
        gaps = logits.gather(1, self.labels.unsqueeze(1)) - logits
        normals = self.weight[self.labels].unsqueeze(1) - self.weight.unsqueeze(0)
        if norm == "l0":
            return _values_to_change(self.images, gaps, normals).masked_fill(gaps == 0, torch.inf).amin(dim=1)
        dual = normals.abs().sum(dim=2) if norm == "linf" else normals.norm(dim=2)
        return (gaps / dual).masked_fill(dual == 0, torch.inf).amin(dim=1)


@pytest.fixture
def problem() -> Callable[..., LinearProblem]:
    return LinearProblem


@pytest.fixture
def linear() -> LinearProblem:
    return LinearProblem()


@pytest.fixture
def offer() -> Callable[[nn.Module, str], nn.Module]:
    return offered


@pytest.fixture
def small_attacks() -> dict[str, Attack]:
    """Every attack of ours that takes any classifier, with few enough steps that all together take two seconds."""
    attacks: list[Attack] = [
        *(row(QUICK.get(name)) for name, row in ROWS.items()),
        JSMA(),
        AutoAttackStandard(AutoAttackSettings(apgd_steps=10, fab_steps=5, square_queries=20)),
        AutoAttackRand(AutoAttackRandSettings(apgd_steps=10, eot_iter=2, selection_draws=2)),
        DetectorPGD(DetectorPGDSettings(steps=10)),
        DetectorCarliniWagner(DetectorCarliniWagnerSettings(binary_search_steps=3, steps=30)),
        Square(SquareSettings(queries=50)),
        HopSkipJump(HopSkipJumpSettings(steps=2, initial_gradient_evals=16, starts=2)),
    ]
    return {attack.meta.name: attack for attack in attacks}
