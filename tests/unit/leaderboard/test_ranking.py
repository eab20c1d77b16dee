"""Who is compared with whom, what the worst is, and in which order rows stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkd_bench.errors import ConfigError, EvidenceError
from dkd_bench.leaderboard import Board, Row, rank_runs, render_markdown
from dkd_bench.records import CellRecord, DatasetRecord, DetectorRecord, FlagRecord, RunRecord
from dkd_bench.records.statistics import interval, wilson_interval

MakeCell = Callable[..., CellRecord]
MakeRun = Callable[..., RunRecord]


def ranks(board: Board) -> list[tuple[int | None, str]]:
    (group,) = board.groups
    return [(row.rank, row.defense) for row in group.rows]


def flag(name: str) -> FlagRecord:
    return FlagRecord(name=name, detail="seen")


def only_row(board: Board) -> Row:
    (group,) = board.groups
    (row,) = group.rows
    return row


class TestFlags:
    def test_a_flagged_row_does_not_rank_and_takes_no_rank_away(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        run = make_run(
            [make_cell("r" * 9, defense="masked"), make_cell("r" * 8 + "f"), make_cell("r" + "f" * 8, defense="other")]
        )
        masked = run.manifest.defenses["masked"].model_copy(update={"flags": (flag("zero gradients"),)})
        defenses = run.manifest.defenses | {"masked": masked}
        run = run.model_copy(update={"manifest": run.manifest.model_copy(update={"defenses": defenses})})
        board = rank_runs([("a", run)])
        assert ranks(board) == [(1, "dkd"), (2, "other"), (None, "masked")]
        assert board.groups[0].rows[-1].flags == (flag("zero gradients"),)
        assert [row.trust for row in board.groups[0].rows] == ["accepted", "accepted", "suspicious"]

    def test_a_flagged_cell_flags_its_row(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        run = make_run([make_cell("rrrr", defense="masked", flags=(flag("odd"),)), make_cell("rrff")])
        assert ranks(rank_runs([("a", run)])) == [(1, "dkd"), (None, "masked")]


class TestRejects:
    def test_accuracy_on_what_is_accepted(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        seen = DetectorRecord(
            detector="error",
            candidate="whole",
            n_clean=8,
            n_adversarial=8,
            false_positive_rate=0.1,
            true_positive_rate=0.5,
            auc=0.9,
            roc=((0.0, 0.0), (1.0, 1.0)),
        )
        run = make_run([make_cell("crraaaff", detectors=(seen,))])
        record = run.manifest.defenses["dkd"].model_copy(
            update={"clean_rejected": {"majority": interval(1, 8)}, "clean_accuracy": {"majority": interval(7, 8)}}
        )
        run = run.model_copy(update={"manifest": run.manifest.model_copy(update={"defenses": {"dkd": record}})})
        board = rank_runs([("a", run)])
        row = only_row(board)
        (attack,) = row.threat_models[0].attacks
        assert attack.accepted == interval(2, 4)
        assert (row.clean_rejected, row.clean_accepted) == (interval(1, 8), 1.0)
        assert "error 90.0" in render_markdown(board)
        many = tuple(seen.model_copy(update={"detector": f"error {n}", "auc": 0.5 + n / 100}) for n in range(5))
        crowded = run.model_copy(update={"cells": (run.cells[0].model_copy(update={"detectors": many}),)})
        assert "5 detectors, 50.0 to 54.0" in render_markdown(rank_runs([("a", crowded)]))
        assert "37.5 | 50.0 [" in render_markdown(board)

    def test_what_never_abstains_has_none(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        row = only_row(rank_runs([("a", make_run([make_cell("rrff")]))]))
        assert (row.clean_rejected, row.clean_accepted, row.threat_models[0].attacks[0].accepted) == (None, None, None)


class TestWorst:
    def test_worst_is_per_image_and_not_the_least_accuracy(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        cells = [
            make_cell("frrr", attack="fgsm"),
            make_cell("rfrr"),
            make_cell("rrfr", threat_model="standalone", attack="fgsm"),
            make_cell("rrrr", threat_model="standalone"),
        ]
        row = only_row(rank_runs([("a", make_run(cells))]))
        standalone, joint = row.threat_models
        assert (standalone.threat_model, standalone.worst) == ("standalone", interval(3, 4))
        assert (joint.threat_model, joint.worst) == ("joint", interval(2, 4))
        assert row.worst == interval(1, 4)
        assert [attack.robust for attack in joint.attacks] == [interval(3, 4)] * 2

    def test_counts_are_of_the_merged_outcomes(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        cells = [make_cell("mmaar", attack="fgsm"), make_cell("fmamr")]
        row = only_row(rank_runs([("a", make_run(cells))]))
        assert (row.failed_majorities, row.abstained) == (2, 1)
        assert row.worst == interval(2, 5)
        assert row.abstains

    def test_randomised_defence_takes_the_least_share_per_image(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        cells = [
            make_cell("rrrr", attack="fgsm", survival=(1.0, 0.5, 0.8, 1.0)),
            make_cell("rrrr", survival=(0.2, 1.0, 0.8, 1.0)),
        ]
        row = only_row(rank_runs([("a", make_run(cells))]))
        assert row.randomized
        assert row.worst is not None
        assert row.worst.value == pytest.approx((0.2 + 0.5 + 0.8 + 1.0) / 4)
        assert row.worst.ci95 == (wilson_interval(2, 4)[0], wilson_interval(3, 4)[1])

    def test_numbers_come_from_the_outcomes(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        edited = make_cell("ffff", robust_accuracy=1.0)
        assert only_row(rank_runs([("a", make_run([edited]))])).worst == interval(0, 4)


class TestHoles:
    @pytest.mark.parametrize("status", ["error", "not_run"])
    def test_an_attack_that_failed_is_not_survival(self, make_cell: MakeCell, make_run: MakeRun, status: str) -> None:
        cells = [
            make_cell("rrrr", threat_model="standalone"),
            make_cell("rrrr", attack="fgsm"),
            make_cell("rrrr", status=status, reason="out of memory"),
            make_cell("rfff", defense="kd"),
            make_cell("rfff", defense="kd", attack="fgsm"),
            make_cell("rfff", defense="kd", threat_model="standalone"),
        ]
        board = rank_runs([("a", make_run(cells))])
        assert ranks(board) == [(1, "kd"), (None, "dkd")]
        row = board.groups[0].rows[1]
        standalone, joint = row.threat_models
        assert standalone.worst == interval(4, 4)
        assert joint.worst is None
        assert (row.worst, row.failed_majorities, row.abstained) == (None, None, None)
        assert (row.status, row.missing) == (status, "joint (pgd): out of memory")

    def test_lacking_a_threat_model_is_unranked(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        cells = [
            make_cell("rrrr", defense="flattered", threat_model="standalone"),
            make_cell("rrrr", threat_model="standalone"),
            make_cell("rfff"),
        ]
        board = rank_runs([("a", make_run(cells))])
        assert ranks(board) == [(1, "dkd"), (None, "flattered")]
        assert board.groups[0].rows[1].missing == "joint (pgd): not part of the run"

    def test_lacking_an_attack_is_unranked(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        cells = [make_cell("rfff"), make_cell(attack="fgsm"), make_cell(attack="fgsm", defense="flattered")]
        board = rank_runs([("a", make_run(cells))])
        assert ranks(board) == [(1, "dkd"), (None, "flattered")]

    def test_attacks_for_randomised_defences_are_not_missed_in_others(
        self, make_cell: MakeCell, make_run: MakeRun
    ) -> None:
        cells = [
            make_cell("r" * 10 + "f" * 10, attack="autoattack"),
            make_cell("r" * 20, attack="autoattack-rand", defense="noise", survival=(0.9,) * 20),
        ]
        assert ranks(rank_runs([("a", make_run(cells))])) == [(1, "noise"), (2, "dkd")]

    def test_a_defence_that_was_never_trained_asks_nothing_of_others(
        self, make_cell: MakeCell, make_run: MakeRun
    ) -> None:
        failed = make_cell(defense="noise", attack="autoattack-rand", status="error", reason="no data")
        run = make_run([make_cell("rrff", attack="autoattack"), failed])
        trained = {"dkd": run.manifest.defenses["dkd"]}
        board = rank_runs([("a", make_run(run.cells, defenses=trained))])
        assert ranks(board) == [(1, "dkd"), (None, "noise")]

    def test_one_reason_is_told_once(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        broken: dict[str, Any] = {"status": "error", "reason": "training failed"}
        cells = [
            make_cell(**broken),
            make_cell(**broken, attack="fgsm"),
            make_cell(**broken, threat_model="standalone"),
            make_cell(status="not_run", threat_model="black-box"),
        ]
        row = only_row(rank_runs([("a", make_run(cells))]))
        assert row.status == "error"
        assert row.missing == "black-box (pgd): not run. standalone (pgd); joint (fgsm, pgd): training failed"

    def test_a_defence_that_was_never_trained_has_a_row(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        run = make_run([make_cell(status="error", reason="training failed")], defenses={})
        row = only_row(rank_runs([("a", run)]))
        assert (row.title, row.clean, row.worst) == ("dkd", None, None)


class TestOrder:
    def test_ties_share_a_rank_and_stand_by_value_then_name(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        worst = {"none": "f" * 20, "ri": "r" * 10 + "f" * 10, "dkd": "r" * 20, "kd": "r" * 11 + "f" * 9, "a": "f" * 20}
        board = rank_runs([("a", make_run([make_cell(told, defense=name) for name, told in worst.items()]))])
        assert ranks(board) == [(1, "dkd"), (2, "kd"), (2, "ri"), (4, "a"), (4, "none")]

    def test_what_five_images_say_is_a_tie_and_what_six_say_is_not(
        self, make_cell: MakeCell, make_run: MakeRun
    ) -> None:
        """McNemar's exact test of 5 discordant images against 0 gives 0.0625, of 6 against 0 gives 0.03125."""
        for lost, rank, p_value in ((5, 1, 0.0625), (6, 2, 0.03125)):
            cells = [make_cell("r" * 20), make_cell("f" * lost + "r" * (20 - lost), defense="other")]
            first, second = rank_runs([("a", make_run(cells))]).groups[0].rows
            assert (first.rank, first.behind) == (1, None)
            assert second.rank == rank
            assert second.behind is not None
            assert second.behind.value == pytest.approx(-lost / 20)
            assert second.behind.p_value == pytest.approx(p_value)

    def test_more_accuracy_on_other_images_is_no_better(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        cells = [make_cell("r" * 12 + "f" * 8), make_cell("f" * 10 + "r" * 10, defense="other")]
        assert ranks(rank_runs([("a", make_run(cells))])) == [(1, "dkd"), (1, "other")]

    def test_groups_go_by_norm_and_eps_then_no_budget(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        budgets = [("l2", None), ("l2", 1.0), ("linf", 0.3), ("linf", None), ("l2", 0.5), ("linf", 0.04)]
        board = rank_runs([("a", make_run([make_cell(norm=norm, eps=eps) for norm, eps in budgets]))])
        assert [(group.norm, group.eps) for group in board.groups] == [
            ("linf", 0.04),
            ("linf", 0.3),
            ("l2", 0.5),
            ("l2", 1.0),
            ("linf", None),
            ("l2", None),
        ]

    def test_no_budget_no_rank(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        row = only_row(rank_runs([("a", make_run([make_cell("rrrf", norm="l2", eps=None)]))]))
        assert (row.rank, row.worst, row.missing) == (None, None, None)
        (score,) = row.threat_models
        assert score.worst is None
        assert score.attacks[0].robust == interval(3, 4)

    def test_threat_models_are_read_from_least_sight_to_most(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        names = ["joint", "zeal", "black-box", "aggregated", "my-own", "standalone"]
        board = rank_runs([("a", make_run([make_cell(threat_model=name) for name in names]))])
        expected = ("black-box", "standalone", "aggregated", "joint", "my-own", "zeal")
        assert board.groups[0].threat_models == expected
        assert tuple(score.threat_model for score in only_row(board).threat_models) == expected

    @settings(deadline=None, max_examples=20)
    @given(data=st.data())
    def test_the_order_of_cells_and_runs_makes_no_difference(
        self, data: st.DataObject, make_run: MakeRun, small_run: RunRecord
    ) -> None:
        second = make_run(small_run.cells[:8], seed=1)
        shuffled = small_run.model_copy(update={"cells": tuple(data.draw(st.permutations(small_run.cells)))})
        runs = data.draw(st.permutations([("a", shuffled), ("b", second)]))
        assert rank_runs(runs) == rank_runs([("a", small_run), ("b", second)])


class TestRuns:
    def test_one_defence_in_two_runs_is_two_rows(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        first, second = make_run([make_cell("r" + "f" * 9)]), make_run([make_cell("r" * 9 + "f")], seed=1)
        board = rank_runs([("seed-0", first), ("seed-1", second)])
        assert [(row.rank, row.run) for row in board.groups[0].rows] == [(1, "seed-1"), (2, "seed-0")]
        assert [(run.label, run.seed) for run in board.runs] == [("seed-0", 0), ("seed-1", 1)]

    def test_only_what_differs_in_nothing_but_the_seed_has_a_spread(
        self, make_cell: MakeCell, make_run: MakeRun
    ) -> None:
        def trained(seed: int, robust: int, **changes: Any) -> RunRecord:
            return make_run([make_cell("r" * robust + "f" * (10 - robust))], training_seed=seed, **changes)

        runs = {"a": trained(1, 4), "b": trained(2, 6), "other": trained(3, 9, recipe="paper")}
        (spread,) = rank_runs(list(runs.items())).groups[0].seed_spreads
        assert (spread.training_seeds, spread.mean, spread.lowest, spread.highest) == ((1, 2), 0.5, 0.4, 0.6)
        assert spread.standard_deviation == pytest.approx(0.1414, abs=1e-4)
        alone = [("a", runs["a"]), ("other", runs["other"])]
        assert rank_runs(alone).groups[0].seed_spreads == ()

    @pytest.mark.parametrize(
        "change",
        [
            {"suite_fingerprint": "e4" * 32},
            {"dataset": DatasetRecord(name="mnist", digest="d1" * 32, n=4, indices=(0, 1, 2, 3))},
            {"dataset": DatasetRecord(name="digits", digest="d2" * 32, n=4, indices=(0, 1, 2, 3))},
            {"dataset": DatasetRecord(name="digits", digest="d1" * 32, n=4, indices=(0, 1, 2, 4))},
        ],
        ids=["suite", "dataset", "digest", "indices"],
    )
    def test_unlike_runs_are_not_ranked_together(
        self, make_cell: MakeCell, make_run: MakeRun, change: dict[str, Any]
    ) -> None:
        cells = [make_cell()]
        board = rank_runs([("a", make_run(cells)), ("b", make_run(cells, **change))])
        assert [[row.rank for row in group.rows] for group in board.groups] == [[1], [1]]

    def test_flags_are_gathered(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        cells = [make_cell(flags=(flag("b"), flag("a"))), make_cell(attack="fgsm", flags=(flag("b"), flag("c")))]
        assert only_row(rank_runs([("x", make_run(cells))])).flags == (flag("a"), flag("b"), flag("c"))

    def test_mean_needs_several_candidates(self, small_run: RunRecord) -> None:
        row = rank_runs([("a", small_run)]).groups[0].rows[0]
        means = {score.threat_model: score.attacks[0].mean_over_candidates for score in row.threat_models}
        assert means == {"black-box": None, "standalone": 0.8, "aggregated": None, "joint": None}

    def test_no_runs(self) -> None:
        with pytest.raises(ConfigError, match="expected at least one run to rank, got none"):
            rank_runs([])

    def test_one_label_twice(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        run = make_run([make_cell()])
        with pytest.raises(ConfigError, match="each run needs its own label, got 'b' twice"):
            rank_runs([("a", run), ("b", run), ("b", run)])

    def test_a_cell_must_tell_of_every_image(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        run = make_run([make_cell("rrr", n=4)])
        with pytest.raises(
            EvidenceError, match=r"'a': dkd majority, joint, pgd linf 0\.1 should tell of 4 images, got 3 outcomes"
        ):
            rank_runs([("a", run)])

    def test_survival_must_tell_of_every_image(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        run = make_run([make_cell("rrrr", survival=(1.0, 1.0))])
        with pytest.raises(EvidenceError, match="should tell of 4 images, got 4 outcomes and 2 shares"):
            rank_runs([("a", run)])

    def test_a_cell_told_twice(self, make_cell: MakeCell, make_run: MakeRun) -> None:
        run = make_run([make_cell("rrrr"), make_cell("ffff")])
        with pytest.raises(EvidenceError, match=r"run 'a' has two cells for dkd majority, joint, pgd linf 0\.1"):
            rank_runs([("a", run)])


class TestEnvironments:
    @pytest.fixture
    def runs(self, make_cell: MakeCell, make_run: MakeRun) -> list[tuple[str, RunRecord]]:
        newer = {"versions": {"torch": "2.15.0"}, "environment": {"threads": "2"}}
        return [
            ("here", make_run([make_cell("rrrf")])),
            ("there", make_run([make_cell("rrff", defense="kd")], **newer)),
        ]

    def test_runs_of_one_suite_rank_together_and_the_legend_says_so(self, runs: list[tuple[str, RunRecord]]) -> None:
        board = rank_runs(runs)
        assert ranks(board) == [(1, "dkd"), (1, "kd")]
        assert board.groups[0].environment is None
        assert (
            "- Computed in several environments: here torch 2.4.0, threads unknown; there torch 2.15.0, threads 2. The "
            "attacks are the same; trained weights, and images at the very boundary, need not be.\n"
        ) in render_markdown(board)
        assert "environment" not in render_markdown(rank_runs(runs[:1]))

    def test_a_strict_board_keeps_them_apart(self, runs: list[tuple[str, RunRecord]]) -> None:
        board = rank_runs(runs, strict_environment=True)
        assert [group.environment for group in board.groups] == [
            "torch 2.15.0, device cpu, threads 2",
            "torch 2.4.0, device cpu",
        ]
        assert [len(group.rows) for group in board.groups] == [1, 1]
        assert "digits, n = 4, computed with torch 2.4.0, device cpu" in render_markdown(board)
