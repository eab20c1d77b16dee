"""Base class of defences that are a vote of networks."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from dkd_bench.defense import Defense
from dkd_bench.defense.decisions import DecisionRule, voting_rules


class VotingEnsemble(Defense, ABC):
    """Defence that votes: networks and ``fit`` are the author's, the two decision rules are ours.

    All ``decision_rules`` judge the same logits; it answers by ``boosted`` (the paper's ``*``).
    """

    top_n: int = 2
    """Number of classes that each member names in the boosted vote."""

    @property
    @final
    def decision_rules(self) -> tuple[DecisionRule, ...]:
        """The decision rules that it is judged by."""
        return voting_rules(top_n=self.top_n)

    @property
    @final
    def deployed_rule(self) -> str:
        """The name of the rule by which it answers."""
        return next(rule.facts.name for rule in self.decision_rules if rule.facts.deployed)

    @final
    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the labels of the deployed rule, ``NO_MAJORITY`` where the vote fails."""
        return self.decide(x, generator=generator)[self.deployed_rule]

    @final
    def decide(self, x: Tensor, *, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Return the labels under every rule, from one evaluation of each member."""
        logits = torch.stack([member(x) for member in self.members])
        return {rule.facts.name: rule.decide(logits) for rule in self.decision_rules}
