"""Defences: the interface, the bases that plugins build on, decision rules, and admission."""

from dkd_bench.defense._interface import (
    ABSTAIN,
    NO_MAJORITY,
    Defense,
    DefenseMeta,
    check_structure,
)

__all__ = [
    "ABSTAIN",
    "NO_MAJORITY",
    "Defense",
    "DefenseMeta",
    "check_structure",
]
