"""Black-box reference: the adversary's own network, trained on the same images (paper, section 4.2)."""

from __future__ import annotations

from typing import final

from dkd_bench.data import ImageSpec
from dkd_bench.defense import DefenseMeta
from dkd_bench.defense.single import SingleNetwork
from dkd_bench.training.networks import build_network, reference_network_name

SEED_OFFSET = 1_000_003
"""Offset to a run's seed, so that the adversary's network shares no random number with the defences."""


@final
class Reference(SingleNetwork):
    """LeNet for gray images, VGG16 for colour ones; nobody defends it."""

    meta = DefenseMeta(name="reference", title="Black-box reference")

    def __init__(self, images: ImageSpec, settings: object = None) -> None:
        """Build the network that fits the images."""
        super().__init__(images, settings)
        self.network = build_network(reference_network_name(images), images)
