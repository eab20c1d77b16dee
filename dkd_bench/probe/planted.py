"""The binarisation test: whether an attack finds examples that are known to exist (Zimmermann et al. 2022).

Around each clean image points are drawn: many inside the budget, one on its edge. A linear read-out on the frozen
features of the network tells the two kinds apart, and its boundary is moved up to the point on the edge. So there is
a network with the defence's own layers and an adversarial example in the budget; an attack that works must find it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from dkd_bench.attacks import Attack
from dkd_bench.budget import TOLERANCE, Budget, Norm, check_images, perturbation_norms
from dkd_bench.errors import AttackError, ConfigError, EvidenceError, FieldName
from dkd_bench.probe.features import LinearInputs
from dkd_bench.probe.plane import parting_plane
from dkd_bench.progress import Progress, SilentProgress
from dkd_bench.target import AUTO_BATCH_SIZE, Target
from dkd_bench.target.randomness import isolated_randomness
from dkd_bench.target.surrogates import Detecting

Verdict = Literal["passed", "failed", "inconclusive"]

MOST_BY_CHANCE = 0.5
"""Share of images whose example random draws may find; beyond it, finding them says nothing of the attack."""
NORMS: tuple[Norm, ...] = ("linf", "l2")

_CANDIDATES = 10
"""Number of points on the edge that are drawn for each one wanted: detectors may reject some."""
_FARTHEST = 1e4
"""Length, over the distance wanted, up to which a direction is searched for a clipped image that is that far away."""
_HALVINGS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class BinarizationSettings:
    """Parameters of the binarisation test; the defaults are the paper's usual ones.

    Raises:
        ConfigError: if a number is out of range.
    """

    n_inner: int = 999
    """Number of points inside the budget, the clean image among them."""
    n_boundary: int = 1
    """Number of points on its edge; all of them are adversarial examples."""
    eta: float = 0.95
    """Share of the budget, in (0, 1), within which the inner points lie."""
    closeness: float = 0.999
    """Share of the way, in (0, 1), that the boundary is moved towards the nearest point on the edge."""
    random_draws: int = 200
    """Number of points of the budget that chance has for each image."""
    required_success: float = 0.95
    """Share of the images whose example the attack must find, in (0, 1]."""
    draws: int = 1
    """Number of evaluations averaged in each answer that the attack sees, for a randomised network (EOT)."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_inner", "n_boundary", "random_draws", "draws"):
            if getattr(self, name) < 1:
                raise ConfigError(f"the binarisation test's {name} must be at least 1, got {getattr(self, name)}")
        for name in ("eta", "closeness"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"the binarisation test's {name} must be in (0, 1), got {getattr(self, name)}")
        if not 0 < self.required_success <= 1:
            raise ConfigError(
                f"the binarisation test's required_success must be in (0, 1], got {self.required_success}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BinarizationResult:
    """Result of an attack on the examples that were put there for it to find."""

    attack: str
    n_images: int
    n_setup_failed: int
    """Number of images for which no read-out separates the points; they count for nothing."""
    attack_success: float | None
    """Share of the other images whose example the attack found; ``None`` if there is no other."""
    random_success: float | None
    """Share of the other images on which one of the random draws is such an example."""
    required_success: float
    error: str | None = None
    """Description of what went wrong where the attack failed to run, or left the budget: it found nothing there."""

    @property
    def n_tested(self) -> int:
        """Number of images that count."""
        return self.n_images - self.n_setup_failed

    @property
    def verdict(self) -> Verdict:
        """Verdict of the numbers: inconclusive without any image set up, or if chance finds most examples too."""
        if self.attack_success is None or self.random_success is None:
            return "inconclusive"
        if self.attack_success < self.required_success:
            return "failed"
        return "inconclusive" if self.random_success > MOST_BY_CHANCE else "passed"

    @property
    def passed(self) -> bool:
        """Whether the attack finds what there is to find, and chance does not."""
        return self.verdict == "passed"


@final
class Binarized(nn.Module):
    """Network of frozen features under a linear read-out with two classes: 0 inside, 1 on the edge."""

    weight: Tensor

    def __init__(self, reader: LinearInputs, weight: Tensor, bias: float) -> None:
        """Read ``reader``'s features by ``weight``, float64, shape ``(D,)``, and ``bias``."""
        super().__init__()
        self.reader = reader
        self.bias = bias
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return two logits of opposite sign for each image, float64, shape ``(N, 2)``."""
        features, _ = self.reader(x)
        score = features.double() @ self.weight + self.bias
        return torch.stack([-score, score], dim=1)


@final
class DetectingBinarized(Detecting):
    """A binarised network behind the detectors of the surrogate that it is made from."""

    def __init__(self, binarized: Binarized, surrogate: Detecting) -> None:
        """Classify by ``binarized``, reject as ``surrogate`` does."""
        super().__init__()
        self.binarized = binarized
        self.surrogate = surrogate

    def forward(self, x: Tensor) -> Tensor:
        """Return two logits for each image, shape ``(N, 2)``."""
        logits: Tensor = self.binarized(x)
        return logits

    def rejections(self, x: Tensor) -> Tensor:
        """Return the excess of the surrogate's detectors, shape ``(N, D)``."""
        return self.surrogate.rejections(x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One clean image and a network that is known to have an adversarial example in the budget."""

    network: nn.Module
    """Network with logits ``(N, 2)``: class 0 for the image and all inner points, class 1 for the points on the
    edge."""
    inner: Tensor
    """Inner points, the clean image first, shape ``(n_inner, C, H, W)``."""
    boundary: Tensor
    """Adversarial examples, shape ``(n_boundary, C, H, W)``."""


def binarization_test(
    surrogate: nn.Module,
    images: Tensor,
    attack: Attack,
    budget: Budget,
    *,
    settings: BinarizationSettings,
    progress: Progress | None = None,
) -> BinarizationResult:
    """Return the share of images for which ``attack`` finds an example that was put into the budget.

    Args:
        surrogate: what the attack sees of a defence, on its device, in evaluation mode.
        images: clean, float32 in [0, 1], shape ``(N, C, H, W)``.
        attack: with the parameters that it has in a run. One of minimum norm must find a point within the budget.
        budget: in linf or l2, with an eps.
        settings: how the test is set up.
        progress: where the test reports to.

    Raises:
        ConfigError: if there is no image, or the attack or the budget is not one that the test is for.
        AttackError: if the surrogate has no layers that can be read.
    """
    require_testable(attack, budget)
    if not len(images):
        told = "the binarisation test needs at least one image, got none; ask for more with "
        raise ConfigError(told, FieldName("n_examples"))
    surrogate.eval()
    reader = LinearInputs(surrogate, images[:1])
    task = (progress or SilentProgress()).start(f"binarisation test of {attack.meta.name}", len(images))
    found: list[bool] = []
    by_chance: list[bool] = []
    error = None
    for seed, image in enumerate(images.split(1), start=settings.seed):
        problem, solved_by_chance = _planted(reader, image, budget, settings, seed=seed)
        if problem is not None:
            by_chance.append(solved_by_chance)
            success, failure = _tried(attack, problem, budget, draws=settings.draws, seed=seed)
            found.append(success)
            error = error or failure
        task.advance(note=f"{sum(found)} of {len(found)} examples found")
    return BinarizationResult(
        attack=attack.meta.name,
        n_images=len(images),
        n_setup_failed=len(images) - len(found),
        attack_success=_share(found),
        random_success=_share(by_chance),
        required_success=settings.required_success,
        error=error,
    )


def _planted(
    reader: LinearInputs, image: Tensor, budget: Budget, settings: BinarizationSettings, *, seed: int
) -> tuple[Problem | None, bool]:
    """Return the problem of an image, if there is one, and whether random points of the budget solve it."""
    generator = torch.Generator().manual_seed(seed)
    with isolated_randomness(seed):
        problem = make_problem(reader, image, budget, settings=settings, generator=generator)
        if problem is None:
            return None, False
        draws = _in_ball(image, settings.random_draws, budget, 1.0, generator)
        return problem, bool(_successes(problem.network, draws).any())


def require_testable(attack: Attack, budget: Budget) -> None:
    """Raise ConfigError unless the test says something of ``attack`` in ``budget``."""
    name = attack.meta.name
    if budget.norm not in NORMS or budget.eps is None:
        raise ConfigError(f"the binarisation test is for budgets in {' or '.join(NORMS)}, got {budget}; give one")
    if attack.meta.access == "generator":
        raise ConfigError(
            f"attack {name!r} searches the latents of a generator, where the binarisation test puts no example; "
            "test with one that searches images, such as pgd"
        )
    if budget.norm not in attack.meta.norms:
        raise ConfigError(f"attack {name!r} works in {', '.join(attack.meta.norms)}, not in {budget.norm}")


def make_problem(
    reader: LinearInputs,
    image: Tensor,
    budget: Budget,
    *,
    settings: BinarizationSettings,
    generator: torch.Generator,
) -> Problem | None:
    """Return a network with a known adversarial example for ``image``, shape ``(1, C, H, W)``.

    ``None`` if there is none: no point on the edge is accepted by the detectors, or no plane separates the features.
    """
    boundary = _on_edge(reader.network, image, budget, settings.n_boundary, generator)
    if len(boundary) < settings.n_boundary:
        return None
    inner = torch.cat([image, _in_ball(image, settings.n_inner - 1, budget, settings.eta, generator)])
    points = torch.cat([inner, boundary])
    with torch.no_grad():
        answers = [reader(piece) for piece in points.split(AUTO_BATCH_SIZE)]
    features = torch.cat([piece for piece, _ in answers]).double()
    logits = torch.cat([piece for _, piece in answers]).double()
    if not (torch.isfinite(features).all() and torch.isfinite(logits).all()):
        return None
    plane = parting_plane(features.cpu().numpy(), len(boundary), settings.closeness)
    scale = float(logits.max() - logits.min()) / 2
    if plane is None or not scale:
        return None
    # The paper's adaptive scale: the two logits spread as far as the network's own, saturated as far as they are.
    weight = torch.from_numpy(plane[0] * scale).to(features.device)
    network: nn.Module = Binarized(reader, weight, plane[1] * scale)
    if isinstance(reader.network, Detecting):
        network = DetectingBinarized(network, reader.network)  # type: ignore[arg-type]
    expected = torch.arange(len(points), device=features.device) >= len(inner)
    if not torch.equal(_answers(network, points) == 1, expected):
        return None
    return Problem(network=network.eval(), inner=inner, boundary=boundary)


def _tried(attack: Attack, problem: Problem, budget: Budget, *, draws: int, seed: int) -> tuple[bool, str | None]:
    """Return whether the attack finds the example, and why it failed where it did."""
    try:
        return _finds(attack, problem, budget, draws=draws, seed=seed), None
    except (AttackError, EvidenceError) as failure:
        return False, str(failure)


def _finds(attack: Attack, problem: Problem, budget: Budget, *, draws: int, seed: int) -> bool:
    image = problem.inner[:1]
    target = Target(problem.network, name="the binarised network", n_classes=2, draws=draws)
    given = Budget(norm=budget.norm) if attack.meta.kind == "minimum_norm" else budget
    label = torch.zeros(1, dtype=torch.int64, device=image.device)
    adversarial = attack.run(target, image, label, given, seed=seed)
    check_images(image, adversarial, given, source=f"attack {attack.meta.name!r} on {target.name}")
    assert budget.eps is not None, "require_testable refuses a budget without eps"
    within = float(perturbation_norms(image, adversarial, budget.norm)[0]) <= budget.eps + TOLERANCE
    with isolated_randomness(seed):
        return within and bool(_successes(problem.network, adversarial)[0])


def _successes(network: nn.Module, points: Tensor) -> Tensor:
    """Return the points that are of class 1 and pass the detectors, bool, shape ``(N,)``."""
    return (_answers(network, points) == 1) & _accepted(network, points)


@torch.no_grad()
def _answers(network: nn.Module, points: Tensor) -> Tensor:
    return torch.cat([network(piece).argmax(dim=1) for piece in points.split(AUTO_BATCH_SIZE)])


@torch.no_grad()
def _accepted(network: nn.Module, points: Tensor) -> Tensor:
    if not isinstance(network, Detecting):
        return torch.ones(len(points), dtype=torch.bool, device=points.device)
    excess = [network.rejections(piece) for piece in points.split(AUTO_BATCH_SIZE)]
    return ~(torch.cat(excess) > 0).any(dim=1)


def _in_ball(image: Tensor, number: int, budget: Budget, share: float, generator: torch.Generator) -> Tensor:
    """Return points drawn evenly from ``share`` of the budget around ``image``, then clipped to the box."""
    assert budget.eps is not None, "require_testable refuses a budget without eps"
    shape = (number, *image.shape[1:])
    if budget.norm == "linf":
        offsets = 2 * torch.rand(shape, generator=generator) - 1
    else:
        # Volume grows with the radius to the power of the dimension, hence the root.
        radii = torch.rand(number, generator=generator) ** (1 / image[0].numel())
        offsets = _directions(shape, "l2", generator).float() * radii.view(-1, 1, 1, 1)
    return (image + share * budget.eps * offsets.to(image)).clamp(0, 1)


def _on_edge(network: nn.Module, image: Tensor, budget: Budget, number: int, generator: torch.Generator) -> Tensor:
    """Return up to ``number`` points in the box at just eps from ``image`` that the network's detectors accept."""
    assert budget.eps is not None, "require_testable refuses a budget without eps"
    shape = (number * (_CANDIDATES if isinstance(network, Detecting) else 1), *image.shape[1:])
    directions = _directions(shape, budget.norm, generator).to(image.device)
    clean = image.double().expand(shape)
    # The box clips values on the way, so the length of step that ends just eps away is searched by halving.
    low = directions.new_zeros(len(directions))
    high = torch.full_like(low, _FARTHEST * budget.eps)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        near = perturbation_norms(clean, _stepped(clean, directions, middle), budget.norm) < budget.eps
        low, high = torch.where(near, middle, low), torch.where(near, high, middle)
    points = _stepped(clean, directions, low).to(image.dtype)
    reached = perturbation_norms(image.expand(shape), points, budget.norm) >= budget.eps - TOLERANCE
    points = points[reached]
    return points[_accepted(network, points)][:number] if len(points) else points


def _stepped(clean: Tensor, directions: Tensor, lengths: Tensor) -> Tensor:
    return (clean + directions * lengths.view(-1, 1, 1, 1)).clamp(0, 1)


def _directions(shape: tuple[int, ...], norm: Norm, generator: torch.Generator) -> Tensor:
    """Return random directions of length 1 in ``norm``, float64."""
    if norm == "l2":
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    else:
        drawn = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
    return drawn / perturbation_norms(torch.zeros_like(drawn), drawn, norm).view(-1, 1, 1, 1)


def _share(outcomes: Sequence[bool]) -> float | None:
    return sum(outcomes) / len(outcomes) if outcomes else None
