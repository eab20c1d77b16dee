"""Interface of an attack, and the promise that its base class keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from dkd_bench.budget import Budget, Norm
from dkd_bench.errors import AttackError, ConfigError, DkdBenchError
from dkd_bench.plugins.settings import NoSettings, settings_as_json
from dkd_bench.records.environment import ENVIRONMENT_LIBRARIES
from dkd_bench.store.code import code_digest
from dkd_bench.store.digests import library_versions
from dkd_bench.target import Access, Target
from dkd_bench.target.randomness import isolated_randomness


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackMeta:
    """Declaration of an attack about itself; plan and fingerprint read it."""

    name: str
    title: str
    kind: Literal["fixed", "minimum_norm"]
    """How it uses a budget: ``fixed`` searches inside one; ``minimum_norm`` looks for the nearest misclassified
    image."""
    norms: tuple[Norm, ...] = ("linf", "l2")
    libraries: tuple[str, ...] = ()
    """Distributions whose versions are part of what the attack is. torch and numpy, which compute all attacks, are the
    environment: they need not be named, and count for none."""
    applies_to: Literal["any", "deterministic", "randomized"] = "any"
    """Kinds of defence that the attack is meant for; plan leaves it out for others."""
    averages_draws: bool = False
    """Whether the attack takes the expectation over a randomised target's draws by itself."""
    access: Access = "gradients"
    """Access that the attack needs to its target; plan leaves it out for targets that do not offer it."""
    single_step: bool = False
    """Whether it is one step and no search: what searches the same budget must do at least as well on every image."""
    effort: str | None = None
    """Setting, a whole number, of which twice as much must change nothing once the attack has converged."""


class Attack(ABC):
    """Searches for misclassified images near clean ones."""

    meta: ClassVar[AttackMeta]
    Settings: ClassVar[type[Any]] = NoSettings
    """Frozen, keyword-only dataclass with every parameter and its default."""

    def __init__(self, settings: Any = None) -> None:
        """Take the parameters; the defaults of ``Settings`` if none are given."""
        self.settings = self.Settings() if settings is None else settings

    @final
    def identity(self) -> dict[str, Any]:
        """Return the attack's identity: name, parameters, the libraries that define it, code.

        Where it runs is no part of it: see ``dkd_bench.records.environment``.
        """
        return {
            "name": self.meta.name,
            "parameters": settings_as_json(self.settings),
            "libraries": library_versions(*(set(self.meta.libraries) - ENVIRONMENT_LIBRARIES)),
            "code": code_digest(type(self)),
        }

    def variant(self, n_classes: int) -> Sequence[str]:
        """Return the parts of the attack that run against ``n_classes``, where that depends on it; else nothing."""
        return ()

    @final
    def run(self, target: Target, images: Tensor, labels: Tensor, budget: Budget, *, seed: int) -> Tensor:
        """Return adversarial images, float32, shape ``(N, C, H, W)``, one for each clean image, in order.

        An image for which nothing was found comes back as it was or, inside a budget, as the most promising
        point: a judge other than the target may fall for it. Budget and box are not repaired here:
        ``dkd_bench.budget.check_images`` refuses what breaks them. The same arguments give the same images.

        Raises:
            ConfigError: if the attack does not know the budget's norm or kind.
            AttackError: if the clean images leave [0, 1], or the attack fails or returns another shape or type.
        """
        self.check_budget(budget)
        if not ((images >= 0) & (images <= 1)).all():
            raise AttackError(
                f"attack {self.meta.name!r} must be given images in [0, 1], got values from "
                f"{float(images.min()):g} to {float(images.max()):g}; preprocess inside the defence's networks"
            )
        with isolated_randomness(seed), torch.enable_grad():
            try:
                adversarial = self._perturb(
                    target, images.clone(memory_format=torch.contiguous_format), labels.clone(), budget
                )
            except DkdBenchError:
                raise
            except Exception as error:
                raise AttackError(
                    f"attack {self.meta.name!r} on {target.name} failed: {type(error).__name__}: {error}"
                ) from error
        if not isinstance(adversarial, Tensor) or adversarial.shape != images.shape:
            got = tuple(adversarial.shape) if isinstance(adversarial, Tensor) else type(adversarial).__name__
            raise AttackError(f"attack {self.meta.name!r} must return images of shape {tuple(images.shape)}, got {got}")
        return adversarial.detach().to(torch.float32)

    @final
    def check_budget(self, budget: Budget) -> None:
        """Raise ConfigError unless the attack can work in ``budget``."""
        if budget.norm not in self.meta.norms:
            raise ConfigError(f"attack {self.meta.name!r} works in {', '.join(self.meta.norms)}, not in {budget.norm}")
        if (budget.eps is None) != (self.meta.kind == "minimum_norm"):
            raise ConfigError(
                f"attack {self.meta.name!r} is of kind {self.meta.kind} and cannot be crafted at {budget}"
            )

    @abstractmethod
    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return adversarial images; the global generators are seeded, gradients are on."""
