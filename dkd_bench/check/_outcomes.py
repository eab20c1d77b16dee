"""Encoding of outcomes as text: one bit for each image, or one byte where draws are counted."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence

import numpy as np

from dkd_bench.records import Fraction

_EXACT = 1e-6
"""Distance from a whole number of draws, due to rounding, that a share may have."""


def packed(shares: Sequence[Fraction], *, draws: int) -> str:
    """Return the share of ``draws`` that each image survived as base64.

    Raises:
        ValueError: if a share is no whole number of draws.
    """
    counts = [share * draws for share in shares]
    if any(abs(count - round(count)) > _EXACT or not -_EXACT <= count <= draws + _EXACT for count in counts):
        raise ValueError(f"a share survived is no whole number of {draws} draws")
    values = np.array([round(count) for count in counts], dtype=np.uint8)
    data = values if draws > 1 else np.packbits(values, bitorder="little")
    return b64encode(data.tobytes()).decode()


def unpacked(text: str, *, n: int, draws: int) -> tuple[Fraction, ...]:
    """Return the shares of ``n`` images that ``packed`` gave ``text``.

    Raises:
        ValueError: if they are not of ``n`` images, or of more draws.
    """
    data = np.frombuffer(b64decode(text, validate=True), dtype=np.uint8)
    expected = n if draws > 1 else -(-n // 8)
    if len(data) != expected:
        raise ValueError(f"outcomes of {n} images take {expected} bytes, got {len(data)}")
    values = data if draws > 1 else np.unpackbits(data, bitorder="little")
    if values[n:].any() or values.max(initial=0) > draws:
        raise ValueError(f"there are outcomes beyond {n} images, or survivals of more than {draws} draws")
    return tuple(int(value) / draws for value in values[:n])
