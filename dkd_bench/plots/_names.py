"""What pictures and the things in them are called, and in which order they stand."""

from __future__ import annotations

import re
from collections.abc import Collection

from dkd_bench.steps.request import THREAT_MODELS


def file_name(text: str) -> str:
    """Return ``text`` as part of a file's name that needs no quoting in a link."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.")


def reading_order(names: Collection[str]) -> list[str]:
    """Return threat models from the least sight of the defence to the most; others follow by name."""
    return [name for name in THREAT_MODELS if name in names] + _others(names)


def strongest_first(names: Collection[str]) -> list[str]:
    """Return threat models from the most sight of the defence to the least; others follow by name."""
    return [name for name in reversed(THREAT_MODELS) if name in names] + _others(names)


def _others(names: Collection[str]) -> list[str]:
    return sorted(set(names) - set(THREAT_MODELS))
