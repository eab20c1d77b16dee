"""Admission: a defence must keep its promises on clean images before any number of it is believed."""

from __future__ import annotations

import torch
from torch import Tensor

from dkd_bench.defense import ABSTAIN, NO_MAJORITY, Defense
from dkd_bench.errors import DkdBenchError, PluginError, UndeclaredRandomnessError


@torch.no_grad()
def admit(name: str, defense: Defense, images: Tensor) -> None:
    """Ask a trained defence about clean images and check its answers.

    Args:
        name: what the user calls the defence.
        defense: on its device, in evaluation mode.
        images: a few of the run's test images, float32, shape ``(N, C, H, W)``.

    Raises:
        PluginError: if the defence fails, answers in another form than it declares, gives logits that are not
            finite, the same answer to every image, or other answers when asked again without declaring it.
    """
    try:
        _check_members(name, defense, images)
        answers = _answers(name, defense, images, seed=0)
        again = _answers(name, defense, images, seed=1)
    except DkdBenchError:
        raise
    except Exception as error:
        raise PluginError(f"defence {name!r} fails on clean images: {type(error).__name__}: {error}") from error
    for rule, labels in answers.items():
        _check_labels(name, rule, labels, defense)
        if not defense.meta.randomized and not torch.equal(labels, again[rule]):
            raise UndeclaredRandomnessError(
                f"defence {name!r} answers differently when asked again but does not declare it; "
                "set randomized=True in its meta, or draw from the generator that predict is given"
            )


def _answers(name: str, defense: Defense, images: Tensor, *, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator(device=images.device).manual_seed(seed)
    answers = dict(defense.decide(images, generator=generator))
    for rule, labels in answers.items():
        if not isinstance(labels, Tensor) or labels.shape != images.shape[:1] or labels.dtype != torch.int64:
            got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise PluginError(
                f"defence {name!r} must answer with int64 labels of shape ({len(images)},) "
                f"under decision rule {rule!r}, got {got}"
            )
    return answers


def _check_labels(name: str, rule: str, labels: Tensor, defense: Defense) -> None:
    n_classes = defense.images.n_classes
    lowest = min(NO_MAJORITY, ABSTAIN)
    outside = labels[(labels < lowest) | (labels >= n_classes)]
    if len(outside):
        raise PluginError(
            f"defence {name!r} must answer with labels from 0 to {n_classes - 1}, ABSTAIN or NO_MAJORITY, "
            f"got {int(outside[0])}"
        )
    if not defense.meta.abstains and (labels == ABSTAIN).any():
        raise PluginError(f"defence {name!r} abstains but does not declare it; set abstains=True in its meta")
    if len(labels) > 1 and len(labels.unique()) == 1:
        answer = "ABSTAIN" if int(labels[0]) == ABSTAIN else str(int(labels[0]))
        raise PluginError(
            f"defence {name!r} gives the same answer, {answer}, to all {len(labels)} clean images "
            f"under decision rule {rule!r}; it does not classify"
        )


def _check_members(name: str, defense: Defense, images: Tensor) -> None:
    expected = (len(images), defense.images.n_classes)
    for position, member in enumerate(defense.members, start=1):
        logits = member(images)
        if not isinstance(logits, Tensor) or logits.shape != expected:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise PluginError(
                f"member {position} of defence {name!r} must return logits of shape {expected}, got {got}"
            )
        if not torch.isfinite(logits).all():
            raise PluginError(f"member {position} of defence {name!r} returns logits that are not finite")
