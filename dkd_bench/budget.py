"""How far an adversarial image may be from the clean one, and the check that refuses what is further."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from dkd_bench.errors import ConfigError, EvidenceError, FieldName

if TYPE_CHECKING:
    from torch import Tensor

Norm = Literal["linf", "l2", "l0"]
NORMS: tuple[Norm, ...] = get_args(Norm)

TOLERANCE = 1e-5
"""Distance by which rounding may carry a float32 image over its budget, in the budget's own unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A norm and the largest perturbation ``eps`` allowed in it, in [0, 1] pixel units.

    In l0 ``eps`` is the number of values that may change, each of them one channel of one pixel, by however much.
    ``eps`` is ``None`` for a minimum-norm attack that may go as far as it needs.

    Raises:
        ConfigError: if the norm is unknown, or ``eps`` not positive, in linf over 1, or in l0 not a whole number.
    """

    norm: Norm
    eps: float | None = None

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ConfigError(f"norm must be one of {', '.join(NORMS)}, got {self.norm!r}")
        if self.eps is None:
            return
        if self.norm == "l0" and not (self.eps >= 1 and float(self.eps).is_integer()):
            raise ConfigError(
                f"l0 eps must be a whole number, at least 1: how many values may change; got {self.eps}. "
                "A value is one channel of one pixel"
            )
        if not 0 < self.eps < float("inf"):
            raise ConfigError(f"eps must be positive and finite, in [0, 1] pixel units, got {self.eps}")
        if self.norm == "linf" and self.eps > 1:
            raise ConfigError(
                f"linf eps must be in (0, 1], since pixels are in [0, 1]; got {self.eps:g}. "
                f"Did you mean {self.eps:g}/255, that is ",
                FieldName("eps"),
                f" {self.eps / 255:.6g}?",
            )

    def __str__(self) -> str:
        return f"{self.norm} unbudgeted" if self.eps is None else f"{self.norm} {self.eps:g}"


def perturbation_norms(clean: Tensor, adversarial: Tensor, norm: Norm) -> Tensor:
    """Return the norm of each image's perturbation, shape ``(N,)``, in float64; in l0 every difference counts."""
    if norm == "l0":
        return (adversarial != clean).flatten(1).sum(dim=1).double()
    difference = (adversarial.double() - clean.double()).flatten(1)
    if norm == "linf":
        return difference.abs().amax(dim=1)
    return difference.square().sum(dim=1).sqrt()


def project(clean: Tensor, adversarial: Tensor, budget: Budget) -> Tensor:
    """Return ``adversarial`` pulled into the budget's ball around ``clean``, then into the [0, 1] box.

    Both shapes ``(N, C, H, W)``. In L2 the ball comes first, then the box, which never leaves the ball. In L0 the
    box comes first, so that nothing is spent on what it undoes; then the ``eps`` largest changes stay, of equal
    ones the first, and all other values are exactly the clean ones.
    """
    if budget.norm == "l0":
        return _largest_changes(clean, adversarial.clamp(0.0, 1.0), budget.eps)
    difference = adversarial - clean
    if budget.eps is not None and budget.norm == "linf":
        difference = difference.clamp(-budget.eps, budget.eps)
    elif budget.eps is not None:
        length = difference.flatten(1).square().sum(dim=1).sqrt().clamp_min(1e-12).view(-1, 1, 1, 1)
        difference = difference * (budget.eps / length).clamp_max(1.0)
    return (clean + difference).clamp(0.0, 1.0)


def check_images(clean: Tensor, adversarial: Tensor, budget: Budget, *, source: str) -> None:
    """Check count, shape, type, finiteness, the [0, 1] box and the budget of adversarial images.

    Args:
        clean: float32, shape ``(N, C, H, W)``.
        adversarial: of the same shape and type, in the same order.
        budget: that no perturbation may leave by more than ``TOLERANCE``.
        source: who made the images, for the message.

    Raises:
        EvidenceError: names the source, the first image at fault, what was expected and what was found.
    """
    if adversarial.shape != clean.shape or adversarial.dtype != clean.dtype:
        raise EvidenceError(
            f"{source}: expected {clean.dtype} images of shape {tuple(clean.shape)}, "
            f"got {adversarial.dtype} {tuple(adversarial.shape)}"
        )
    finite = adversarial.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        raise EvidenceError(f"{source}: image {_first(~finite)} has values that are not finite")
    lowest, highest = adversarial.flatten(1).amin(dim=1), adversarial.flatten(1).amax(dim=1)
    outside = (lowest < 0) | (highest > 1)
    if outside.any():
        image = _first(outside)
        raise EvidenceError(
            f"{source}: image {image} must have pixels in [0, 1], has {lowest[image]:.6g} to {highest[image]:.6g}"
        )
    if budget.eps is None:
        return
    norms = perturbation_norms(clean, adversarial, budget.norm)
    beyond = norms > budget.eps + TOLERANCE
    if beyond.any():
        image = _first(beyond)
        raise EvidenceError(
            f"{source}: image {image} must be within {budget.norm} {budget.eps:g} of the clean one, "
            f"is {norms[image]:.6g} away"
        )


def _largest_changes(clean: Tensor, adversarial: Tensor, number: float | None) -> Tensor:
    if number is None:
        return adversarial
    changes = (adversarial - clean).abs().flatten(1)
    largest = changes.argsort(dim=1, descending=True, stable=True)[:, : int(number)]
    kept = changes.new_zeros(changes.shape).scatter(1, largest, 1).bool().view_as(clean)
    return adversarial.where(kept, clean)


def _first(mask: Tensor) -> int:
    return int(mask.nonzero()[0])
