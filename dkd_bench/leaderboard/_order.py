"""Order of the rows: ties where the images cannot tell two rows apart, and the spread over training seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import final

from dkd_bench.leaderboard._board import PairedDifference, Row, SeedSpread
from dkd_bench.records import ImageOutcomes
from dkd_bench.records.statistics import Difference, paired_difference


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Row with the outcome of every image over all its threat models."""

    row: Row
    outcomes: ImageOutcomes | None
    """Outcomes of the images; ``None`` if anything is missing, or there is no budget."""

    @property
    def ranks(self) -> bool:
        """Whether the row has a number that may be compared."""
        return self.outcomes is not None and self.row.trust == "accepted"


def rows_in_order(standings: Sequence[Standing]) -> tuple[Row, ...]:
    """Return the rows with their ranks, the best first, what has none last.

    A row's rank is one more than the number of rows that are surely better: where the 95 % interval of the paired
    difference includes 0, two rows are tied.
    """
    ranked = [standing for standing in standings if standing.ranks]
    ranks = [1 + sum(_surely_better(other, standing) for other in ranked) for standing in ranked]
    order = sorted(zip(ranks, ranked, strict=True), key=lambda each: (each[0], -_value(each[1]), *_name(each[1].row)))
    rows = []
    for rank, standing in order:
        behind = None if standing is order[0][1] else _difference(standing, order[0][1])
        rows.append(standing.row.model_copy(update={"rank": rank, "behind": behind and _recorded(behind)}))
    others = sorted((standing.row for standing in standings if not standing.ranks), key=_name)
    return (*rows, *others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Training of the defence of a row."""

    seed: int
    kind: str
    """Recipe and settings: what differs in more than the seed is another defence."""


def seed_spreads(rows: Sequence[Row], trainings: Mapping[tuple[str, str], Training]) -> tuple[SeedSpread, ...]:
    """Return mean and spread of what was trained under more than one seed; rows with a flag are left out.

    Args:
        rows: of one group.
        trainings: by run and defence.
    """
    values: defaultdict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
    for row in rows:
        training = trainings.get((row.run, row.defense))
        if training is not None and row.worst is not None and row.trust == "accepted":
            values[row.defense, row.decision, training.kind][training.seed] = row.worst.value
    return tuple(
        SeedSpread(
            defense=defense,
            decision=decision,
            training_seeds=tuple(sorted(found)),
            mean=fmean(found.values()),
            standard_deviation=stdev(found.values()),
            lowest=min(found.values()),
            highest=max(found.values()),
        )
        for (defense, decision, _), found in sorted(values.items())
        if len(found) > 1
    )


def _surely_better(one: Standing, other: Standing) -> bool:
    return one is not other and _difference(one, other).ci95[0] > 0


def _difference(one: Standing, other: Standing) -> Difference:
    assert one.outcomes is not None, "only rows with a number are compared"
    assert other.outcomes is not None, "only rows with a number are compared"
    return paired_difference(one.outcomes.shares, other.outcomes.shares)


def _recorded(found: Difference) -> PairedDifference:
    return PairedDifference(value=found.value, ci95=found.ci95, p_value=found.p_value)


def _value(standing: Standing) -> float:
    assert standing.outcomes is not None, "only rows with a number are sorted by it"
    return standing.outcomes.robust.value


def _name(row: Row) -> tuple[str, str, str]:
    return row.defense, row.decision, row.run
