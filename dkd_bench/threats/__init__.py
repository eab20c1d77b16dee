"""Threat models: which targets an adversary sees and how their examples become one."""

from dkd_bench.threats._base import EachTarget, Roles, Sight, ThreatModel, ThreatModelMeta
from dkd_bench.threats._installed import STANDARD, facts_of, in_reading_order, load_threat_models, sees_whole

__all__ = [
    "STANDARD",
    "EachTarget",
    "Roles",
    "Sight",
    "ThreatModel",
    "ThreatModelMeta",
    "facts_of",
    "in_reading_order",
    "load_threat_models",
    "sees_whole",
]
