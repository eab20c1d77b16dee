"""Interface of a defence: all that the harness knows of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dkd_bench.data import ImageSpec
from dkd_bench.errors import PluginError
from dkd_bench.plugins.settings import NoSettings
from dkd_bench.progress import Progress
from dkd_bench.records.rules import DEPLOYED
from dkd_bench.target.surrogates import ensemble_surrogates
from dkd_bench.training import Recipe, TrainingSet

ABSTAIN = -1
"""Answer of a defence that rejects an image."""

NO_MAJORITY = -2
"""Answer of a vote that failed; always an error (paper, section 4.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefenseMeta:
    """Declaration of a defence about itself; the harness checks it and acts on it."""

    name: str
    title: str
    paper: str = ""
    randomized: bool = False
    """Whether answers differ between calls: such a defence is scored over repeated draws, attacked in expectation."""
    abstains: bool = False
    """Whether it may answer ``ABSTAIN``: rejects are counted, and shown beside the accuracy."""
    non_differentiable: bool = False
    """Whether the members' gradients miss the protection: without ``surrogates`` there is no adaptive attack."""
    optimizes: bool = False
    """Whether ``predict`` searches by gradients at test time, so that the whole has no gradient to be had."""

    @property
    def hides_gradients(self) -> bool:
        """Whether attacks without gradients are called for beside those that follow them."""
        return self.randomized or self.non_differentiable or self.optimizes


class Defense(nn.Module, ABC):
    """A classifier with its protection. Images are float32 in [0, 1], shape ``(N, C, H, W)``.

    Networks must be registered modules (attributes, ``nn.ModuleList``), so that ``.to()``, ``.eval()`` and
    ``state_dict()`` reach them. A defence that optimises inside ``predict`` must ``torch.enable_grad()``
    there, since attacks and scoring call it without gradients.
    """

    meta: ClassVar[DefenseMeta]
    Settings: ClassVar[type[Any]] = NoSettings
    """A frozen, keyword-only dataclass; its fields are what ``--set NAME=VALUE`` reaches."""

    def __init__(self, images: ImageSpec, settings: Any = None) -> None:
        """Remember the images' shape and the settings; authors build their networks after this call."""
        super().__init__()
        self.images = images
        self.settings = self.Settings() if settings is None else settings

    def fit(self, data: TrainingSet, *, recipe: Recipe, generator: torch.Generator, progress: Progress) -> None:
        """Train on ``data``; nothing to do for a pre-trained defence.

        All randomness comes from ``generator``; long work reports to ``progress``.
        """

    @property
    def deployed_rule(self) -> str:
        """The name of the rule in ``decide`` by which ``predict`` answers; of a name that is not there, the last."""
        return DEPLOYED.name

    @property
    @abstractmethod
    def members(self) -> Sequence[nn.Module]:
        """The networks, logits ``(N, K)`` out of images; one for a defence that is no ensemble."""

    @abstractmethod
    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the deployed decision for each image: int64 labels ``(N,)``, ``ABSTAIN`` allowed if declared.

        Randomness, if any, comes from ``generator``.
        """

    def decide(self, x: Tensor, *, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Return the labels under each decision rule that this defence is judged by, by the rule's name.

        One rule, ``deployed``, unless the defence is one set of weights under several rules.
        """
        return {self.deployed_rule: self.predict(x, generator=generator)}

    def surrogates(self) -> Mapping[str, nn.Module]:
        """Return differentiable stand-ins for the whole, by name; the joint attack takes the strongest per image.

        By default those of an ensemble of ``members``; none for a defence that declares itself not
        differentiable. Backward passes of one's own (BPDA) live here; a defence that abstains offers at least
        one that is ``Detecting``.
        """
        return {} if self.meta.non_differentiable else ensemble_surrogates(self.members)

    def rejections(self, x: Tensor) -> Mapping[str, Tensor]:
        """Return for each detector, by name, how far each image is beyond its threshold, ``(N,)``: positive rejects.

        Of a defence that abstains; from this come the detectors' ROC curves.
        """
        return {}


def check_structure(defense: Defense) -> None:
    """Check what can be checked before training: the members are there, and torch can reach them.

    Raises:
        PluginError: names the defence and the member.
    """
    members = list(defense.members)
    if not members:
        raise PluginError(f"defence {defense.meta.name!r} has no members; expected at least one network")
    registered = {id(module) for module in defense.modules()}
    for position, member in enumerate(members):
        if not isinstance(member, nn.Module):
            raise PluginError(
                f"member {position} of defence {defense.meta.name!r} must be a torch.nn.Module, "
                f"got {type(member).__name__}"
            )
        if id(member) not in registered:
            raise PluginError(
                f"member {position} of defence {defense.meta.name!r} is not a registered module, so .eval() and "
                "state_dict() do not reach it; keep members in an nn.ModuleList or as attributes"
            )
