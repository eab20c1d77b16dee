"""A handful of images as they are seen: clean, what was added, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from dkd_bench.defense import ABSTAIN, NO_MAJORITY
from dkd_bench.errors import ConfigError
from dkd_bench.plots._style import styled

Pixels = NDArray[np.float32]

_ANSWER_WORDS = {ABSTAIN: "rejected", NO_MAJORITY: "no majority"}
_ROWS = ("clean", "perturbation", "under attack")
_RIGHT, _WRONG = "#0072B2", "#D55E00"
_IMAGE_INCHES = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleImage:
    """One image before and after an attack; pixels in [0, 1], shape ``(C, H, W)``, C 1 or 3."""

    clean: Pixels
    adversarial: Pixels
    label: int
    clean_answer: int
    """The defence's label; ``ABSTAIN`` and ``NO_MAJORITY`` allowed."""
    answer: int
    """The same, under attack."""


def answer_word(answer: int) -> str:
    """Return a defence's answer for people: the label, or what it did instead of giving one."""
    return _ANSWER_WORDS.get(answer, str(answer))


@styled
def examples_figure(examples: Sequence[ExampleImage], *, title: str) -> Figure:
    """Return the images side by side; all perturbations on one scale, which its bar states.

    Of a colour image, each pixel's perturbation is that of the channel changed most.

    Raises:
        ConfigError: if there is no image to draw.
    """
    if not examples:
        raise ConfigError("expected at least one example to draw, got none")
    perturbations = [_signed(each) for each in examples]
    reach = max(float(np.abs(each).max()) for each in perturbations) or 1.0
    figure = Figure(figsize=(max(6.4, _IMAGE_INCHES * len(examples) + 1.9), 3 * _IMAGE_INCHES + 1.4))
    figure.set_layout_engine("constrained")
    figure.suptitle(title)
    axes = figure.subplots(3, len(examples), squeeze=False)
    for column, (example, perturbation) in enumerate(zip(examples, perturbations, strict=True)):
        clean, added, attacked = axes[:, column]
        _show(clean, example.clean)
        shown = added.imshow(perturbation, cmap="PuOr", vmin=-reach, vmax=reach, interpolation="nearest")
        _show(attacked, example.adversarial)
        clean.set_title(f"true: {example.label}\nanswer: {answer_word(example.clean_answer)}", fontsize=9)
        ink = _RIGHT if example.answer == example.label else _WRONG
        attacked.set_title(f"answer: {answer_word(example.answer)}", color=ink, fontsize=9)
    for panel in axes.flat:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(True)
        panel.spines[:].set_color("#bbbbbb")
    for panel, word in zip(axes[:, 0], _ROWS, strict=True):
        panel.set_ylabel(word)
    bar = figure.colorbar(shown, ax=axes, shrink=0.32, aspect=12)
    bar.set_label(f"added, at most {reach:.3g}\nof [0, 1] pixel units")
    return figure


def _signed(example: ExampleImage) -> Pixels:
    """Return what was added to each pixel, shape ``(H, W)``: of its channels, the one changed most."""
    added = example.adversarial - example.clean
    most = np.abs(added).argmax(axis=0, keepdims=True)
    signed: Pixels = np.take_along_axis(added, most, axis=0)[0]
    return signed


def _show(panel: Axes, pixels: Pixels) -> AxesImage:
    if len(pixels) == 1:
        return panel.imshow(pixels[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    return panel.imshow(pixels.transpose(1, 2, 0), interpolation="nearest")
