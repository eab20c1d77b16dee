"""Facts on the decision rules that records name, as a board tells them; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFacts:
    """Mark and legend of a decision rule, and whether a defence answers by it."""

    name: str
    mark: str = ""
    """Suffix to the name of a defence that is judged by the rule."""
    legend: str = ""
    """Meaning of the mark; empty for a rule without one."""
    deployed: bool = False
    """Whether ``predict`` answers by it; the other rules say what the defence would be worth under them."""


DEPLOYED = RuleFacts(name="deployed", deployed=True)
"""Rule of a defence that is no vote: it has one alone."""
MAJORITY = RuleFacts(name="majority")
BOOSTED = RuleFacts(name="boosted", mark="*", legend="the boosted vote", deployed=True)
"""Rule whose mark is the paper's: DKD* is DKD judged by the boosted vote."""

RULES: Mapping[str, RuleFacts] = {rule.name: rule for rule in (DEPLOYED, MAJORITY, BOOSTED)}
"""Rules of the harness, by name; a plugin may judge itself by others, which have no mark."""


def mark_of(name: str) -> str:
    """Return the mark of the rule called ``name``; empty for one that has none, or is not of the harness."""
    return RULES[name].mark if name in RULES else ""


def deployed_rule(recorded: str | None, rules: Sequence[str]) -> str:
    """Return the rule by which a defence answers: the one recorded, in records of older versions the last.

    Args:
        recorded: of the defence's record.
        rules: of its cells, in their order, at least one.
    """
    return recorded if recorded is not None and recorded in rules else rules[-1]
