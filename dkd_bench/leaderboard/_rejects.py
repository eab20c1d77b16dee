"""What abstaining defences reject: rates, accuracy on the rest, and how well each detector sees an attack."""

from __future__ import annotations

from dkd_bench.leaderboard._board import AttackScore, Group, Row
from dkd_bench.leaderboard._table import NOTHING, percent, percent_interval, table


def render_rejects(group: Group, *, labelled: bool) -> str:
    """Return the table of the group's abstaining rows; empty if there is none."""
    header = ["run", "defence", "examples", "attack", "rejected", "accepted", "AUC by detector"]
    lines = []
    for row in group.rows:
        if row.clean_rejected is None:
            continue
        who = [row.run if labelled else "", row.defense]
        clean = NOTHING if row.clean_accepted is None else percent(row.clean_accepted)
        lines.append([*who, "none (clean)", "", percent_interval(row.clean_rejected), clean, ""])
        for score in row.threat_models:
            lines.extend([*who, score.threat_model, *_attacked(group, row, attack)] for attack in score.attacks)
    return table(header, lines, left=4) if lines else ""


def _attacked(group: Group, row: Row, attack: AttackScore) -> list[str]:
    if attack.abstained is None:
        return [attack.attack, NOTHING, NOTHING, ""]
    curves = [f"{each.detector} {percent(each.auc)}" for each in attack.detectors]
    accepted = NOTHING if attack.accepted is None else percent_interval(attack.accepted)
    return [attack.attack, percent(attack.abstained / group.n), accepted, ", ".join(curves)]
