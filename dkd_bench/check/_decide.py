"""Decision which of many cells are worse, or better, than before: paired tests, the spread of seeds, Holm's method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from statistics import fmean
from typing import Literal

from dkd_bench.errors import ConfigError, FieldName
from dkd_bench.records import Fraction
from dkd_bench.records.statistics import Difference, paired_difference, prediction_p_value
from dkd_bench.steps.request import ALPHA, TOLERANCE

_DIGITS = 9
"""Digits to which differences of fractions are rounded: a drop of 0.02 is not over a tolerance of 0.02."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Limits from which on a difference counts."""

    alpha: float = ALPHA
    """Probability, at most, of one false alarm or more over all cells together, in (0, 1)."""
    tolerance: float = TOLERANCE
    """Largest drop of accuracy, in [0, 1), that counts as none."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ConfigError(FieldName("alpha"), f" must be between 0 and 1, got {self.alpha}; 0.05 is usual")
        if not 0 <= self.tolerance < 1:
            raise ConfigError(
                FieldName("tolerance"), f" must be from 0 to below 1, got {self.tolerance}; 0.02 is two points"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Outcomes of one cell, image by image: the share of draws survived."""

    pairs: Sequence[tuple[Sequence[Fraction], Sequence[Fraction]]]
    """Shares to compare, new and old, for each run of the reference; at least one."""
    training: str = ""
    """Name of what was trained once for all cells that name it, and lucky or not in all of them: the defence."""
    replayed: bool = False
    """Whether the new shares are how each run's own evidence fared, and not one run on evidence of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Decision on one cell."""

    verdict: Literal["same", "improved", "regressed"]
    reference_accuracy: Fraction
    """Accuracy of the reference run that is nearest to the new one, in [0, 1]."""
    new_accuracy: Fraction
    difference: Difference
    """Accuracy of the new run less that of the nearest of the reference, in [-1, 1]."""
    p_value: float
    """p-value of the test that the verdict rests on: that it survives more where it improved, else that it survives
    less."""
    p_corrected: float
    """p-value corrected by Holm's method over all cells, or that of the defence's luck where it is larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tested:
    nearest: Difference
    nearest_accuracy: Fraction
    new_accuracy: Fraction
    drop: float
    """Distance below every run of the reference, at least; negative if above one."""
    gain: float
    """Distance above every run of the reference, at least."""
    p_less: float
    p_more: float


def decide(samples: Sequence[Sample], rule: Rule) -> tuple[Decision, ...]:
    """Return for each cell whether it is worse, better or the same.

    Image by image, this model is compared with that one; the tests of all cells are one family, corrected by Holm's
    method, and those for better are another. A defence trained again is another model, and may be truly weaker by the
    luck of its seed. So several runs in a reference, trained under several seeds, ask for more: worse is what is worse
    than every one of them, the largest p-value and the drop below the lowest counting; and the defence, by its mean
    over its cells, must be too far below to be one more training of the kind (``prediction_p_value``, corrected for the
    number of defences).
    """
    tested = [_test(sample) for sample in samples]
    less, more = holm([each.p_less for each in tested]), holm([each.p_more for each in tested])
    worse, better = _luck(samples, "less"), _luck(samples, "greater")
    decisions = []
    for position, each in enumerate(tested):
        corrected = {"p_less": max(less[position], worse[position]), "p_more": max(more[position], better[position])}
        decisions.append(_decision(each, **corrected, rule=rule))
    return tuple(decisions)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return each p-value corrected for all of them (Holm 1979), in the order given.

    The smallest is multiplied by their number, the next by one less, and so on; none becomes smaller than one before.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = largest
    return tuple(corrected)


def _test(sample: Sample) -> _Tested:
    means = [(_mean(new), _mean(reference)) for new, reference in sample.pairs]
    less = [paired_difference(new, reference, alternative="less") for new, reference in sample.pairs]
    more = [paired_difference(new, reference, alternative="greater") for new, reference in sample.pairs]
    # The nearest run is what people are shown; the one that speaks most against a change decides.
    nearest = min(range(len(means)), key=lambda each: abs(means[each][0] - means[each][1]))
    return _Tested(
        nearest=less[nearest],
        nearest_accuracy=means[nearest][1],
        new_accuracy=means[nearest][0],
        drop=round(min(reference - new for new, reference in means), _DIGITS),
        gain=round(min(new - reference for new, reference in means), _DIGITS),
        p_less=max(each.p_value for each in less),
        p_more=max(each.p_value for each in more),
    )


def _luck(samples: Sequence[Sample], alternative: Literal["less", "greater"]) -> list[float]:
    """Return for each cell how likely its defence is, by its mean over its cells, as one more training of the kind.

    One run of the reference cannot tell; and old evidence harms new weights less than those it was made for, so that
    where it harms them more nobody asks for luck. Both give 0.
    """
    cells: dict[str, list[Sample]] = {}
    for sample in samples:
        if len(sample.pairs) > 1 and not sample.replayed:
            cells.setdefault(sample.training, []).append(sample)
    found = {}
    for training, own in cells.items():
        references = [fmean(_mean(sample.pairs[run][1]) for sample in own) for run in range(len(own[0].pairs))]
        new = fmean(_mean(sample.pairs[0][0]) for sample in own)
        found[training] = prediction_p_value(references, new, alternative=alternative)
    corrected = dict(zip(found, holm(list(found.values())), strict=True))
    asked = [len(sample.pairs) > 1 and not sample.replayed for sample in samples]
    return [corrected[sample.training] if needed else 0.0 for sample, needed in zip(samples, asked, strict=True)]


def _decision(tested: _Tested, *, p_less: float, p_more: float, rule: Rule) -> Decision:
    regressed = p_less <= rule.alpha and tested.drop > rule.tolerance
    improved = p_more <= rule.alpha and tested.gain > rule.tolerance
    return Decision(
        verdict="regressed" if regressed else "improved" if improved else "same",
        reference_accuracy=tested.nearest_accuracy,
        new_accuracy=tested.new_accuracy,
        difference=tested.nearest,
        p_value=tested.p_more if improved else tested.p_less,
        p_corrected=p_more if improved else p_less,
    )


def _mean(shares: Sequence[Fraction]) -> Fraction:
    return fsum(shares) / len(shares)
