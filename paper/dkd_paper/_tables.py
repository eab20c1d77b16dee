"""Tables of the paper from the runs of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dkd_bench.records import RunRecord
from dkd_paper import _paper
from dkd_paper._measurements import Measurements
from dkd_paper._paper import BLACK_BOX_SETTINGS, FAMILIES, PaperDataset
from dkd_paper._trends import NEARLY_ALL, Comparison, trend
from dkd_paper.record import Block, Entry, Row, Trend

ENSEMBLES = {"KD": "kd", "DKD": "dkd", "RI": "ri"}
"""Names of the ensembles: the paper's, in the order of its columns, to ours."""

_RULES = {"": "majority", "*": "boosted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Contents of a printed target."""

    title: str
    blocks: tuple[Block, ...]
    trends: tuple[Trend, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Setting:
    """Source of the numbers in a row of Table 2, or in a column of Table 4."""

    part: str
    eps: float | None


def _black_box(label: str) -> _Setting:
    attack, _, value = label.partition(" ")
    if attack == "FGSM":
        return _Setting("black-box-fgsm", float(value))
    return _Setting(f"black-box-{_PLUGINS[attack]}-{value}", None)


def _white_box(label: str) -> _Setting:
    attack, _, value = label.partition(" ")
    return _Setting("white-box-fgsm", float(value)) if value else _Setting(f"white-box-{_PLUGINS[attack]}-200", None)


_PLUGINS = {"DeepFool": "deepfool", "C&W": "cw", "JSMA": "jsma"}


def table2(runs: Mapping[tuple[str, int], RunRecord], paper: PaperDataset) -> Tables:
    """Return the failed majorities under black-box examples, and what boosting gains (Table 2)."""
    found = Measurements(runs)
    columns = {name + mark: (plugin, rule) for name, plugin in ENSEMBLES.items() for mark, rule in _RULES.items()}
    counts = {
        label: {
            column: found.failed_majorities(_black_box(label).part, plugin, rule, "black-box", _black_box(label).eps)
            for column, (plugin, rule) in columns.items()
        }
        for label in BLACK_BOX_SETTINGS
    }
    rows = tuple(
        Row(
            label=label,
            entries=tuple(
                Entry(measured=each, paper=_paper.failed_majorities(paper, label, column))
                for column, each in counts[label].items()
            ),
        )
        for label in BLACK_BOX_SETTINGS
    )
    values = {label: {column: each.value for column, each in row.items()} for label, row in counts.items()}
    authors = {
        label: {column: _paper.failed_majorities(paper, label, column) for column in columns} for label in counts
    }
    return Tables(
        title="Table 2: failed majorities under black-box attack",
        blocks=(
            Block(title="Failed majorities", unit="per 10,000", columns=tuple(columns), rows=rows),
            Block(
                title="Accuracy gained by the boosted vote",
                unit="percentage points",
                columns=tuple(ENSEMBLES),
                rows=tuple(_gains(found, family, paper) for family in FAMILIES),
            ),
        ),
        trends=(
            trend(
                "Boosting lowers failed majorities, where there are any.", _lowered(values), authors=_lowered(authors)
            ),
            trend("DKD's failed majorities, without boosting, are the most.", _most(values), authors=_most(authors)),
        ),
        notes=(
            "A failed majority is counted whether or not the clean image was right, as in the paper.",
            _UNFOUND,
            "The gain of a family is that of its strongest setting (200 iterations, or the largest eps), where the "
            "paper gives one number for the family without saying how it is formed.",
        ),
    )


_UNFOUND = (
    "An image for which an attack found nothing is judged as it was. One iteration of Foolbox's C&W finds nothing: "
    "it looks before it steps."
)

_Values = Mapping[str, Mapping[str, float]]
"""Numbers by row and column."""


def _lowered(values: _Values) -> list[Comparison]:
    return [
        Comparison(f"{name} at {label}", row[name], row[name + "*"])
        for label, row in values.items()
        for name in ENSEMBLES
        if row[name] > 0
    ]


def _most(values: _Values) -> list[Comparison]:
    return [Comparison(label, row["DKD"], max(row["KD"], row["RI"])) for label, row in values.items()]


def _gains(found: Measurements, family: str, paper: PaperDataset) -> Row:
    strongest = _black_box([label for label in BLACK_BOX_SETTINGS if label.startswith(family)][-1])
    return Row(
        label=family,
        entries=tuple(
            Entry(
                measured=found.gain(strongest.part, plugin, "black-box", strongest.eps),
                paper=_paper.boosting_gain(paper, family, name),
            )
            for name, plugin in ENSEMBLES.items()
        ),
    )


def table3(runs: Mapping[tuple[str, int], RunRecord], paper: PaperDataset) -> Tables:
    """Return the accuracy under black-box examples (Table 3, of which no number can be trusted)."""
    found = Measurements(runs)
    columns = {"none": ("none", "deployed")}
    columns |= {name + mark: (plugin, rule) for name, plugin in ENSEMBLES.items() for mark, rule in _RULES.items()}
    fgsm = _black_box("FGSM .04").part
    accuracies = {"clean": {column: found.clean(fgsm, *where) for column, where in columns.items()}}
    for label in BLACK_BOX_SETTINGS:
        setting = _black_box(label)
        accuracies[label] = {
            column: found.robust(setting.part, plugin, rule, "black-box", setting.eps)
            for column, (plugin, rule) in columns.items()
        }
    rows = tuple(
        Row(label=label, entries=tuple(Entry(measured=each, paper=None) for each in row.values()))
        for label, row in accuracies.items()
    )
    under_attack = [
        (label, {column: each.value for column, each in accuracies[label].items()}) for label in BLACK_BOX_SETTINGS
    ]
    boosted = [
        Comparison(f"{name} at {label}", row[name + "*"], row[name])
        for label, row in under_attack
        for name in ENSEMBLES
    ]
    best = [
        Comparison(label, row["DKD*"], max(value for column, value in row.items() if column != "DKD*"))
        for label, row in under_attack
    ]
    return Tables(
        title="Table 3: accuracy under black-box attack",
        blocks=(Block(title="Accuracy", unit="percent", columns=tuple(columns), rows=rows),),
        trends=(
            trend("The boosted vote is above the majority vote.", boosted),
            trend("DKD* is above all others in almost every row.", best, share=NEARLY_ALL),
        ),
        notes=(
            "The paper's own numbers are scrambled in the text at hand; its trends are clear.",
            _UNFOUND,
            "The boosted vote cannot be below the majority vote: it decides only where that has failed, an error.",
        ),
    )


def table4(runs: Mapping[tuple[str, int], RunRecord], paper: PaperDataset) -> Tables:
    """Return the accuracy under white-box examples (Table 4), with the joint threat model beside the paper's."""
    found = Measurements(runs)
    settings = {label: _white_box(label) for label in _paper.WHITE_BOX_SETTINGS}
    lines = [("none", "none", "deployed", "standalone", False)]
    for name in ("DKD", "KD", "RI"):
        plugin = ENSEMBLES[name]
        lines += [
            (f"{name}* standalone", plugin, "boosted", "standalone", True),
            (f"{name}* standalone, worst member", plugin, "boosted", "standalone", False),
            (f"{name}* aggregated", plugin, "boosted", "aggregated", False),
            (f"{name}* joint", plugin, "boosted", "joint", False),
        ]
    rows = []
    values: dict[str, dict[str, float]] = {}
    for label, plugin, rule, threat_model, mean in lines:
        ask = found.mean_robust if mean else found.robust
        measured = {"clean": found.clean("white-box-fgsm", plugin, rule)}
        measured |= {
            column: ask(setting.part, plugin, rule, threat_model, setting.eps) for column, setting in settings.items()
        }
        values[label] = {column: each.value for column, each in measured.items() if column != "clean"}
        rows.append(
            Row(
                label=label,
                entries=tuple(
                    Entry(measured=each, paper=_paper.white_box_accuracy(paper, label, column))
                    for column, each in measured.items()
                ),
            )
        )
    rows += [_paper_only(label, paper) for label in ("MagNet", "PixelDefend", "Defense-GAN")]
    return Tables(
        title="Table 4: accuracy under white-box attack",
        blocks=(Block(title="Accuracy", unit="percent", columns=("clean", *settings), rows=tuple(rows)),),
        trends=_table4_trends(values, paper),
        notes=(
            "standalone is the mean over the members on which the examples were made, as the paper reports it; the "
            "line below counts an image only if it survived the examples of every member.",
            "joint examples are made on the differentiable whole; the paper has no such attack.",
            "Under minimum-norm attacks (JSMA, C&W, DeepFool) examples lie on the boundary of the network that they "
            "were made on, so these columns say how examples transfer to the vote, not how robust it is.",
            "MagNet, PixelDefend and Defense-GAN are the paper's numbers alone.",
        ),
    )


def _table4_trends(values: _Values, paper: PaperDataset) -> tuple[Trend, ...]:
    def compared(greater: str, other: str) -> list[Comparison]:
        return [Comparison(column, value, values[other][column]) for column, value in values[greater].items()]

    def authors(greater: str, other: str) -> list[Comparison]:
        return [
            Comparison(
                column,
                _paper.white_box_accuracy(paper, greater, column),
                _paper.white_box_accuracy(paper, other, column),
            )
            for column in _paper.WHITE_BOX_SETTINGS
        ]

    standalone, aggregated, joint = (f"DKD* {name}" for name in ("standalone", "aggregated", "joint"))
    worst = f"{standalone}, worst member"
    budgeted = [column for column in values[joint] if _white_box(column).eps is not None]
    return (
        trend(
            "DKD* is above no defence when its members are attacked alone.",
            compared(standalone, "none"),
            authors=authors(standalone, "none"),
        ),
        trend(
            "For DKD*, aggregated examples do less than standalone ones (read off the paper's table).",
            compared(aggregated, standalone),
            authors=authors(aggregated, standalone),
        ),
        trend(
            "Not in the paper: joint examples do more to DKD* than those of its worst member and aggregated ones.",
            [
                Comparison(column, min(values[worst][column], values[aggregated][column]), value)
                for column, value in values[joint].items()
            ],
        ),
        trend(
            "Not in the paper: within a budget, under joint attack, DKD* stands above RI*.",
            [Comparison(column, values[joint][column], values["RI* joint"][column]) for column in budgeted],
        ),
    )


def _paper_only(label: str, paper: PaperDataset) -> Row:
    columns = ("clean", *_paper.WHITE_BOX_SETTINGS)
    entries = (Entry(measured=None, paper=_paper.white_box_accuracy(paper, label, column)) for column in columns)
    return Row(label=label, entries=tuple(entries))
