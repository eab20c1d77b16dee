"""Threat models: which targets an adversary sees and how their examples become one."""

from dkd_bench.threats._base import Roles, ThreatModel, ThreatModelMeta

__all__ = ["Roles", "ThreatModel", "ThreatModelMeta"]
