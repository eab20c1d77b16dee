"""No defence: one network, for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

from dkd_bench.api import DefenseMeta, ImageSpec, SingleNetwork, build_network


@dataclass(frozen=True, slots=True, kw_only=True)
class UndefendedSettings:
    """Settings of the undefended network."""

    network: str = "auto"
    """A name of ``dkd_bench.training.networks``; ``auto`` is the one of Table 1 that fits the images."""


@final
class Undefended(SingleNetwork):
    """No defence: the main model of the paper alone, trained by cross-entropy."""

    meta = DefenseMeta(name="none", title="No defence")
    Settings: ClassVar[type[Any]] = UndefendedSettings
    settings: UndefendedSettings

    def __init__(self, images: ImageSpec, settings: UndefendedSettings | None = None) -> None:
        """Build the network."""
        super().__init__(images, settings)
        self.network = build_network(self.settings.network, images)
