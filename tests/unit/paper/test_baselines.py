"""The known answers out of hand-made records: each number in its place, and each verdict by its own rule."""

from __future__ import annotations

import pytest

from dkd_paper._baselines import BASELINE_PARTS, EPS, GAN_L2, MAGNET_L2, NAMES, baselines

N = 40

AS_KNOWN = {
    ("oblivious-fgsm", "none"): 0,
    ("oblivious-fgsm", "pixel-defend"): 28,
    ("oblivious-fgsm-gan", "defense-gan"): 36,
    ("oblivious-cw", "magnet"): 39,
    ("oblivious-deepfool", "magnet"): 38,
    ("robust-pgd", "none"): 1,
    ("robust-pgd", "at"): 35,
    ("robust-pgd", "trades"): 36,
    ("robust-autoattack", "at"): 33,
    ("robust-autoattack", "trades"): 32,
    ("adaptive-magnet-cw", "magnet"): 2,
    ("adaptive-magnet-pgd", "magnet"): 10,
    ("adaptive-pixel-defend-linf", "pixel-defend"): 3,
    ("adaptive-pixel-defend-l2", "pixel-defend"): 1,
    ("adaptive-gan", "defense-gan"): 22,
    ("latent-gan", "defense-gan"): 4,
}
"""Images that withstand, of 40, where all comes out as it is known; others withstand on 20."""


@pytest.fixture
def measured(make_cell, make_run):
    def of(**changed):
        withstood = AS_KNOWN | changed.pop("numbers", {})
        runs = {}
        for part in BASELINE_PARTS:
            cells = [
                make_cell(
                    "r" * right + "f" * (N - right),
                    defense=defense,
                    decision="deployed",
                    threat_model=threat_model,
                    attack=part.attack,
                    norm=part.norm,
                    eps=eps,
                )
                for defense in part.defenses
                for right in [withstood.get((part.name, defense), 20)]
                for threat_model in part.threat_models
                for eps in part.eps or (None,)
            ]
            runs[part.name, 0] = make_run(cells)
        return baselines(runs, "MNIST")

    return of


def rows(tables, title):
    (block,) = [block for block in tables.blocks if title in block.title]
    return {row.label: row.entries for row in block.rows}


def verdicts(tables):
    return [trend.verdict for trend in tables.trends]


def test_each_number_stands_beside_the_published_one(measured):
    tables = measured()
    claims = rows(tables, "claims")
    breaks = rows(tables, "breakers")
    (cw,) = claims["MagNet, C&W on the classifier (authors)"]
    assert (cw.measured.value, cw.paper) == (39 / 40, 0.995)
    (broken,) = breaks[f"MagNet, detector-aware C&W, L2 up to {MAGNET_L2:g} (Carlini and Wagner 2017)"]
    assert (broken.measured.value, broken.paper) == (2 / 40, 0.01)
    (gan,) = breaks[f"Defense-GAN, PGD with BPDA, L2 {GAN_L2:g} (Athalye et al. 2018)"]
    assert (gan.measured.value, gan.paper) == (22 / 40, 0.55)
    (trades,) = rows(tables, "references")["TRADES, PGD-40, Linf 0.3"]
    assert (trades.measured.value, trades.paper) == (36 / 40, 0.9607)


def test_table_4_has_every_baseline_with_the_authors_numbers_where_there_are(measured):
    table = rows(measured(), "Table 4")
    assert list(table) == list(NAMES.values())
    assert [entry.paper for entry in table["MagNet"]] == [0.9031, 0.6519, 0.6141, 0.8014, 0.4821, 0.6518]
    assert [entry.paper for entry in table["TRADES"]] == [None] * 6
    assert table["Defense-GAN"][1].measured.value == 36 / 40


def test_known_answers_are_confirmed(measured):
    assert verdicts(measured()) == ["confirmed"] * 8


@pytest.mark.parametrize(
    ("place", "number", "verdict"),
    [
        (("oblivious-cw", "magnet"), 35, 0),
        (("adaptive-magnet-cw", "magnet"), 5, 1),
        (("oblivious-fgsm", "pixel-defend"), 11, 2),
        (("adaptive-pixel-defend-linf", "pixel-defend"), 8, 3),
        (("adaptive-pixel-defend-l2", "pixel-defend"), 8, 3),
        (("oblivious-fgsm-gan", "defense-gan"), 30, 4),
        (("adaptive-gan", "defense-gan"), 23, 5),
        (("robust-pgd", "trades"), 33, 6),
        (("robust-autoattack", "at"), 36, 7),
    ],
)
def test_each_answer_that_does_not_come_out_contradicts_its_own_claim(measured, place, number, verdict):
    found = verdicts(measured(numbers={place: number}))
    assert found[verdict] == "contradicted"


def test_every_part_is_attacked_in_a_budget_that_its_attack_knows():
    from dkd_bench.budget import Budget
    from dkd_bench.plugins import registry

    for part in BASELINE_PARTS:
        attack = registry.load("attacks", part.attack)()
        for eps in part.eps or (None,):
            norm = part.norm if part.norm in attack.meta.norms else attack.meta.norms[0]
            attack.check_budget(Budget(norm=norm, eps=None if attack.meta.kind == "minimum_norm" else eps))
    assert EPS == 0.3
