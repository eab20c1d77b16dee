"""Estimate of how long the missing crafts will take, from those of the same attacks that were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Cost of crafting one chunk, relative to others."""

    attack: str
    """Name of the attack: attacks differ a thousandfold, so only crafts of the same one say how long a craft takes."""
    layers: int
    """Number of layers evaluated for one answer: it decides the time of an evaluation where networks are small."""


@final
class RemainingCrafts:
    """Crafts that are missing, with an estimate of how long they will take."""

    def __init__(self, missing: Mapping[str, Workload], *, at_once: int) -> None:
        """Take the workload of every missing craft by its key, and how many are made side by side."""
        self._missing = dict(missing)
        self._at_once = at_once
        self._seconds_a_layer: dict[str, float] = {}

    def made(self, key: str, seconds: float) -> None:
        """Learn from a craft that took ``seconds``; one that was not missing says nothing."""
        workload = self._missing.pop(key, None)
        if workload is not None:
            self._seconds_a_layer[workload.attack] = seconds / max(1, workload.layers)

    @property
    def seconds_left(self) -> float | None:
        """How long the missing crafts will take; ``None`` before one of each attack was made."""
        if any(each.attack not in self._seconds_a_layer for each in self._missing.values()):
            return None
        whole = sum(self._seconds_a_layer[each.attack] * max(1, each.layers) for each in self._missing.values())
        return whole / self._at_once


def layer_count(network: nn.Module) -> int:
    """Return the number of a network's parts that have parameters of their own."""
    return sum(1 for part in network.modules() if next(part.parameters(recurse=False), None) is not None)
