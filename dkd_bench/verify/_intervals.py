"""Wilson intervals of 95 %, straight from SciPy."""

from __future__ import annotations

from math import ceil, floor


def wilson(total: float, n: int) -> tuple[float, float]:
    """Return the interval of ``total`` out of ``n``; of a total between two whole numbers, from both outward."""
    from scipy.stats import binomtest

    total = round(total, 6)
    low = binomtest(floor(total), n).proportion_ci(confidence_level=0.95, method="wilson").low
    high = binomtest(ceil(total), n).proportion_ci(confidence_level=0.95, method="wilson").high
    return float(low), float(high)
