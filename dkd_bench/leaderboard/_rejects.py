"""Table of rejects by abstaining defences: rates, accuracy on the rest, and how well each detector sees an attack."""

from __future__ import annotations

from collections.abc import Sequence

from dkd_bench.leaderboard._board import AttackScore, Group, Row
from dkd_bench.leaderboard._table import NOTHING, percent, percent_interval, table
from dkd_bench.records import DetectorRecord

_FEW = 4
"""Number of detectors that are named one by one, at most."""


def render_rejects(group: Group, *, labelled: bool) -> str:
    """Return the table of the group's abstaining rows; empty if there is none."""
    header = ["run", "defence", "examples", "attack", "rejected", "accepted", "AUC by detector"]
    lines = []
    for row in group.rows:
        if row.clean_rejected is None:
            continue
        name = [row.run if labelled else "", row.defense]
        clean = NOTHING if row.clean_accepted is None else percent(row.clean_accepted)
        lines.append([*name, "none (clean)", "", percent_interval(row.clean_rejected), clean, ""])
        for score in row.threat_models:
            lines.extend([*name, score.threat_model, *_attacked(group, row, attack)] for attack in score.attacks)
    return table(header, lines, left=4) if lines else ""


def _attacked(group: Group, row: Row, attack: AttackScore) -> list[str]:
    if attack.abstained is None:
        return [attack.attack, NOTHING, NOTHING, ""]
    accepted = NOTHING if attack.accepted is None else percent_interval(attack.accepted)
    return [attack.attack, percent(attack.abstained / group.n), accepted, _areas(attack.detectors)]


def _areas(detectors: Sequence[DetectorRecord]) -> str:
    """Return the area under each detector's curve; of many their number, the least and the largest."""
    if len(detectors) <= _FEW:
        return ", ".join(f"{each.detector} {percent(each.auc)}" for each in detectors)
    areas = sorted(each.auc for each in detectors)
    return f"{len(areas)} detectors, {percent(areas[0])} to {percent(areas[-1])}"
