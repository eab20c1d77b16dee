"""AutoAttack (Croce and Hein 2020) from pyautoattack, with its failures kept away from the numbers.

The sub-attacks are the library's; what decides which of them run, on which images, and what comes back is
written here, since the library's own loop counts calls in process-wide state, drops tracers (coverage,
debuggers), asks the clock for a seed and breaks below ten classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor

from dkd_bench.attacks._base import Attack, AttackMeta
from dkd_bench.attacks._checks import require_positive
from dkd_bench.budget import Budget
from dkd_bench.target import Target

_log = logging.getLogger(__name__)

_NORMS = {"linf": "Linf", "l2": "L2"}
"""Names that the library gives to our norms."""

_CLASSES_FOR_DLR = 3
_CLASSES_FOR_TARGETED_DLR = 4
"""Number of classes that the targeted DLR loss needs: it divides by differences to the third and fourth logit."""


class _FlagsToDebug:
    """Adapter that takes the library's flags, text about one batch that it would print, as debug messages."""

    def warning(self, message: str) -> None:
        _log.debug(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoAttackSettings:
    """Parameters of AutoAttack's standard version; the defaults are the library's.

    Raises:
        ConfigError: if a number is not positive.
    """

    apgd_steps: int = 100
    apgd_restarts: int = 1
    apgd_rho: float = 0.75
    target_classes: int = 9
    """Number of classes that APGD-T and FAB-T aim at, likeliest first; at most all but the label."""
    fab_steps: int = 100
    fab_restarts: int = 1
    fab_alpha_max: float = 0.1
    fab_eta: float = 1.05
    fab_beta: float = 0.9
    square_queries: int = 5000
    square_restarts: int = 1
    square_p_init: float = 0.8

    def __post_init__(self) -> None:
        require_positive(self, *(name for name in self.__dataclass_fields__))


@final
class AutoAttackStandard(Attack):
    """APGD-CE, targeted APGD, targeted FAB and Square in turn, each on the images that still stand.

    An image that the target never gets wrong comes back as APGD-CE's point of highest loss, not as it was:
    a judge other than the target (a vote, another network) would else see a clean image and call it survival.
    For the same reason an image that the target gets wrong when clean, which the library never touches, comes
    back as that point too. Forward passes for an image that is never misclassified: 7858 with ten classes.
    """

    meta = AttackMeta(
        name="autoattack",
        title="AutoAttack",
        kind="fixed",
        libraries=("pyautoattack",),
        applies_to="deterministic",
    )
    Settings: ClassVar[type[Any]] = AutoAttackSettings

    def variant(self, n_classes: int) -> Sequence[str]:
        """Return the names of the attacks run against ``n_classes``, in order; APGD-T needs four classes."""
        if n_classes < _CLASSES_FOR_TARGETED_DLR:
            return ("apgd-ce", "fab-t", "square")
        return ("apgd-ce", "apgd-t", "fab-t", "square")

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return misclassified images where there are any, else points of highest loss, all in the budget."""
        settings: AutoAttackSettings = self.settings
        with torch.no_grad():
            right = target(images).argmax(dim=1) == labels
            apgd = APGDAttack(
                target,
                n_iter=settings.apgd_steps,
                rho=settings.apgd_rho,
                loss="ce",
                logger=_FlagsToDebug(),
                **_shared(images, budget),
            )
            adversarial = images.clone()
            if right.any():
                points = _search(apgd, images[right], labels[right], restarts=settings.apgd_restarts)
                adversarial[right] = points.fooling_else_highest
            if not right.all():
                points = _search(apgd, images[~right], labels[~right], restarts=settings.apgd_restarts)
                adversarial[~right] = points.highest
            for name in self.variant(target.n_classes)[1:]:
                standing = right & (target(adversarial).argmax(dim=1) == labels)
                if not standing.any():
                    break
                attack = self._library_attack(name, target, images, budget)
                found = attack.perturb(images[standing], labels[standing])
                fooled = target(found).argmax(dim=1) != labels[standing]
                adversarial[standing] = _choose(fooled, found, adversarial[standing])
        return adversarial

    def _library_attack(self, name: str, target: Target, images: Tensor, budget: Budget) -> Any:
        settings: AutoAttackSettings = self.settings
        shared = {
            **_shared(images, budget),
            "n_target_classes": min(settings.target_classes, target.n_classes - 1),
        }
        if name == "apgd-t":
            return APGDAttack_targeted(
                target,
                n_iter=settings.apgd_steps,
                n_restarts=settings.apgd_restarts,
                rho=settings.apgd_rho,
                logger=_FlagsToDebug(),
                **shared,
            )
        if name == "fab-t":
            return FABAttack_PT(
                target,
                n_iter=settings.fab_steps,
                n_restarts=settings.fab_restarts,
                alpha_max=settings.fab_alpha_max,
                eta=settings.fab_eta,
                beta=settings.fab_beta,
                targeted=True,
                **shared,
            )
        assert name == "square", f"variant() names {name}, which nobody builds"
        return SquareAttack(
            target,
            n_queries=settings.square_queries,
            n_restarts=settings.square_restarts,
            p_init=settings.square_p_init,
            resc_schedule=False,
            **_shared(images, budget),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoAttackRandSettings:
    """Parameters of AutoAttack's version for randomised defences; the first four defaults are the library's.

    Raises:
        ConfigError: if a number is not positive.
    """

    apgd_steps: int = 100
    apgd_restarts: int = 1
    apgd_rho: float = 0.75
    eot_iter: int = 20
    """Number of draws of the defence that a gradient is averaged over."""
    selection_draws: int = 20
    """Number of fresh draws over which the candidates for each image are compared."""

    def __post_init__(self) -> None:
        require_positive(self, *(name for name in self.__dataclass_fields__))


@final
class AutoAttackRand(Attack):
    """APGD on cross-entropy and on DLR with gradients averaged over draws, for randomised defences.

    The library decides by one draw which images are attacked at all and which points count as found. Here all
    images are attacked, and the clean image, both losses' highest points and their last misclassified points
    compete over fresh draws: what is misclassified most often comes back. Forward passes for each image: 4140
    with the default parameters, times the target's own draws.
    """

    meta = AttackMeta(
        name="autoattack-rand",
        title="AutoAttack (rand)",
        kind="fixed",
        libraries=("pyautoattack",),
        applies_to="randomized",
        averages_draws=True,
    )
    Settings: ClassVar[type[Any]] = AutoAttackRandSettings

    def variant(self, n_classes: int) -> Sequence[str]:
        """Return the names of the attacks run against ``n_classes``, in order; two classes have no DLR loss."""
        return ("apgd-ce",) if n_classes < _CLASSES_FOR_DLR else ("apgd-ce", "apgd-dlr")

    def _perturb(self, target: Target, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """Return for each image the candidate that is misclassified most often."""
        settings: AutoAttackRandSettings = self.settings
        with torch.no_grad():
            candidates = [images]
            for name in self.variant(target.n_classes):
                apgd = APGDAttack(
                    target,
                    n_iter=settings.apgd_steps,
                    rho=settings.apgd_rho,
                    eot_iter=settings.eot_iter,
                    loss=name.removeprefix("apgd-"),
                    logger=_FlagsToDebug(),
                    **_shared(images, budget),
                )
                points = _search(apgd, images, labels, restarts=settings.apgd_restarts)
                candidates += [points.highest, points.fooling_else_highest]
            return _most_often_wrong(target, candidates, labels, draws=settings.selection_draws)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Points:
    """Points that APGD found for each image."""

    highest: Tensor
    """Point of highest loss, whether it fools or not."""
    fooling_else_highest: Tensor
    """Last misclassified point, which is what the library returns; ``highest`` where there is none."""


def _search(apgd: APGDAttack, images: Tensor, labels: Tensor, *, restarts: int) -> _Points:
    """Run APGD on every image, whatever the target says of it; one run yields both points that are wanted."""
    # Not the library's perturb: it passes over images that one answer gets wrong, and returns one of the two points.
    apgd.init_hyperparam(images)
    highest, highest_loss = images, torch.full(labels.shape, -torch.inf, device=images.device)
    fooling, fooled = images, torch.zeros_like(labels, dtype=torch.bool)
    for _ in range(restarts):
        point, still_right, loss, last_fooling = apgd.attack_single_run(images, labels)
        better = loss > highest_loss
        highest, highest_loss = _choose(better, point, highest), torch.where(better, loss, highest_loss)
        fooling, fooled = _choose(~fooled & ~still_right, last_fooling, fooling), fooled | ~still_right
    return _Points(highest=highest, fooling_else_highest=_choose(fooled, fooling, highest))


def _most_often_wrong(target: Target, candidates: list[Tensor], labels: Tensor, *, draws: int) -> Tensor:
    """Return for each image the candidate with most misclassified draws, the least sure one among equals."""
    best, best_score = candidates[0], torch.full(labels.shape, -torch.inf, device=labels.device)
    for candidate in candidates:
        logits = torch.stack([target(candidate) for _ in range(draws)])
        wrong_draws = (logits.argmax(dim=2) != labels).sum(dim=0)
        own_probability = logits.softmax(dim=2).mean(dim=0).gather(1, labels.unsqueeze(1)).squeeze(1)
        # Half at most, so that the probability decides only among equally many wrong draws.
        score = wrong_draws - own_probability / 2
        better = score > best_score
        best, best_score = _choose(better, candidate, best), torch.where(better, score, best_score)
    return best


def _choose(mask: Tensor, these: Tensor, others: Tensor) -> Tensor:
    """Return ``these`` images where ``mask``, else ``others``."""
    return torch.where(mask.view(-1, 1, 1, 1), these, others)


def _shared(images: Tensor, budget: Budget) -> dict[str, Any]:
    """Return the arguments of every sub-attack; without a seed the library would ask the clock."""
    return {
        "norm": _NORMS[budget.norm],
        "eps": budget.eps,
        "seed": torch.initial_seed(),
        "device": images.device,
    }
