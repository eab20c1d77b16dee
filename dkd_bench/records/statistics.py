"""Statistics of fractions: intervals around a measured one, and tests of whether one is larger than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, floor, fsum, sqrt
from statistics import fmean, stdev
from typing import Literal

from dkd_bench.errors import ConfigError, FieldName
from dkd_bench.records._base import Fraction, Interval

Alternative = Literal["two-sided", "less", "greater"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Difference in survival between two defences on the same images."""

    value: float
    """First share less the second, in [-1, 1]."""
    ci95: tuple[float, float]
    p_value: float
    """p-value of the hypothesis of no difference."""

    @property
    def is_tie(self) -> bool:
        """Whether the interval includes 0."""
        return self.ci95[0] <= 0 <= self.ci95[1]


def paired_difference(
    first: Sequence[Fraction], second: Sequence[Fraction], *, alternative: Alternative = "two-sided"
) -> Difference:
    """Return the mean of ``first - second``, image by image, with its 95 % interval and the p-value of none.

    Of outcomes that are 0 or 1 only the discordant images tell: the p-value is McNemar's exact one, and the interval
    Clopper and Pearson's of the share of them that speak for ``first``, so that it includes 0 just where the
    two-sided p-value is over 0.05. Shares of draws are compared by Student's paired t.

    Args:
        first: one share survived for each image, in [0, 1].
        second: those of the other, of the same images in the same order.
        alternative: of the p-value: ``less`` asks whether ``first`` survives less. The interval is two-sided always.

    Raises:
        ConfigError: if there is no image to compare.
        ValueError: if the two are not of one length.
    """
    _check_count(len(first))
    # Rounded, for shares of draws such as 0.3 - 0.2 and 0.9 - 0.8 are the same difference.
    differences = [round(one - other, 9) for one, other in zip(first, second, strict=True)]
    if all(share in (0, 1) for share in (*first, *second)):
        return _difference_of_outcomes(differences, alternative)
    return _difference_of_shares(differences, alternative)


def _difference_of_outcomes(differences: Sequence[float], alternative: Alternative) -> Difference:
    wins, losses = sum(each > 0 for each in differences), sum(each < 0 for each in differences)
    if not wins + losses:
        return Difference(value=0.0, ci95=(0.0, 0.0), p_value=1.0)
    return _exact_difference(wins, losses, len(differences), alternative)


@cache
def _exact_difference(wins: int, losses: int, n: int, alternative: Alternative) -> Difference:
    """Return McNemar's exact test of so many discordant images of ``n``; kept, for boards ask it often."""
    from scipy.stats import binomtest

    test = binomtest(wins, wins + losses, alternative=alternative)
    low, high = binomtest(wins, wins + losses).proportion_ci(confidence_level=0.95, method="exact")
    discordant = (wins + losses) / n
    return Difference(
        value=(wins - losses) / n,
        ci95=((2 * float(low) - 1) * discordant, (2 * float(high) - 1) * discordant),
        p_value=float(test.pvalue),
    )


def _difference_of_shares(differences: Sequence[float], alternative: Alternative) -> Difference:
    from scipy.stats import ttest_1samp

    mean = fsum(differences) / len(differences)
    if len(set(differences)) == 1:  # no spread, and so no t: as sure as outcomes that all agree
        found = _difference_of_outcomes([float((each > 0) - (each < 0)) for each in differences], alternative)
        low, high = (abs(mean) * bound for bound in found.ci95)
        return Difference(value=mean, ci95=(low, high), p_value=found.p_value)
    test = ttest_1samp(differences, 0.0, alternative=alternative)
    low, high = ttest_1samp(differences, 0.0).confidence_interval(0.95)
    return Difference(value=mean, ci95=(max(-1.0, float(low)), min(1.0, float(high))), p_value=float(test.pvalue))


def prediction_p_value(values: Sequence[float], new: float, *, alternative: Literal["less", "greater"]) -> float:
    """Return the probability of one more value like ``values`` as far below, or above, them as ``new`` is.

    Student's t with the prediction error of one more value, ``s * sqrt(1 + 1/k)``: what is asked of a defence that was
    trained k times, when it is trained once more.

    Raises:
        ValueError: if there are fewer than two values, which have no spread.
    """
    from scipy.stats import t

    error = stdev(values) * sqrt(1 + 1 / len(values))
    below = fmean(values) - new if alternative == "less" else new - fmean(values)
    if error == 0:
        return 0.0 if below > 0 else 1.0
    return float(t.sf(below / error, len(values) - 1))


def _check_count(n: int) -> None:
    if n < 1:
        raise ConfigError(
            f"a fraction needs at least one image, got n = {n}; ask for more with ", FieldName("n_examples")
        )
