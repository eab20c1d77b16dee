"""Example images of one defence: clean, the perturbation, and the image under attack with the answers.

``gather_examples`` takes them from a run's evidence, ``examples_figure`` draws them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from torch import Tensor

from dkd_bench.defense import ABSTAIN, NO_MAJORITY, Defense
from dkd_bench.errors import ConfigError
from dkd_bench.plots._evidence import KeptChunk, LeftOutError, RunEvidence, attack_and_budget, crafted_under
from dkd_bench.plots._names import strongest_first
from dkd_bench.plots._style import styled
from dkd_bench.steps.plan import Trial

Pixels = NDArray[np.float32]

_ANSWER_WORDS = {ABSTAIN: "rejected", NO_MAJORITY: "no majority"}
_ROWS = ("clean", "perturbation", "under attack")
_RIGHT, _WRONG = "#0072B2", "#D55E00"
_IMAGE_INCHES = 1.25

EXAMPLES_OF_A_KIND = 3
"""Images shown that the attack broke, and as many that it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleImage:
    """One image before and after an attack; pixels in [0, 1], shape ``(C, H, W)``, C 1 or 3."""

    clean: Pixels
    adversarial: Pixels
    label: int
    clean_answer: int
    """Defence's label for the clean image; ``ABSTAIN`` and ``NO_MAJORITY`` allowed."""
    answer: int
    """Defence's label under attack; the same values allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplesData:
    """Images of one defence under one attack."""

    title: str
    threat_model: str
    images: tuple[ExampleImage, ...]
    """Images that the attack broke, then those that held."""


@dataclass(slots=True)
class _Shown:
    """Images chosen for a picture of examples."""

    broken: list[ExampleImage] = field(default_factory=list)
    held: list[ExampleImage] = field(default_factory=list)
    whole: bool = True
    """Whether they were chosen among all images of the run."""


def gather_examples(kept: RunEvidence, name: str) -> ExamplesData:
    """Return a few images of a run under the strongest threat model of which there is evidence.

    Raises:
        LeftOutError: if no attack on the defence has a number, or the evidence of none was kept.
        EvidenceError: if the evidence is not the run's.
    """
    trials = kept.trials(name)
    if not trials:
        raise LeftOutError(f"no attack on {name} has a number, so there are no examples to draw")
    order = strongest_first({trial.threat_model for trial in trials})
    trials = sorted(kept.fixed_first(trials), key=lambda trial: order.index(trial.threat_model))
    for trial in trials:
        shown = _shown(kept, trial)
        if shown.broken or shown.held:
            title = (
                f"{name}: {attack_and_budget(trial)}, {trial.threat_model}; {kept.ground()}\n"
                f"of the images right when clean{'' if shown.whole else ' whose evidence is kept'}, "
                f"the first {len(shown.broken)} that it broke and the first {len(shown.held)} that held"
            )
            return ExamplesData(title=title, threat_model=trial.threat_model, images=(*shown.broken, *shown.held))
    raise kept.unkept(f"examples of {name}", trials[0])


@torch.no_grad()
def _shown(kept: RunEvidence, trial: Trial) -> _Shown:
    """Return the first images, right when clean, that the trial broke, and the first that it did not."""
    shown = _Shown()
    for part in kept.chunks(trial):
        shown.whole = shown.whole and bool(part.covered.all())
        for example, broken in _judged(kept, trial, part):
            (shown.broken if broken else shown.held).append(example)
        if min(len(shown.broken), len(shown.held)) >= EXAMPLES_OF_A_KIND:
            break
    del shown.broken[EXAMPLES_OF_A_KIND:], shown.held[EXAMPLES_OF_A_KIND:]
    return shown


def _judged(kept: RunEvidence, trial: Trial, part: KeptChunk) -> Iterator[tuple[ExampleImage, bool]]:
    """Yield the images of a chunk that are right when clean, as the worst candidate left them: whether broken."""
    defense = kept.prepared.subjects.defenses[trial.defense].defense
    threat_model = kept.prepared.threat_models[trial.threat_model]
    clean, labels = part.chunk.images, part.chunk.labels.cpu()
    candidates = [images for _, images in threat_model.candidates(clean, part.images, crafted_under(trial))]
    clean_answers = _answers(defense, clean, seed=kept.prepared.request.seed)
    answers = torch.stack([_answers(defense, images, seed=kept.prepared.request.seed) for images in candidates])
    lost = answers != labels
    if defense.meta.abstains:
        lost &= answers != ABSTAIN
    worst = lost.int().argmax(dim=0).tolist()
    for row in ((clean_answers == labels) & part.covered).nonzero().flatten().tolist():
        example = ExampleImage(
            clean=clean[row].cpu().numpy(),
            adversarial=candidates[worst[row]][row].cpu().numpy(),
            label=int(labels[row]),
            clean_answer=int(clean_answers[row]),
            answer=int(answers[worst[row], row]),
        )
        yield example, bool(lost[worst[row], row])


def _answers(defense: Defense, images: Tensor, *, seed: int) -> Tensor:
    generator = torch.Generator(device=images.device).manual_seed(seed)
    return defense.predict(images, generator=generator).cpu()


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
    """Return the change of each pixel, shape ``(H, W)``: of its channels, the one changed most."""
    added = example.adversarial - example.clean
    most = np.abs(added).argmax(axis=0, keepdims=True)
    signed: Pixels = np.take_along_axis(added, most, axis=0)[0]
    return signed


def _show(panel: Axes, pixels: Pixels) -> AxesImage:
    if len(pixels) == 1:
        return panel.imshow(pixels[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    return panel.imshow(pixels.transpose(1, 2, 0), interpolation="nearest")
