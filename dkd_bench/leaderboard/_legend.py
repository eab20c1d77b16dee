"""Legend of a board: one line for each word that it uses."""

from __future__ import annotations

from collections.abc import Sequence

from dkd_bench.leaderboard._board import Board, Row
from dkd_bench.leaderboard._columns import (
    ABSTAINED,
    FAILED,
    LSS,
    PASSES,
    RULE,
    TO_THE_FIRST,
    WORST_OF_ALL,
    legend_of,
)
from dkd_bench.leaderboard._table import one_line
from dkd_bench.threats import STANDARD, facts_of, in_reading_order, sees_whole

_ITSELF = ("whole",)
"""Surrogates of a single network that hides nothing: itself alone."""
_UNKNOWN = "a threat model that is not installed here, so this board cannot say what its adversary sees."


def legend_lines(board: Board) -> list[str]:
    """Return one line for each word that the board uses."""
    rows = [row for group in board.groups for row in group.rows]
    threat_models = in_reading_order({name for group in board.groups for name in group.threat_models})
    lines = [f"{name}: {one_line(title)}." for name, title in sorted({(row.defense, row.title) for row in rows})]
    lines += [
        "Numbers are percent of all n images asked for, an image that is wrong when clean being lost; "
        "brackets hold the 95 % Wilson interval.",
        *legend_of(board.groups, RULE),
        *(_threat_model_line(name) for name in threat_models),
    ]
    trusted = [name for name in threat_models if sees_whole(name)]
    if trusted and len(threat_models) > 1:
        lines.append(_whom_to_trust(trusted))
    if any(group.eps is not None for group in board.groups):
        lines += _legend_of_ranking(board)
    if any(group.eps is None for group in board.groups):
        lines.append(
            "no budget: minimum-norm examples go as far as they need, so the accuracy says how they transfer, "
            "not how robust a defence is; wrong: images lost that were right when clean; median norm: of "
            "the changes that did it."
        )
    lines += sorted({_adversary(row) for row in rows if row.surrogates and (row.abstains or row.surrogates != _ITSELF)})
    if any(row.clean_rejected is not None for row in rows):
        lines.append(
            "accepted: accuracy on images that are not rejected; under attack, of those right when clean. "
            "AUC: area under a detector's ROC curve, its images against clean ones; 50 is chance."
        )
    lines += _legend_of_environments(board)
    if any(row.randomized for row in rows):
        lines.append("randomised defences: the share of draws survived counts, per image the least over the attacks.")
    return lines


def _threat_model_line(name: str) -> str:
    facts = facts_of(name)
    return f"{one_line(name)}: {_UNKNOWN if facts is None else one_line(facts.legend)}"


def _whom_to_trust(trusted: Sequence[str]) -> str:
    *others, last = [name for name in STANDARD if not sees_whole(name)]
    blind = f"{', '.join(others)} and {last}".capitalize()
    columns = f"{trusted[0]} column is the one" if len(trusted) == 1 else f"{' and '.join(trusted)} columns are those"
    return (
        f"{blind} examples are made without sight of the whole defence, and flatter ensembles; the {columns} to trust."
    )


def _legend_of_environments(board: Board) -> list[str]:
    """Return the differences between the environments of the runs; nothing where they were all computed alike."""
    environments = {run.label: run.environment for run in board.runs}
    names = dict.fromkeys(name for environment in environments.values() for name in environment)
    differ = [name for name in names if len({environment.get(name) for environment in environments.values()}) > 1]
    if not differ:
        return []
    by_run = "; ".join(
        f"{one_line(label)} " + ", ".join(f"{name} {one_line(environment.get(name, 'unknown'))}" for name in differ)
        for label, environment in environments.items()
    )
    return [
        f"Computed in several environments: {by_run}. The attacks are the same; trained weights, and images at the "
        "very boundary, need not be."
    ]


def _adversary(row: Row) -> str:
    """Return the targets and attacks of the adversary who sees the whole defence."""
    scores = [score for score in row.threat_models if sees_whole(score.threat_model)]
    attacks = {attack.attack for score in scores for attack in score.attacks}
    called = " and ".join(score.threat_model for score in scores)
    averaged = ", in expectation over its draws" if row.randomized else ""
    return f"{called} on {row.defense}: {', '.join(row.surrogates)}{averaged}, by {', '.join(sorted(attacks))}."


def _legend_of_ranking(board: Board) -> list[str]:
    lines = [
        *legend_of(board.groups, WORST_OF_ALL, TO_THE_FIRST, FAILED),
        "A row without rank lacks an attack that others stood, or one failed: that is not survival.",
        *legend_of(board.groups, PASSES),
    ]
    if any(row.flags for group in board.groups for row in group.rows):
        lines.append(
            "A row with a flag does not rank: suspicious, its number may flatter; invalid, it has none that counts. "
            "'dkd-bench explain' says what each flag means."
        )
    if any(group.seed_spreads for group in board.groups):
        lines.append(
            "over training seeds: the worst of all of one defence trained several times, rows with a flag left out; "
            "sd: between the seeds."
        )
    lines += legend_of(board.groups, LSS)
    lines += sorted(
        {
            f"LSS of {row.defense}: none, {one_line(row.separation.reason)}."
            for group in board.groups
            for row in group.rows
            if row.separation is not None and row.separation.reason is not None
        }
    )
    lines += legend_of(board.groups, ABSTAINED)
    return lines
