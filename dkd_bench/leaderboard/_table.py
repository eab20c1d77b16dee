"""Markdown tables and numbers that are also legible unrendered, in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from dkd_bench.records import Fraction, Interval, SeparationRecord

NOTHING = "-"
"""Text of a cell that could hold a number and has none."""


def percent(found: Interval | Fraction | None) -> str:
    """Return a fraction as a percentage with one decimal; ``-`` for ``None``."""
    if found is None:
        return NOTHING
    return f"{100 * (found.value if isinstance(found, Interval) else found):.1f}"


def percent_interval(found: Interval | None) -> str:
    """Return a fraction and its interval as percentages, ``41.0 [34.4, 48.0]``; ``-`` for ``None``."""
    if found is None:
        return NOTHING
    low, high = found.ci95
    return f"{percent(found.value)} [{percent(low)}, {percent(high)}]"


def margins(found: SeparationRecord | None) -> tuple[str, str]:
    """Return the raw and the scale-free margin of latents; ``none`` where there is none."""
    if found is None:
        return NOTHING, NOTHING
    if found.margin is None or found.scaled_margin is None:
        return "none", "none"
    return f"{found.margin:.3g}", f"{found.scaled_margin:.3g}"


def one_line(text: str) -> str:
    """Return ``text`` without line breaks, and with bars that do not end a table cell."""
    return " ".join(text.split()).replace("|", "\\|")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Return a Markdown table with padded columns; a column without any content is left out.

    The first ``left`` columns are text, set to the left; the others are numbers, set to the right.
    """
    columns = [
        (title, [one_line(cell) for cell in cells], position >= left)
        for position, (title, cells) in enumerate(zip(header, zip(*rows, strict=True), strict=True))
        if any(cells)
    ]
    padded = [_padded(title, cells, right=right) for title, cells, right in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*padded, strict=True))


def _padded(title: str, cells: Sequence[str], *, right: bool) -> list[str]:
    width = max(2 if right else 1, len(title), *(len(cell) for cell in cells))
    rule = "-" * (width - 1) + ":" if right else "-" * width
    lines = [title, *cells]
    aligned = [line.rjust(width) if right else line.ljust(width) for line in lines]
    return [aligned[0], rule, *aligned[1:]]
