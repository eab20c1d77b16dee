"""The base of defences that are a vote of networks."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from dkd_bench.defense import Defense
from dkd_bench.defense.decisions import boosted, majority


class VotingEnsemble(Defense, ABC):
    """A defence that votes: networks and ``fit`` are the author's, the two decision rules are ours.

    ``majority`` and ``boosted`` (the paper's ``*``) judge the same logits; ``boosted`` is the deployed one.
    """

    top_n: int = 2
    """How many classes each member names in the boosted vote."""

    @final
    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the boosted vote's labels, ``NO_MAJORITY`` where it fails too."""
        return self.decide(x, generator=generator)["boosted"]

    @final
    def decide(self, x: Tensor, *, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Return the labels under both rules, from one evaluation of each member."""
        logits = torch.stack([member(x) for member in self.members])
        return {"majority": majority(logits), "boosted": boosted(logits, top_n=self.top_n)}
