"""Decision rules of a vote: from the members' logits to a label, or to a failed majority."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from dkd_bench.defense import NO_MAJORITY
from dkd_bench.errors import ConfigError
from dkd_bench.records.rules import BOOSTED, MAJORITY, RuleFacts


def majority(logits: Tensor) -> Tensor:
    """Return the class with at least ceil((M + 1) / 2) of the members' top-1 votes, else ``NO_MAJORITY``.

    Args:
        logits: of the M members, shape ``(M, N, K)``.

    Returns:
        int64 labels, shape ``(N,)``.
    """
    votes = _count_votes(logits, top_n=1)
    most, winner = votes.max(dim=1)
    return torch.where(most >= _quorum(len(logits)), winner, NO_MAJORITY)


def boosted(logits: Tensor, *, top_n: int = 2) -> Tensor:
    """Return the majority; where it fails, let each member vote for its ``top_n`` classes (paper, section 3.1).

    In the second vote a class wins if it is in at least ceil((M + 1) / 2) lists and in more of them than any
    other class; else the majority has failed for good.

    Raises:
        ConfigError: if ``top_n`` is not from 1 to K.
    """
    n_classes = logits.shape[2]
    if not 1 <= top_n <= n_classes:
        raise ConfigError(f"top_n must be from 1 to the {n_classes} classes, got {top_n}")
    first = majority(logits)
    votes = _count_votes(logits, top_n=top_n)
    most, winner = votes.max(dim=1)
    alone = (votes == most.unsqueeze(1)).sum(dim=1) == 1
    second = torch.where((most >= _quorum(len(logits))) & alone, winner, NO_MAJORITY)
    return torch.where(first == NO_MAJORITY, second, first)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRule:
    """Rule by which the logits of several members become one label, with what a board says of it."""

    facts: RuleFacts
    decide: Callable[[Tensor], Tensor]
    """Function from logits of the M members, shape ``(M, N, K)``, to int64 labels, shape ``(N,)``."""


def voting_rules(*, top_n: int) -> tuple[DecisionRule, ...]:
    """Return the rules that a vote is judged by, one of them the deployed one; ``top_n`` is that of ``boosted``."""
    return (
        DecisionRule(facts=MAJORITY, decide=majority),
        DecisionRule(facts=BOOSTED, decide=partial(boosted, top_n=top_n)),
    )


def _quorum(members: int) -> int:
    return members // 2 + 1


def _count_votes(logits: Tensor, *, top_n: int) -> Tensor:
    lists = logits.topk(top_n, dim=2).indices
    return torch.nn.functional.one_hot(lists, logits.shape[2]).sum(dim=(0, 2))
