"""Rendering of the board for people: the runs, who stands where, results by attack, and a legend."""

from __future__ import annotations

from dkd_bench.leaderboard._board import AttackScore, Board, Group, Row, RunSummary
from dkd_bench.leaderboard._columns import (
    DEFENCE,
    RULE,
    STATUS_WORDS,
    details_table,
    mean_over,
    ranking_table,
    row_name_columns,
)
from dkd_bench.leaderboard._external import render_published
from dkd_bench.leaderboard._legend import legend_lines
from dkd_bench.leaderboard._rejects import render_rejects
from dkd_bench.leaderboard._table import NOTHING, one_line, percent, percent_interval, table
from dkd_bench.records.rules import mark_of

_DIGITS_SHOWN = 12
_NORMS = {"linf": "Linf", "l2": "L2", "l0": "L0"}


def render_markdown(board: Board) -> str:
    """Return the board as Markdown: the runs, for each group a ranking and its details, and a legend."""
    several_runs = len(board.runs) > 1
    several_grounds = len({_ground(group) for group in board.groups}) > 1
    parts = [
        "# Adversarial robustness leaderboard",
        "\n".join(_run_line(run, labelled=several_runs) for run in board.runs),
    ]
    for group in board.groups:
        parts.extend(_group(group, labelled=several_runs, grounded=several_grounds))
    parts.extend(("## Legend", "\n".join(f"- {line}" for line in legend_lines(board))))
    parts.append(render_published(board.published))
    return "\n\n".join(part for part in parts if part) + "\n"


def _run_line(run: RunSummary, *, labelled: bool) -> str:
    label = f"**{one_line(run.label)}**: " if labelled else ""
    trained = "" if run.training_seed is None else f", training seed {run.training_seed}"
    return (
        f"- {label}{one_line(run.dataset)}, {run.n} images (data {run.dataset_digest[:_DIGITS_SHOWN]}, "
        f"indices {run.indices_digest[:_DIGITS_SHOWN]}), suite {run.suite_fingerprint[:_DIGITS_SHOWN]}, "
        f"seed {run.seed}{trained}, recipe {one_line(run.recipe)}, on {one_line(run.device)}: "
        + ("complete" if run.complete else "**INCOMPLETE**")
    )


def _ground(group: Group) -> tuple[str, ...]:
    return group.dataset, group.dataset_digest, group.indices_digest, group.suite_fingerprint


def _group(group: Group, *, labelled: bool, grounded: bool) -> list[str]:
    ground = f"{one_line(group.dataset)}, n = {group.n}"
    if grounded:
        _, data, indices, suite = (text[:_DIGITS_SHOWN] for text in _ground(group))
        ground += f", data {data}, indices {indices}, suite {suite}"
    if group.environment is not None:
        ground += f", computed with {one_line(group.environment)}"
    notes = [note for note in (_note(row, labelled=labelled) for row in group.rows) if note]
    listed = "\n".join(f"{number}. {note}" for number, note in enumerate(notes, start=1))
    if group.eps is None:
        heading = f"{_NORMS[group.norm]}, no budget"
        return [
            f"## {heading}",
            f"{ground}. Not ranked.",
            _unbudgeted_table(group, labelled=labelled),
            listed,
        ]
    heading = f"{_NORMS[group.norm]}, eps = {group.eps:g}"
    ranking = ranking_table(group, labelled=labelled)
    details = details_table(group, labelled=labelled)
    parts = [f"## {heading}", ground, ranking, listed, f"### {heading}, by attack", details]
    if group.seed_spreads:
        parts.extend((f"### {heading}, over training seeds", _seeds_table(group)))
    rejects = render_rejects(group, labelled=labelled)
    return [*parts, f"### {heading}, what detectors reject", rejects] if rejects else parts


def _note(row: Row, *, labelled: bool) -> str:
    """Return the caveats to read before believing a row; empty if there are none."""
    parts = []
    if row.flags:
        parts.append(f"{row.trust}, {'; '.join(f'{flag.name} ({flag.detail})' for flag in row.flags)}")
    if row.missing is not None:
        parts.append(f"incomplete, {row.missing}")
    if not parts:
        return ""
    where = f", {row.run}" if labelled and row.run else ""
    return one_line(f"{DEFENCE.text(row)} ({RULE.text(row)}{where}): {'; '.join(parts)}")


def _seeds_table(group: Group) -> str:
    header = ["defence", "rule", "seeds", "mean", "sd", "lowest", "highest"]
    lines = [
        [
            spread.defense + mark_of(spread.decision),
            spread.decision,
            str(len(spread.training_seeds)),
            percent(spread.mean),
            percent(spread.standard_deviation),
            percent(spread.lowest),
            percent(spread.highest),
        ]
        for spread in group.seed_spreads
    ]
    return table(header, lines, left=2)


def _unbudgeted_table(group: Group, *, labelled: bool) -> str:
    naming = [column for column in row_name_columns(labelled=labelled) if column.shown(group)]
    header = [*(column.title for column in naming), "examples", "attack", "clean", "accuracy", "wrong", "median norm"]
    lines = []
    for row in group.rows:
        named = [column.text(row) for column in naming]
        for score in row.threat_models:
            for attack in score.attacks:
                lines.append([*named, score.threat_model, attack.attack, percent(row.clean), *_reach(attack)])
                over = mean_over(score)
                if over and attack.mean_over_candidates is not None:
                    mean = percent(attack.mean_over_candidates)
                    lines.append([*named, f"- mean of {over}", attack.attack, "", mean, "", ""])
    return table(header, lines, left=len(naming) + 2)


def _reach(attack: AttackScore) -> list[str]:
    """Return accuracy, images lost and the median norm that it took."""
    if attack.robust is None:
        return [STATUS_WORDS[attack.status], NOTHING, NOTHING]
    if attack.fooling_norms is None:
        return [percent_interval(attack.robust), "0", NOTHING]
    norms = attack.fooling_norms
    return [percent_interval(attack.robust), str(norms.n), f"{norms.median:.3g}"]
