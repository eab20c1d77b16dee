"""Attacks: the interface, and the named suites of those that come with dkd-bench."""

from dkd_bench.attacks._base import Attack, AttackMeta

__all__ = ["Attack", "AttackMeta"]
