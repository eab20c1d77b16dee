"""The pictures of one run that need its networks and its evidence: transfer, examples, latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dkd_bench.defense import ABSTAIN, Defense
from dkd_bench.errors import ConfigError
from dkd_bench.pictures._evidence import EvidenceKept, KeptChunk, crafted_under
from dkd_bench.pictures._names import file_name, strongest_first
from dkd_bench.plots import ExampleImage, LatentsData, TransferData, examples_figure, latents_figure, transfer_figure
from dkd_bench.separation.latents import LATENT_LAYER
from dkd_bench.steps.plan import Trial
from dkd_bench.threats.standalone import Standalone
from dkd_bench.training import captured_latent

EXAMPLES_OF_A_KIND = 3
"""Images shown that the attack broke, and as many that it did not."""


class LeftOutError(Exception):
    """A picture cannot be drawn, and why; the run's other pictures can."""


@dataclass(slots=True)
class _Shown:
    """The images of a picture of examples."""

    broken: list[ExampleImage] = field(default_factory=list)
    held: list[ExampleImage] = field(default_factory=list)
    whole: bool = True
    """Whether they were chosen among all images of the run."""


@final
class Studio:
    """Draws one run with the networks and the evidence that it was made with."""

    def __init__(self, kept: EvidenceKept) -> None:
        """Draw what ``kept`` holds."""
        self._kept = kept
        self._record = kept.record
        self._bench = kept.bench

    @torch.no_grad()
    def transfer(self, name: str) -> tuple[str, Figure]:
        """Return the picture of which member's examples fool which member."""
        defense = self._bench.subjects.defenses[name].defense
        members = list(defense.members)
        if len(members) < 2:
            raise LeftOutError(f"{name} has one member, so there is no transfer between members to draw")
        trials = self._kept.fixed_first(
            trial for trial in self._kept.trials(name) if trial.threat_model == Standalone.meta.name
        )
        if not trials:
            raise LeftOutError(
                f"no {Standalone.meta.name} attack on {name} has a number, so there is no transfer to draw"
            )
        trial = trials[0]
        right = torch.zeros(len(members), dtype=torch.int64)
        wrong = torch.zeros(len(members), len(members), dtype=torch.int64)
        for kept in self._kept.chunks(trial):
            if not kept.covered.all():
                raise self._unkept(f"transfer between the members of {name}", trial)
            stands = _right(members, kept.chunk.images, kept.chunk.labels)
            right += stands.sum(dim=1)
            wrong += torch.stack(
                [(stands & ~_right(members, each, kept.chunk.labels)).sum(dim=1) for each in kept.images.values()]
            )
        counted = right.tolist()
        data = TransferData(
            title=f"{name}: transfer between members\n{_called(trial)}; {self._ground()}",
            members=tuple(f"member {number}" for number in range(1, len(members) + 1)),
            fooled=tuple(
                tuple(count / n if n else None for count, n in zip(row, counted, strict=True)) for row in wrong.tolist()
            ),
            counted=tuple(counted),
        )
        return f"transfer-{file_name(name)}", transfer_figure(data)

    def examples(self, name: str) -> tuple[str, Figure]:
        """Return the picture of a few images under the strongest threat model of which there is evidence."""
        trials = self._kept.trials(name)
        if not trials:
            raise LeftOutError(f"no attack on {name} has a number, so there are no examples to draw")
        order = strongest_first({trial.threat_model for trial in trials})
        trials = sorted(self._kept.fixed_first(trials), key=lambda trial: order.index(trial.threat_model))
        for trial in trials:
            shown = self._shown(trial)
            if shown.broken or shown.held:
                title = (
                    f"{name}: {_called(trial)}, {trial.threat_model}; {self._ground()}\n"
                    f"of the images right when clean{'' if shown.whole else ' whose evidence is kept'}, "
                    f"the first {len(shown.broken)} that it broke and the first {len(shown.held)} that held"
                )
                figure = examples_figure(shown.broken + shown.held, title=title)
                return f"examples-{file_name(name)}-{file_name(trial.threat_model)}", figure
        raise self._unkept(f"examples of {name}", trials[0])

    @torch.no_grad()
    def latents(self, name: str) -> tuple[str, Figure]:
        """Return the picture of the members' latents on the clean images."""
        members = self._bench.subjects.defenses[name].defense.members
        chunks = list(self._bench.images.chunks())
        try:
            data = LatentsData(
                title=f"{name}: latents of the members, layer {LATENT_LAYER!r}, on clean images\n{self._ground()}",
                latents={
                    f"member {number}": torch.cat([_latents(member, chunk.images) for chunk in chunks]).numpy()
                    for number, member in enumerate(members, start=1)
                },
                classes=torch.cat([chunk.labels for chunk in chunks]).cpu().numpy(),
            )
            return f"latents-{file_name(name)}", latents_figure(data)
        except ConfigError as error:
            raise LeftOutError(f"no picture of the latents of {name}: {error}") from error

    def _ground(self) -> str:
        dataset = self._record.manifest.dataset
        return f"{dataset.name}, n = {dataset.n}"

    def _unkept(self, what: str, trial: Trial) -> LeftOutError:
        return LeftOutError(
            f"no picture of {what}: {self._kept.folder} did not keep the evidence of {trial.attack} "
            f"({trial.threat_model}), nor did the cache; make it again with --evidence all: "
            f"{self._record.manifest.command}"
        )

    @torch.no_grad()
    def _shown(self, trial: Trial) -> _Shown:
        """Return the first images, right when clean, that the trial broke, and the first that it did not."""
        shown = _Shown()
        for kept in self._kept.chunks(trial):
            shown.whole = shown.whole and bool(kept.covered.all())
            for example, broken in self._examples(trial, kept):
                (shown.broken if broken else shown.held).append(example)
            if min(len(shown.broken), len(shown.held)) >= EXAMPLES_OF_A_KIND:
                break
        del shown.broken[EXAMPLES_OF_A_KIND:], shown.held[EXAMPLES_OF_A_KIND:]
        return shown

    def _examples(self, trial: Trial, kept: KeptChunk) -> Iterator[tuple[ExampleImage, bool]]:
        """Yield the images of a chunk that are right when clean, as the worst candidate left them: whether broken."""
        defense = self._bench.subjects.defenses[trial.defense].defense
        threat_model = self._bench.threat_models[trial.threat_model]
        clean, labels = kept.chunk.images, kept.chunk.labels.cpu()
        candidates = [images for _, images in threat_model.candidates(clean, kept.images, crafted_under(trial))]
        clean_answers = self._answers(defense, clean)
        answers = torch.stack([self._answers(defense, images) for images in candidates])
        lost = answers != labels
        if defense.meta.abstains:
            lost &= answers != ABSTAIN
        worst = lost.int().argmax(dim=0).tolist()
        for row in ((clean_answers == labels) & kept.covered).nonzero().flatten().tolist():
            example = ExampleImage(
                clean=clean[row].cpu().numpy(),
                adversarial=candidates[worst[row]][row].cpu().numpy(),
                label=int(labels[row]),
                clean_answer=int(clean_answers[row]),
                answer=int(answers[worst[row], row]),
            )
            yield example, bool(lost[worst[row], row])

    def _answers(self, defense: Defense, images: Tensor) -> Tensor:
        generator = torch.Generator(device=images.device).manual_seed(self._bench.request.seed)
        return defense.predict(images, generator=generator).cpu()


def _latents(member: nn.Module, images: Tensor) -> Tensor:
    with captured_latent(member, LATENT_LAYER) as captured:
        member(images)
    if len(captured) != 1 or not isinstance(captured[0], Tensor):
        raise ConfigError(f"layer {LATENT_LAYER!r} must give one tensor in each evaluation of a network")
    return captured[0].flatten(1).cpu()


def _right(members: Sequence[nn.Module], images: Tensor, labels: Tensor) -> Tensor:
    """Return which images each member has right: bool, shape ``(M, N)``, on the CPU."""
    return torch.stack([member(images).argmax(dim=1) == labels for member in members]).cpu()


def _called(trial: Trial) -> str:
    return f"{trial.attack} {crafted_under(trial)}"
