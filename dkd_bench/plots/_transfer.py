"""Heat map of transfer between members: which member's examples fool which other member.

``gather_transfer`` takes the numbers from a run's evidence, ``transfer_figure`` draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor, nn

from dkd_bench.plots._evidence import LeftOutError, RunEvidence, attack_and_budget
from dkd_bench.plots._style import styled
from dkd_bench.threats.standalone import Standalone

_CELL_INCHES = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferData:
    """Transfer of the examples made on each member to all of them."""

    title: str
    """Title with defence, attack, budget and images."""
    members: tuple[str, ...]
    fooled: tuple[tuple[float | None, ...], ...]
    """Share, of the images a member has right when clean, that it gets wrong under attack. Row: the member on which the
    examples were made; column: the member that judges. ``None`` if it has none right."""
    counted: tuple[int, ...]
    """Number of images that each judging member has right when clean."""


@torch.no_grad()
def gather_transfer(kept: RunEvidence, name: str) -> TransferData:
    """Return the transfer between the members of a defence, judged here on the evidence of its run.

    Raises:
        LeftOutError: if it has one member, no attack on single members has a number, or its evidence was not kept.
        EvidenceError: if the evidence is not the run's.
    """
    defense = kept.prepared.subjects.defenses[name].defense
    members = list(defense.members)
    if len(members) < 2:
        raise LeftOutError(f"{name} has one member, so there is no transfer between members to draw")
    trials = kept.fixed_first(trial for trial in kept.trials(name) if trial.threat_model == Standalone.meta.name)
    if not trials:
        raise LeftOutError(f"no {Standalone.meta.name} attack on {name} has a number, so there is no transfer to draw")
    trial = trials[0]
    right = torch.zeros(len(members), dtype=torch.int64)
    wrong = torch.zeros(len(members), len(members), dtype=torch.int64)
    for part in kept.chunks(trial):
        if not part.covered.all():
            raise kept.unkept(f"transfer between the members of {name}", trial)
        stands = _right(members, part.chunk.images, part.chunk.labels)
        right += stands.sum(dim=1)
        wrong += torch.stack(
            [(stands & ~_right(members, each, part.chunk.labels)).sum(dim=1) for each in part.images.values()]
        )
    counted = right.tolist()
    return TransferData(
        title=f"{name}: transfer between members\n{attack_and_budget(trial)}; {kept.ground()}",
        members=tuple(f"member {number}" for number in range(1, len(members) + 1)),
        fooled=tuple(
            tuple(count / n if n else None for count, n in zip(row, counted, strict=True)) for row in wrong.tolist()
        ),
        counted=tuple(counted),
    )


def _right(members: Sequence[nn.Module], images: Tensor, labels: Tensor) -> Tensor:
    """Return the images that each member has right: bool, shape ``(M, N)``, on the CPU."""
    return torch.stack([member(images).argmax(dim=1) == labels for member in members]).cpu()


@styled
def transfer_figure(data: TransferData) -> Figure:
    """Return the matrix as a heat map, the numbers in percent in its cells."""
    size = len(data.members)
    side = _CELL_INCHES * max(size, 3)
    figure = Figure(figsize=(side + 2.6, side + 1.5), layout="constrained")
    axes = figure.subplots()
    shares = np.array([[np.nan if share is None else share for share in row] for row in data.fooled], dtype=float)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(data.title)
    judges = [f"{name}\n(n = {n})" for name, n in zip(data.members, data.counted, strict=True)]
    axes.set_xticks(range(size), judges)
    axes.set_yticks(range(size), data.members)
    axes.set_xlabel("judged by (percent of the n images it has right when clean)")
    axes.set_ylabel("examples made on")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(shares.shape):
        share = data.fooled[row][column]
        text = "none right" if share is None else f"{100 * share:.0f} %"
        ink = "white" if share is not None and share > 0.6 else "black"
        axes.text(column, row, text, ha="center", va="center", color=ink)
    bar = figure.colorbar(image, ax=axes, format=PercentFormatter(xmax=1), shrink=0.8)
    bar.set_label("wrong under attack")
    return figure
