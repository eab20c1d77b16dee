"""Table of Foolbox's attacks: a row each, which is a class without code, after the settings that it takes.

A new one needs settings and a row here, and an entry point in ``pyproject.toml``; the tests find it by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from foolbox.attacks.ddn import DDNAttack
from foolbox.attacks.deepfool import L2DeepFoolAttack
from foolbox.attacks.fast_gradient_method import L2FastGradientAttack, LinfFastGradientAttack
from foolbox.attacks.projected_gradient_descent import (
    L2ProjectedGradientDescentAttack,
    LinfProjectedGradientDescentAttack,
)

from dkd_bench.attacks._base import AttackMeta
from dkd_bench.attacks._checks import require_positive
from dkd_bench.attacks.foolbox import _repaired
from dkd_bench.attacks.foolbox._wrapper import LIBRARIES, FoolboxAttack
from dkd_bench.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class FGSMSettings:
    """Parameters of FGSM."""

    random_start: bool = False


@final
class FGSM(FoolboxAttack):
    """One gradient step to the edge of the budget (Goodfellow et al. 2015), signed unless in L2."""

    meta = AttackMeta(name="fgsm", title="FGSM", kind="fixed", libraries=LIBRARIES, single_step=True)
    Settings: ClassVar[type[Any]] = FGSMSettings
    library: ClassVar = {"linf": LinfFastGradientAttack, "l2": L2FastGradientAttack}


@dataclass(frozen=True, slots=True, kw_only=True)
class PGDSettings:
    """Parameters of PGD.

    Raises:
        ConfigError: if a number is not positive, or restarts would all be the same.
    """

    steps: int = 40
    rel_stepsize: float = 0.0625
    """Length of one step in units of eps; 40 of them walk 2.5 eps, so every corner of the budget is in reach."""
    random_start: bool = True
    restarts: int = 1

    def __post_init__(self) -> None:
        require_positive(self, "steps", "rel_stepsize", "restarts")
        if self.restarts > 1 and not self.random_start:
            raise ConfigError(f"{self.restarts} restarts of PGD without random_start are all the same; set one of them")


@final
class PGD(FoolboxAttack):
    """Projected gradient ascent on the cross-entropy (Madry et al. 2018), best point of all steps."""

    meta = AttackMeta(name="pgd", title="PGD", kind="fixed", libraries=LIBRARIES, effort="steps")
    Settings: ClassVar[type[Any]] = PGDSettings
    library: ClassVar = {"linf": LinfProjectedGradientDescentAttack, "l2": L2ProjectedGradientDescentAttack}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepFoolSettings:
    """Parameters of DeepFool.

    Raises:
        ConfigError: if a number is out of range.
    """

    steps: int = 50
    candidates: int = 10
    """Number of likeliest classes that are tried, at most; each costs a forward and a backward pass a step."""
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        require_positive(self, "steps")
        if self.candidates < 2:
            raise ConfigError(
                f"candidates must be at least 2, the class to leave and one to reach, got {self.candidates}"
            )
        if self.overshoot < 0:
            raise ConfigError(f"overshoot must not be negative, got {self.overshoot}")


@final
class DeepFool(FoolboxAttack):
    """Nearest boundary in L2 by repeated linearisation (Moosavi-Dezfooli et al. 2016).

    Foolbox goes on for the whole batch until its last image is done, though those that are done no longer
    change. So a short run comes first, and the full one is for the images that it left: the same result.
    """

    meta = AttackMeta(name="deepfool", title="DeepFool", kind="minimum_norm", norms=("l2",), libraries=LIBRARIES)
    Settings: ClassVar[type[Any]] = DeepFoolSettings
    library: ClassVar = {"l2": L2DeepFoolAttack}
    short_steps = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class CarliniWagnerSettings:
    """Parameters of Carlini-Wagner.

    Far fewer steps than Foolbox's 9 x 10000, so the step is longer (black and white pixels start where tanh
    is flat, and short steps never leave it) and the search for the constant starts nearer to where it ends.
    On networks for the digits the median norm is within 2 % of that of 9 x 500 steps; images of thousands of
    pixels whose boundary is very near (L2 below 0.05) want a stepsize of 0.01.

    Raises:
        ConfigError: if a number is out of range.
    """

    binary_search_steps: int = 4
    steps: int = 100
    stepsize: float = 0.1
    initial_const: float = 0.1
    confidence: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "binary_search_steps", "steps", "stepsize", "initial_const")
        if self.confidence < 0:
            raise ConfigError(f"confidence must not be negative, got {self.confidence}")


@final
class CarliniWagner(FoolboxAttack):
    """Nearest misclassified image in L2 by Adam on margin and distance (Carlini and Wagner 2017)."""

    meta = AttackMeta(name="cw", title="Carlini-Wagner", kind="minimum_norm", norms=("l2",), libraries=LIBRARIES)
    Settings: ClassVar[type[Any]] = CarliniWagnerSettings
    library: ClassVar = {"l2": _repaired.CarliniWagner}


@dataclass(frozen=True, slots=True, kw_only=True)
class FMNSettings:
    """Parameters of FMN.

    Raises:
        ConfigError: if a number is out of range.
    """

    steps: int = 100
    max_stepsize: float = 1.0
    """Length of the first step, in L2 whatever the norm; the steps fall to ``min_stepsize`` along a cosine."""
    min_stepsize: float = 0.01
    gamma: float = 0.05
    """Share by which the norm allowed to a point first shrinks or grows, less and less as the steps do."""

    def __post_init__(self) -> None:
        require_positive(self, "steps", "min_stepsize", "gamma")
        if self.max_stepsize < self.min_stepsize:
            raise ConfigError(
                f"max_stepsize must not be under min_stepsize, got {self.max_stepsize} and {self.min_stepsize}"
            )
        if self.gamma >= 1:
            raise ConfigError(f"gamma must be under 1, a share of the norm, got {self.gamma}")


@final
class FMN(FoolboxAttack):
    """Nearest misclassified image in Linf, L2 or L0 by steps whose norm adapts (Pintor et al. 2021)."""

    meta = AttackMeta(name="fmn", title="FMN", kind="minimum_norm", norms=("linf", "l2", "l0"), libraries=LIBRARIES)
    Settings: ClassVar[type[Any]] = FMNSettings
    library: ClassVar = {"linf": _repaired.LinfFMN, "l2": _repaired.L2FMN, "l0": _repaired.L0FMN}


@dataclass(frozen=True, slots=True, kw_only=True)
class DDNSettings:
    """Parameters of DDN.

    Raises:
        ConfigError: if a number is out of range.
    """

    steps: int = 100
    init_epsilon: float = 1.0
    """Norm of the first point."""
    gamma: float = 0.05
    """Share by which the norm shrinks where a point is misclassified, and grows where it is not."""

    def __post_init__(self) -> None:
        require_positive(self, "steps", "init_epsilon", "gamma")
        if self.gamma >= 1:
            raise ConfigError(f"gamma must be under 1, a share of the norm, got {self.gamma}")


@final
class DDN(FoolboxAttack):
    """Nearest misclassified image in L2 by a direction and a norm of their own (Rony et al. 2019).

    Where a gradient vanishes Foolbox steps at random, so it is then that the seed counts.
    """

    meta = AttackMeta(name="ddn", title="DDN", kind="minimum_norm", norms=("l2",), libraries=LIBRARIES)
    Settings: ClassVar[type[Any]] = DDNSettings
    library: ClassVar = {"l2": DDNAttack}


ROWS: Mapping[str, type[FoolboxAttack]] = {row.meta.name: row for row in FoolboxAttack.__subclasses__()}
"""Every attack above by its name, in the order in which they stand."""
