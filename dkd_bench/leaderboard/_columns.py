"""Columns of the board's tables: each with its title, its text, its line in the legend, and when it is shown."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, final

from dkd_bench.leaderboard._board import AttackScore, Group, Row, Status, ThreatModelScore
from dkd_bench.leaderboard._table import NOTHING, margins, percent, percent_interval, table
from dkd_bench.records import SeparationRecord
from dkd_bench.records.rules import RULES, mark_of
from dkd_bench.threats import facts_of

LineT = TypeVar("LineT")

STATUS_WORDS: Mapping[Status, str] = {"ok": NOTHING, "error": "error", "not_run": "not run"}
_MARKS = "; ".join(f"the mark {rule.mark} is for {rule.legend}" for rule in RULES.values() if rule.mark)


def _always(group: Group) -> bool:
    return True


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[LineT]):
    """One column of a table whose lines are of one type."""

    title: str
    text: Callable[[LineT], str]
    legend: str = ""
    """Meaning of the title; empty where the title says so itself."""
    shown: Callable[[Group], bool] = _always
    """Whether a group has anything to say in it; a column without any text is left out all the same."""
    is_text: bool = False
    """Whether it holds words: such columns come first and are set to the left, numbers to the right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One line of the table by attack."""

    row: Row
    examples: str
    """Description of what the examples were made on; none for the clean images."""
    worst: str
    by_attack: Mapping[str, str]
    passes: str = ""


RUN: Column[Row] = Column(title="run", text=lambda row: row.run, is_text=True)
DEFENCE: Column[Row] = Column(title="defence", text=lambda row: row.defense + mark_of(row.decision), is_text=True)
RULE: Column[Row] = Column(
    title="rule",
    text=lambda row: row.decision,
    is_text=True,
    legend=f"rule: how the members' votes become one label; {_MARKS}.",
)
RANK: Column[Row] = Column(title="#", text=lambda row: _count(row.rank), is_text=True)
CLEAN: Column[Row] = Column(title="clean", text=lambda row: percent(row.clean))
WORST_OF_ALL: Column[Row] = Column(
    title="worst of all",
    text=lambda row: percent_interval(row.worst),
    legend="worst: an image counts only if it survived every attack; of all: under every threat model. "
    "The rank goes by it: one more than the number of rows that are surely better, so that rows which these images "
    "cannot tell apart share one.",
)
TO_THE_FIRST: Column[Row] = Column(
    title="to the first",
    text=lambda row: _behind(row),
    legend="to the first: the difference to the first row in points, paired by image, with its 95 % interval "
    "(McNemar's exact test; Student's paired t for randomised defences).",
)
FAILED: Column[Row] = Column(
    title="failed",
    text=lambda row: _count(row.failed_majorities),
    legend="failed: images for which the worst that happened is a vote without majority, an error.",
)
ABSTAINED: Column[Row] = Column(
    title="abstained",
    text=lambda row: _count(row.abstained),
    legend="abstained: images for which the worst that happened is a reject, counted as not fooled "
    "for defences that declare it.",
    shown=lambda group: any(row.abstains or row.abstained for row in group.rows),
)
LSS: Column[Row] = Column(
    title="LSS",
    text=lambda row: _separation(row.separation),
    legend="LSS: how far apart the members' latents of the test set lie (Eq. 5, 6), as a raw margin, which grows with "
    "their scale, and in parentheses over their RMS radius.",
    shown=lambda group: any(row.separation is not None for row in group.rows),
)
EXAMPLES: Column[Detail] = Column(title="examples", text=lambda detail: detail.examples, is_text=True)
WORST: Column[Detail] = Column(title="worst", text=lambda detail: detail.worst)
PASSES: Column[Detail] = Column(
    title="passes",
    text=lambda detail: detail.passes,
    legend="passes: images that the attacks evaluated, for each image asked for; lines may share crafts.",
)


def legend_of(groups: Collection[Group], *columns: Column[LineT]) -> list[str]:
    """Return the legends of those columns that any of the groups shows."""
    return [column.legend for column in columns if column.legend and any(map(column.shown, groups))]


def ranking_table(group: Group, *, labelled: bool) -> str:
    """Return who stands where; ``labelled`` where several runs are told apart."""
    noted = [row for row in group.rows if is_noted(row)]
    numbers = {id(row): str(number) for number, row in enumerate(noted, start=1)}
    note: Column[Row] = Column(title="note", text=lambda row: numbers.get(id(row), ""))
    by_threat_model = [_under(name) for name in group.threat_models]
    judged = (WORST_OF_ALL, TO_THE_FIRST, FAILED, ABSTAINED, LSS, note)
    return _table(group, (RANK, *row_name_columns(labelled=labelled), CLEAN, *by_threat_model, *judged), group.rows)


def details_table(group: Group, *, labelled: bool) -> str:
    """Return the results of each row against each attack, with the means where those are reported."""
    columns = (
        *(_of_row(column) for column in row_name_columns(labelled=labelled)),
        EXAMPLES,
        WORST,
        *(_by_attack(name) for name in group.attacks),
        PASSES,
    )
    return _table(group, columns, [detail for row in group.rows for detail in _details(group, row)])


def row_name_columns(*, labelled: bool) -> tuple[Column[Row], ...]:
    """Return the columns that name a row; that of its run where several are told apart."""
    return (replace(RUN, shown=lambda group: labelled), DEFENCE, RULE)


def is_noted(row: Row) -> bool:
    """Return whether a reader must know something before believing the row."""
    return bool(row.flags) or row.missing is not None


def mean_over(score: ThreatModelScore) -> str:
    """Return the plural of what the mean of a threat model is over; empty where none is reported."""
    facts = facts_of(score.threat_model)
    return "" if facts is None else facts.mean_over


def _table(group: Group, columns: Iterable[Column[LineT]], lines: Sequence[LineT]) -> str:
    shown = [column for column in columns if column.shown(group)]
    texts = [[column.text(line) for column in shown] for line in lines]
    return table([column.title for column in shown], texts, left=sum(column.is_text for column in shown))


def _under(threat_model: str) -> Column[Row]:
    def text(row: Row) -> str:
        score = next(each for each in row.threat_models if each.threat_model == threat_model)
        return STATUS_WORDS[score.status] if score.worst is None else percent(score.worst)

    return Column(title=threat_model, text=text)


def _of_row(column: Column[Row]) -> Column[Detail]:
    return Column(
        title=column.title,
        text=lambda detail: column.text(detail.row),
        shown=column.shown,
        is_text=column.is_text,
    )


def _by_attack(attack: str) -> Column[Detail]:
    return Column(title=attack, text=lambda detail: detail.by_attack.get(attack, ""))


def _details(group: Group, row: Row) -> list[Detail]:
    """Return the line of the clean images and one of each threat model, and a second one of those with means."""
    lines = [Detail(row=row, examples="none (clean)", worst=percent_interval(row.clean), by_attack={})]
    for score in row.threat_models:
        passes = sum(attack.forward_passes for attack in score.attacks) / group.n
        lines.append(
            Detail(
                row=row,
                examples=score.threat_model,
                worst=STATUS_WORDS[score.status] if score.worst is None else percent_interval(score.worst),
                by_attack={attack.attack: _accuracy(attack) for attack in score.attacks},
                passes=f"{passes:,.0f}",
            )
        )
        candidate_means = {each.attack: each.mean_over_candidates for each in score.attacks}
        means = {attack: percent(mean) for attack, mean in candidate_means.items() if mean is not None}
        if means and mean_over(score):
            lines.append(Detail(row=row, examples=f"- mean of {mean_over(score)}", worst="", by_attack=means))
    return lines


def _accuracy(attack: AttackScore) -> str:
    return STATUS_WORDS[attack.status] if attack.robust is None else percent(attack.robust)


def _behind(row: Row) -> str:
    """Return the difference to the first row, in points."""
    if row.behind is None:
        return ""
    low, high = row.behind.ci95
    return f"{100 * row.behind.value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _separation(found: SeparationRecord | None) -> str:
    raw, scale_free = margins(found)
    return raw if found is None or found.margin is None else f"{raw} ({scale_free})"


def _count(number: int | None) -> str:
    return NOTHING if number is None else str(number)
