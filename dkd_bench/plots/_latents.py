"""Scatter plot of the members' latents of the same images, projected onto the two widest directions of all.

``gather_latents`` takes them from the networks of a run, ``latents_figure`` draws them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from dkd_bench.errors import ConfigError
from dkd_bench.plots._evidence import RunEvidence
from dkd_bench.plots._style import color, marker, styled
from dkd_bench.separation.latents import LATENT_LAYER
from dkd_bench.training import captured_latent

_MOST_CLASSES_AS_SIGNS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentsData:
    """Latents of the same images in each member."""

    title: str
    latents: Mapping[str, NDArray[np.float32]]
    """Latents by member, shape ``(N, D)``, one D for all."""
    classes: NDArray[np.int64]
    """Labels of the images, shape ``(N,)``."""


@torch.no_grad()
def gather_latents(kept: RunEvidence, name: str) -> LatentsData:
    """Return the latents of a defence's members on the clean images of its run.

    Raises:
        ConfigError: if a member has no layer of latents, or one that does not give one tensor.
    """
    members = kept.prepared.subjects.defenses[name].defense.members
    chunks = list(kept.prepared.images.chunks())
    return LatentsData(
        title=f"{name}: latents of the members, layer {LATENT_LAYER!r}, on clean images\n{kept.ground()}",
        latents={
            f"member {number}": torch.cat([_latents(member, chunk.images) for chunk in chunks]).numpy()
            for number, member in enumerate(members, start=1)
        },
        classes=torch.cat([chunk.labels for chunk in chunks]).cpu().numpy(),
    )


def _latents(member: nn.Module, images: Tensor) -> Tensor:
    with captured_latent(member, LATENT_LAYER) as captured:
        member(images)
    if len(captured) != 1 or not isinstance(captured[0], Tensor):
        raise ConfigError(f"layer {LATENT_LAYER!r} must give one tensor in each evaluation of a network")
    return captured[0].flatten(1).cpu()


@styled
def latents_figure(data: LatentsData) -> Figure:
    """Return the projection twice: by member, and by class.

    Raises:
        ConfigError: if the latents cannot be pooled: one member, unlike widths, fewer than two directions.
    """
    points, explained = _projected(data.latents)
    figure = Figure(figsize=(9.6, 4.9), layout="constrained")
    figure.suptitle(data.title)
    by_member, by_class = figure.subplots(1, 2, sharex=True, sharey=True)
    for position, (member, here) in enumerate(points.items()):
        look = {"color": color(position), "marker": marker(position), "label": member}
        by_member.scatter(here[:, 0], here[:, 1], s=16, alpha=0.6, lw=0, **look)
    by_member.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=min(4, len(points)))
    by_member.set_title("by member")
    _draw_classes(figure, by_class, np.concatenate(list(points.values())), np.tile(data.classes, len(points)))
    by_class.set_title("by class")
    for panel in (by_member, by_class):
        panel.set_xlabel(f"first component ({explained[0]:.0%} of the variance)")
    by_member.set_ylabel(f"second component ({explained[1]:.0%} of the variance)")
    return figure


def _projected(latents: Mapping[str, NDArray[np.float32]]) -> tuple[dict[str, NDArray[np.float32]], list[float]]:
    """Return each member's points, shape ``(N, 2)``, and the shares of variance of the two components."""
    from sklearn.decomposition import PCA

    if len(latents) < 2:
        raise ConfigError("one member has nobody to be compared with; a picture of latents needs two")
    widths = sorted({each.shape[1] for each in latents.values()})
    if len(widths) > 1:
        raise ConfigError(f"latents of {' and '.join(map(str, widths))} numbers cannot be drawn in one picture")
    pooled = np.concatenate(list(latents.values()))
    if min(pooled.shape) < 2 or not np.ptp(pooled, axis=0).any():
        raise ConfigError("the latents do not vary in two directions, so there is nothing to project")
    pca = PCA(n_components=2, svd_solver="full").fit(pooled)
    points = {member: pca.transform(each) for member, each in latents.items()}
    return points, pca.explained_variance_ratio_.tolist()


def _draw_classes(figure: Figure, panel: Axes, points: NDArray[np.float32], classes: NDArray[np.int64]) -> None:
    """Draw each point as the sign of its class; of many classes, as a shade."""
    known = np.unique(classes).tolist()
    if len(known) > _MOST_CLASSES_AS_SIGNS:
        shades = panel.scatter(points[:, 0], points[:, 1], s=12, c=classes, cmap="viridis", alpha=0.7, lw=0)
        figure.colorbar(shades, ax=panel, label="class")
        return
    for position, label in enumerate(known):
        here = points[classes == label]
        panel.scatter(here[:, 0], here[:, 1], s=26, color=color(position), marker=f"${label}$", alpha=0.8, lw=0)
