"""The binarisation test against networks and attacks of which it is known whether they work."""

from __future__ import annotations

from typing import ClassVar, final

import pytest
import torch
from torch import Tensor, nn

from dkd_bench.attacks import Attack, AttackMeta
from dkd_bench.attacks.detector_aware import DetectorPGD
from dkd_bench.attacks.foolbox.table import FGSM, PGD, DeepFool, PGDSettings
from dkd_bench.attacks.latent import LatentSpace
from dkd_bench.attacks.square import Square, SquareSettings
from dkd_bench.budget import TOLERANCE, Budget, perturbation_norms
from dkd_bench.errors import AttackError, ConfigError
from dkd_bench.probe.features import LinearInputs
from dkd_bench.probe.planted import (
    BinarizationResult,
    BinarizationSettings,
    binarization_test,
    make_problem,
)
from dkd_bench.target.surrogates import BPDA, Detecting, LogMeanProbability, SumOfMargins

IMAGES = 0.2 + 0.6 * torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LINF, L2 = Budget(norm="linf", eps=0.1), Budget(norm="l2", eps=0.5)
SETTINGS = BinarizationSettings(n_inner=50)


def linear(seed: int = 1) -> nn.Sequential:
    return seeded(seed, lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))


def relu(seed: int = 2) -> nn.Sequential:
    return seeded(seed, lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 3)))


def seeded(seed, build):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().eval()


class Step(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


ROUNDED = Step(lambda x: (x * 16).round() / 16)


def outcome_of(network, attack=None, budget=LINF, images=IMAGES, settings=SETTINGS) -> BinarizationResult:
    return binarization_test(network, images, attack or PGD(), budget, settings=settings)


@pytest.mark.parametrize("budget", [LINF, L2], ids=str)
@pytest.mark.parametrize(
    "network",
    [
        pytest.param(linear(), id="linear"),
        pytest.param(relu(), id="relu"),
        pytest.param(BPDA(ROUNDED, relu()), id="rounding with a backward pass of its own"),
        pytest.param(LogMeanProbability([linear(), relu()]), id="ensemble"),
    ],
)
def test_an_attack_that_works_passes_on_an_honest_network(network, budget) -> None:
    found = outcome_of(network, budget=budget)
    assert (found.verdict, found.passed, found.error) == ("passed", True, None)
    assert found.n_setup_failed == 0
    assert found.attack_success >= 0.95
    assert found.random_success < 0.3


@pytest.mark.parametrize("budget", [LINF, L2], ids=str)
@pytest.mark.parametrize(
    "network",
    [
        pytest.param(nn.Sequential(ROUNDED, *relu()), id="gradients shattered by rounding"),
        pytest.param(nn.Sequential(*relu(), Step(lambda x: 1e5 * x)), id="logits scaled until the softmax saturates"),
    ],
)
def test_a_network_that_masks_its_gradient_fails(network, budget) -> None:
    found = outcome_of(network, budget=budget)
    assert (found.verdict, found.passed) == ("failed", False)
    assert found.n_tested == 12
    assert found.attack_success < 0.5


def test_an_attack_that_cannot_run_finds_nothing_and_says_why() -> None:
    found = outcome_of(nn.Sequential(Step(Tensor.detach), *relu()))
    assert (found.verdict, found.attack_success) == ("failed", 0)
    assert "attack 'pgd' on the binarised network failed" in found.error


def test_a_weak_attack_fails_where_a_strong_one_passes() -> None:
    weak = PGD(PGDSettings(steps=1, rel_stepsize=0.01))
    assert outcome_of(relu(), weak).verdict == "failed"
    assert outcome_of(relu()).verdict == "passed"


@pytest.mark.parametrize(
    ("attack", "budget"),
    [
        pytest.param(FGSM(), LINF, id="one step is enough for a plane"),
        pytest.param(Square(SquareSettings(queries=600)), LINF, id="scores alone"),
        pytest.param(DeepFool(), L2, id="minimum norm"),
    ],
)
def test_other_kinds_of_attack_pass_on_a_linear_network(attack, budget) -> None:
    found = outcome_of(linear(), attack, budget, IMAGES[:4])
    assert (found.attack, found.verdict) == (attack.meta.name, "passed")


@final
class Far(Attack):
    """Returns a fooling image that is twice the budget away."""

    meta = AttackMeta(name="far", title="Far", kind="fixed", norms=("linf",))
    reach: ClassVar[float] = 2.0

    def _perturb(self, target, images, labels, budget):
        logits = target(images.requires_grad_())
        (gradient,) = torch.autograd.grad(logits[:, 1].sum(), images)
        return (images + self.reach * budget.eps * gradient.sign()).clamp(0, 1).detach()


@final
class FarOfMinimumNorm(Attack):
    """The same, as an attack of minimum norm may: the examples are of no use in the budget."""

    meta = AttackMeta(name="far-minimum", title="Far", kind="minimum_norm", norms=("linf",))

    def _perturb(self, target, images, labels, budget):
        return Far._perturb(Far(), target, images, labels, LINF)


def test_what_is_outside_the_budget_is_not_found() -> None:
    beyond = outcome_of(linear(), Far(), images=IMAGES[:3])
    assert (beyond.attack_success, beyond.verdict) == (0, "failed")
    assert "must be within linf 0.1 of the clean one, is 0.2 away" in beyond.error
    unbudgeted = outcome_of(linear(), FarOfMinimumNorm(), images=IMAGES[:3])
    assert (unbudgeted.attack_success, unbudgeted.error) == (0, None)


@pytest.mark.parametrize("budget", [LINF, L2], ids=str)
def test_the_examples_are_there_and_nothing_else_is(budget) -> None:
    settings = BinarizationSettings(n_inner=60, n_boundary=2)
    problem = problem_of(relu(), budget, settings)
    network, inner, boundary = problem.network, problem.inner, problem.boundary
    assert (inner.shape, boundary.shape) == ((60, 1, 8, 8), (2, 1, 8, 8))
    assert torch.equal(inner[:1], IMAGES[:1])
    assert network(inner).argmax(dim=1).tolist() == [0] * 60
    assert network(boundary).argmax(dim=1).tolist() == [1, 1]
    clean = IMAGES[:1]
    assert perturbation_norms(clean.expand_as(boundary), boundary, budget.norm) == pytest.approx(
        budget.eps, abs=TOLERANCE
    )
    assert float(perturbation_norms(clean.expand_as(inner), inner, budget.norm).max()) <= 0.95 * budget.eps + TOLERANCE
    assert float(perturbation_norms(clean.expand_as(inner), inner, budget.norm)[1:].min()) > 0


def problem_of(network, budget=LINF, settings=SETTINGS, image=IMAGES[:1], seed=0):
    generator = torch.Generator().manual_seed(seed)
    return make_problem(LinearInputs(network, image), image, budget, settings=settings, generator=generator)


@pytest.mark.parametrize(("budget", "white"), [(LINF, 0.9), (L2, 0.5)], ids=str)
def test_the_edge_is_reached_although_the_box_cuts_off_most_directions(budget, white) -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., : int(8 * white)] = 1.0
    boundary = problem_of(linear(), budget, image=image).boundary
    assert boundary.min() >= 0
    assert boundary.max() <= 1
    assert float(perturbation_norms(image, boundary, budget.norm)) == pytest.approx(budget.eps, abs=TOLERANCE)


def test_closeness_is_how_much_of_the_way_the_boundary_has_moved() -> None:
    margins = []
    for closeness in (0.5, 0.9, 0.99):
        problem = problem_of(linear(), settings=BinarizationSettings(n_inner=50, closeness=closeness))
        edge, clean = (float(problem.network(x)[0].diff()) for x in (problem.boundary, problem.inner[:1]))
        margins.append(edge / (edge - clean))
    assert margins[0] > 4 * margins[1] > 16 * margins[2] > 0


def test_the_logits_spread_as_far_as_the_networks_own() -> None:
    for factor in (1.0, 30.0):
        network = nn.Sequential(*relu(), Step(lambda x, factor=factor: factor * x))
        problem = problem_of(network)
        points = torch.cat([problem.inner, problem.boundary])
        own, new = network(points).detach(), problem.network(points).detach()
        assert float(new.max() - new.min()) == pytest.approx(float(own.max() - own.min()), rel=1e-4)


def test_the_same_seed_gives_the_same_result_and_another_another() -> None:
    weak = PGD(PGDSettings(steps=3, rel_stepsize=0.2))
    assert outcome_of(relu(), weak) == outcome_of(relu(), weak)
    first, again, other = (problem_of(relu(), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.boundary, again.boundary)
    assert torch.equal(first.network(IMAGES), again.network(IMAGES))
    assert not torch.equal(first.boundary, other.boundary)


def test_global_random_numbers_stay_where_they_were() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    outcome_of(linear(), images=IMAGES[:1])
    assert torch.equal(torch.rand(1), expected)


def test_features_that_do_not_vary_are_a_failed_setup_and_say_nothing() -> None:
    found = outcome_of(nn.Sequential(Step(lambda x: x.round()), *linear()), images=torch.full((3, 1, 8, 8), 0.8))
    assert (found.n_images, found.n_setup_failed, found.n_tested) == (3, 3, 0)
    assert (found.attack_success, found.random_success) == (None, None)
    assert (found.verdict, found.passed) == ("inconclusive", False)


def test_points_that_no_plane_parts_are_a_failed_setup() -> None:
    """In one dimension the point on the edge lies on either side, and half of the time another is beyond it."""
    one = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False), nn.Linear(1, 3))
    with torch.no_grad():
        one[1].weight.copy_(torch.linspace(-1, 1, 64).view(1, -1))
    assert outcome_of(one).n_setup_failed > 6


def result(success, chance) -> BinarizationResult:
    return BinarizationResult(
        attack="pgd",
        n_images=10,
        n_setup_failed=0,
        attack_success=success,
        random_success=chance,
        required_success=0.95,
    )


@pytest.mark.parametrize(
    ("success", "chance", "verdict"),
    [
        (0.95, 0.0, "passed"),
        (0.94, 0.0, "failed"),
        (1.0, 0.5, "passed"),
        (1.0, 0.6, "inconclusive"),
        (0.2, 0.9, "failed"),
        (None, None, "inconclusive"),
    ],
)
def test_the_verdict_weighs_the_attack_against_chance(success, chance, verdict) -> None:
    found = result(success, chance)
    assert (found.verdict, found.passed) == (verdict, verdict == "passed")


def test_where_chance_finds_the_example_too_nothing_is_said() -> None:
    """One pixel, of which an eighth of the budget is of class 1."""
    pixel = seeded(0, lambda: nn.Sequential(nn.Flatten(), nn.Linear(1, 3)))
    settings = BinarizationSettings(n_inner=1, closeness=0.5)
    found = outcome_of(pixel, images=IMAGES[..., :1, :1], settings=settings)
    assert (found.attack_success, found.random_success) == (1, 1)
    assert (found.verdict, found.passed) == ("inconclusive", False)


class Guarded(Detecting):
    """Rejects images whose mean has moved from that of the first one."""

    def __init__(self, network: nn.Module, tolerance: float) -> None:
        super().__init__()
        self.network = network
        self.tolerance = tolerance

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def rejections(self, x: Tensor) -> Tensor:
        moved = (x.flatten(1).mean(dim=1) - IMAGES[0].mean()).abs()
        return (moved / self.tolerance - 1).unsqueeze(1)


def test_examples_behind_detectors_are_accepted_and_must_be_found_accepted() -> None:
    guarded = Guarded(relu(), tolerance=0.004)
    problem = problem_of(guarded)
    assert float(problem.network.rejections(problem.boundary)) <= 0
    blind = outcome_of(guarded, images=IMAGES[:1])
    aware = outcome_of(guarded, DetectorPGD(), images=IMAGES[:1])
    assert (blind.attack_success, aware.attack_success) == (0, 1)


def test_detectors_that_reject_every_point_on_the_edge_leave_nothing_to_find() -> None:
    assert problem_of(Guarded(relu(), tolerance=1e-9)) is None


@pytest.mark.parametrize(
    ("attack", "budget", "sentence"),
    [
        (PGD(), Budget(norm="l0", eps=3), "the binarisation test is for budgets in linf or l2, got l0 3"),
        (PGD(), Budget(norm="l2"), "for budgets in linf or l2, got l2 unbudgeted"),
        (DeepFool(), LINF, "attack 'deepfool' works in l2, not in linf"),
        (LatentSpace(), LINF, "attack 'latent' searches the latents of a generator"),
    ],
)
def test_what_the_test_is_not_for_is_refused(attack, budget, sentence) -> None:
    with pytest.raises(ConfigError, match=sentence):
        outcome_of(linear(), attack, budget)
    with pytest.raises(ConfigError, match="at least one image, got none"):
        outcome_of(linear(), images=IMAGES[:0])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("n_inner", 0, "n_inner must be at least 1, got 0"),
        ("n_boundary", 0, "n_boundary must be at least 1, got 0"),
        ("random_draws", -1, "random_draws must be at least 1, got -1"),
        ("eta", 1.0, r"eta must be in \(0, 1\), got 1.0"),
        ("closeness", 0.0, r"closeness must be in \(0, 1\), got 0.0"),
        ("required_success", 1.1, r"required_success must be in \(0, 1\], got 1.1"),
    ],
)
def test_settings_out_of_range_are_refused(name, value, expected) -> None:
    with pytest.raises(ConfigError, match=expected):
        BinarizationSettings(**{name: value})


def features_of(network: nn.Module) -> Tensor:
    return LinearInputs(network, IMAGES[:1])(IMAGES)[0]


def test_the_features_are_what_the_last_linear_layer_reads() -> None:
    network = relu()
    assert torch.equal(features_of(network), network[:3](IMAGES))
    assert torch.equal(features_of(linear()), IMAGES.flatten(1))


def test_those_of_an_ensemble_are_every_members() -> None:
    one, other = relu(1), relu(2)
    expected = torch.cat([one[:3](IMAGES), other[:3](IMAGES)], dim=1)
    for surrogate in (LogMeanProbability([one, other]), SumOfMargins([one, other])):
        assert torch.equal(features_of(surrogate), expected)


def test_layers_in_a_step_before_the_network_are_not_the_last() -> None:
    blurred = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Unflatten(1, (1, 8, 8)))
    network = relu()
    assert torch.equal(features_of(BPDA(blurred, network)), network[:3](blurred(IMAGES)))


class Shortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x.flatten(1)[:, :3]


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(Shortcut(), id="a way past the layer"),
        pytest.param(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), id="no linear layer"),
    ],
)
def test_the_logits_are_the_features_where_no_linear_layer_has_them_all(network) -> None:
    assert torch.equal(features_of(network), network(IMAGES))


def test_a_network_without_gradients_has_the_last_layer_it_runs() -> None:
    network = relu().requires_grad_(False)
    assert torch.equal(features_of(nn.Sequential(Step(Tensor.detach), *network)), network[:3](IMAGES))


def test_features_keep_the_graph_back_to_the_image() -> None:
    network, x = relu(), IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(LinearInputs(network, IMAGES[:1])(x)[0].sum(), x)
    (expected,) = torch.autograd.grad(network[:3](x).sum(), x)
    assert torch.equal(gradient, expected)


class Alternating(nn.Module):
    """Runs one layer for a single image and two for several."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.second(x if len(x) == 1 else self.first(x))


def test_other_layers_for_other_images_are_no_features() -> None:
    with pytest.raises(AttackError, match="this one runs 1 of them on one image and 2 on 12 others"):
        features_of(Alternating())
