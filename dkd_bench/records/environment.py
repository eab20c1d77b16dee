"""Environment that computed a run: it may change rounding and training, but makes no attack another one."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ENVIRONMENT_LIBRARIES = frozenset({"torch", "numpy"})
"""Distributions that compute every attack and define none."""


def current_environment(device: torch.device) -> dict[str, str]:
    """Return the environment of a run on ``device``, beside its libraries: processor, its vector unit, threads, GPU."""
    import torch

    found = {
        "processor": _processor(),
        "vector unit": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }
    return found | ({"GPU": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def environment_of(*, versions: Mapping[str, str], device: str, recorded: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a record; of an older one, what it tells.

    Args:
        versions: of all its libraries.
        device: cpu or cuda.
        recorded: as ``current_environment`` returned it; empty in records of older versions.
    """
    libraries = {name: versions[name] for name in sorted(ENVIRONMENT_LIBRARIES, reverse=True) if name in versions}
    return {**libraries, "device": device, **recorded}


def environment_changes(before: Sequence[Mapping[str, str]], now: Mapping[str, str]) -> tuple[str, ...]:
    """Return what differs in ``now`` from all of ``before``, such as ``torch 2.15.0 to 2.14.1``.

    What one side does not tell has not changed.
    """
    changes = []
    for name, value in now.items():
        known = sorted({each[name] for each in before if name in each})
        if known and value not in known:
            changes.append(f"{name} {' or '.join(known)} to {value}")
    return tuple(changes)


def environment_in_words(environment: Mapping[str, str]) -> str:
    """Return an environment in one line."""
    return ", ".join(f"{name} {value}" for name, value in environment.items())


def _processor() -> str:
    """Return the processor's model, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()
