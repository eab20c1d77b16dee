"""How far a measured fraction may be from the true one: 95 % Wilson intervals."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, fsum

from dkd_bench.errors import ConfigError
from dkd_bench.records import Fraction, Interval


def wilson_interval(successes: int, n: int) -> tuple[Fraction, Fraction]:
    """Return the 95 % Wilson score interval of ``successes`` out of ``n``, as two fractions in [0, 1].

    Raises:
        ConfigError: if there is no image to count.
        ValueError: if ``successes`` is not in [0, n].
    """
    _check_count(n)
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in [0, {n}], got {successes}")
    from scipy.stats import binomtest  # slow to import, and --help must not wait for it

    low, high = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    # At 0/n and n/n rounding may leave the value itself a hair outside.
    return min(max(float(low), 0.0), successes / n), max(min(float(high), 1.0), successes / n)


def interval(successes: int, n: int) -> Interval:
    """Return ``successes / n`` with its 95 % Wilson interval; raises as ``wilson_interval`` does."""
    ci95 = wilson_interval(successes, n)
    return Interval(value=successes / n, ci95=ci95)


def mean_interval(shares: Sequence[Fraction]) -> Interval:
    """Return the mean of one share in [0, 1] for each image, with a Wilson interval on the safe side.

    Shares vary at most as much as zeros and ones of the same mean do, so the binomial interval covers them;
    a sum between two whole numbers takes the lower one's lower bound and the upper one's upper bound.

    Raises:
        ConfigError: if there is no image to count.
        ValueError: if a share is not in [0, 1].
    """
    _check_count(len(shares))
    outside = [share for share in shares if not 0 <= share <= 1]
    if outside:
        raise ValueError(f"shares must be in [0, 1], got {outside[0]}")
    n, total = len(shares), round(fsum(shares), 9)
    low, high = wilson_interval(floor(total), n)[0], wilson_interval(ceil(total), n)[1]
    return Interval(value=total / n, ci95=(low, high))


def _check_count(n: int) -> None:
    if n < 1:
        raise ConfigError(f"a fraction needs at least one image, got n = {n}; ask for more with --n-examples")
