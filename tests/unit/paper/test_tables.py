"""Whole tables out of hand-made records, in which every place has a number of its own."""

from __future__ import annotations

import pytest

from dkd_paper import study as _parts
from dkd_paper._tables import table2, table3, table4

N = 40
RULES = {
    "none": ("deployed",),
    "dkd": ("majority", "boosted"),
    "kd": ("majority", "boosted"),
    "ri": ("majority", "boosted"),
}


@pytest.fixture
def study(make_cell, make_run):
    """Make the runs of some parts: ``lost`` says of how many images a cell is fooled, and its votes fail."""

    def of(parts, lost):
        runs = {}
        for part in parts:
            cells = []
            for defense, rules in RULES.items():
                for rule in rules:
                    for threat_model in part.threat_models:
                        for eps in part.eps or (None,):
                            fooled, failed = lost(part.name, defense, rule, threat_model, eps)
                            cells.append(
                                make_cell(
                                    "f" * fooled + "m" * failed + "r" * (N - fooled - failed),
                                    defense=defense,
                                    decision=rule,
                                    threat_model=threat_model,
                                    attack=part.attack,
                                    norm="linf" if part.eps else "l2",
                                    eps=eps,
                                    mean_robust_accuracy=1 - fooled / N / 2,
                                )
                            )
            runs[part.name, 0] = make_run(cells)
        return runs

    return of


def columns_of(block):
    return {
        row.label: dict(
            zip(block.columns, (entry.measured and entry.measured.value for entry in row.entries), strict=True)
        )
        for row in block.rows
    }


def paper_of(block):
    return {
        row.label: dict(zip(block.columns, (entry.paper for entry in row.entries), strict=True)) for row in block.rows
    }


def black_box(part, defense, rule, threat_model, eps):
    """The boosted vote always saves two; a part's number is its place among the parts, or that of its eps."""
    place = [each.name for each in _parts.BLACK_BOX_PARTS].index(part) + (0 if eps is None else int(eps * 100))
    failed = 2 + {"dkd": 6, "kd": 0, "ri": 3, "none": 0}[defense] + (-2 if rule == "boosted" else 0)
    return place, 0 if defense == "none" else failed


def test_table2_finds_each_count_and_gain(study):
    made = table2(study(_parts.BLACK_BOX_PARTS, black_box), "MNIST")
    counts, gains = map(columns_of, made.blocks)

    for label in counts:
        assert counts[label] == pytest.approx(
            {"KD": 2 / N, "KD*": 0, "DKD": 8 / N, "DKD*": 6 / N, "RI": 5 / N, "RI*": 3 / N}
        ), label
    assert gains == {family: pytest.approx({"KD": 2 / N, "DKD": 2 / N, "RI": 2 / N}) for family in gains}
    assert paper_of(made.blocks[0])["FGSM .1"]["DKD"] == 0.0844
    assert [each.verdict for each in made.trends] == ["confirmed", "confirmed"]
    assert made.trends[0].evidence == "in 27 of 27 comparisons; in the authors' own numbers, in 26 of 26"
    assert made.trends[1].evidence.endswith("in the authors' own numbers, in 5 of 9")


def test_table3_finds_the_place_of_each_setting(study):
    made = table3(study(_parts.BLACK_BOX_PARTS, black_box), "MNIST")
    accuracies = columns_of(made.blocks[0])

    assert accuracies.pop("clean") == pytest.approx(dict.fromkeys(made.blocks[0].columns, 1 - 1 / N))
    fooled = {
        "DeepFool 1": 0,
        "DeepFool 200": 1,
        "C&W 1": 2,
        "C&W 200": 3,
        "JSMA 1": 4,
        "JSMA 200": 5,
        "FGSM .04": 6 + 4,
        "FGSM .08": 6 + 8,
        "FGSM .1": 6 + 10,
    }
    for label, lost in fooled.items():
        assert accuracies[label] == pytest.approx(
            {
                "none": 1 - lost / N,
                "KD": 1 - (lost + 2) / N,
                "KD*": 1 - lost / N,
                "DKD": 1 - (lost + 8) / N,
                "DKD*": 1 - (lost + 6) / N,
                "RI": 1 - (lost + 5) / N,
                "RI*": 1 - (lost + 3) / N,
            }
        ), label
    assert [each.verdict for each in made.trends] == ["confirmed", "contradicted"]


PLACES = {"white-box-fgsm": 0, "white-box-jsma-200": 2, "white-box-cw-200": 3, "white-box-deepfool-200": 4}
OF_DEFENSE = {"none": 20, "dkd": 0, "kd": 5, "ri": 10}
OF_THREAT_MODEL = {"standalone": 2, "aggregated": 1, "joint": 4}


def white_box(part, defense, rule, threat_model, eps):
    fooled = PLACES[part] + (eps == 0.08) + OF_DEFENSE[defense] + OF_THREAT_MODEL[threat_model]
    return fooled + (10 if rule == "majority" else 0), 0


def test_table4_takes_the_boosted_vote_the_mean_and_the_worst_member(study):
    made = table4(study(_parts.WHITE_BOX_PARTS, white_box), "MNIST")
    accuracies = columns_of(made.blocks[0])

    places = {"FGSM .04": 0, "FGSM .08": 1, "JSMA": 2, "C&W": 3, "DeepFool": 4}
    for column, place in places.items():
        assert accuracies["none"][column] == pytest.approx(1 - (place + 22) / N)
        for name, own in (("DKD", 0), ("KD", 5), ("RI", 10)):
            assert accuracies[f"{name}* standalone"][column] == pytest.approx(1 - (place + own + 2) / N / 2)
            assert accuracies[f"{name}* standalone, worst member"][column] == pytest.approx(1 - (place + own + 2) / N)
            assert accuracies[f"{name}* aggregated"][column] == pytest.approx(1 - (place + own + 1) / N)
            assert accuracies[f"{name}* joint"][column] == pytest.approx(1 - (place + own + 4) / N)
    assert accuracies["MagNet"] == dict.fromkeys(made.blocks[0].columns)
    assert paper_of(made.blocks[0])["DKD* aggregated"]["C&W"] == 0.9808
    assert paper_of(made.blocks[0])["DKD* joint"]["C&W"] is None
    assert [each.verdict for each in made.trends] == ["confirmed", "contradicted", "confirmed", "confirmed"]
    assert made.trends[1].evidence.endswith("in the authors' own numbers, in 3 of 5")
    assert made.trends[3].evidence.startswith("in 2 of 2 comparisons; FGSM .04 0.9000 against 0.6500")
