"""Targets: the network behind a craft as its attack sees it, and what stands in for a whole defence."""

from dkd_bench.target._target import (
    AUTO_BATCH_SIZE,
    Access,
    Target,
)

__all__ = [
    "AUTO_BATCH_SIZE",
    "Access",
    "Target",
]
