"""Names of pictures and of what they show, and the order in which they stand."""

from __future__ import annotations

import re
from collections.abc import Collection

from dkd_bench.threats import facts_of, in_reading_order


def file_name(text: str) -> str:
    """Return ``text`` as part of a file's name that needs no quoting in a link."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.")


def strongest_first(names: Collection[str]) -> list[str]:
    """Return threat models from the most sight of the defence to the least; others follow by name."""
    ordered = in_reading_order(names)
    known = [name for name in ordered if facts_of(name) is not None]
    return [*reversed(known), *ordered[len(known) :]]
