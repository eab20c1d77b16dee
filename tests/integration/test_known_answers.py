"""Defences whose fault is known, attacked as any other: each raises its flag, and honest ones raise none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dkd_bench.flags import (
    ATTACK_ERROR,
    BAD_GRADIENTS,
    BLACK_BOX,
    INTERRUPTED,
    MISLEADING,
    MORE_STEPS,
    NOISE,
    NOT_ADMITTED,
    PROBABILITIES,
    RANDOM,
    TRANSFER,
    UNBOUNDED,
    ZERO_GRADIENTS,
)
from dkd_bench.leaderboard import Row, rank_runs
from dkd_bench.records import RunRecord
from dkd_bench.rundir import load_run
from tiny_task import known


@pytest.fixture
def flags(bench: Callable[..., RunRecord], cache: Path) -> Callable[..., set[str]]:
    def raised(defense: str, **words: object) -> set[str]:
        rows = attacked(bench, defense if defense.islower() else known(defense), **words)
        for eps, row in rows:
            assert (row.trust == "accepted" and eps is not None) == (row.rank is not None)
        return {flag.name for _, row in rows for flag in row.flags}

    return raised


def attacked(bench: Callable[..., RunRecord], defense: str, **words: object) -> list[tuple[float | None, Row]]:
    """Return every row of the defence, each with the budget of its group."""
    defaults: dict[str, object] = {"attacks": ("fgsm", "pgd", "deepfool"), "eps": (0.05, 0.2), "n_examples": 60}
    record = bench(defenses=(defense,), **(defaults | words))
    return [(group.eps, row) for group in rank_runs([("run", record)]).groups for row in group.rows]


HONEST: dict[str, dict[str, object]] = {
    "Linear": {},
    "Plain": {},
    "none": {},
    "at": {},
    # Not on these weights, but under one training seed of ten "black-box beats white-box" is raised, though the defence
    # is honest: today's joint attack is weak, and 3 images of 60 fall to FGSM on a member alone. No other flag is.
    "dkd": {},
    "Reject": {"attacks": ("fgsm", "pgd", "detector-pgd"), "threat_models": ("joint",)},
    "Smooth": {
        "threat_models": ("joint",),
        "eot_draws": 4,
        "settings": ("pgd.steps=10", "pgd.rel_stepsize=0.25"),
    },
}
"""Defences and how they are attacked; over ten training seeds in ``benchmarks/training_seeds.py``."""


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_defence_raises_none(flags: Callable[..., set[str]], name: str) -> None:
    assert flags(name, **HONEST[name]) == set()


@pytest.mark.parametrize("seed", [1, 2])
def test_an_honest_random_defence_raises_none_whatever_its_draws(flags: Callable[..., set[str]], seed: int) -> None:
    assert flags("Smooth", seed=seed, training_seed=0, **HONEST["Smooth"]) == set()


def test_an_attack_that_has_not_converged_is_told_of(flags: Callable[..., set[str]]) -> None:
    words: dict[str, object] = {"attacks": ("pgd",), "threat_models": ("joint",), "eps": (0.1,)}
    assert flags("none", settings=("pgd.steps=1", "pgd.random_start=false", "pgd.rel_stepsize=0.3"), **words) == {
        MORE_STEPS
    }
    assert flags("none", name="converged", **words) == set()


def test_an_attack_that_searches_less_than_chance_is_told_of(flags: Callable[..., set[str]]) -> None:
    """Without a gradient no attack moves an image, and random points of a wide budget fool the network."""
    words: dict[str, object] = {"attacks": ("fgsm",), "threat_models": ("joint",), "eps": (0.3,)}
    assert NOISE in flags("Quantised", **words)
    assert flags("Plain", name="honest", **words) == set()


def test_what_was_crafted_for_a_challenge_is_found_again(
    bench: Callable[..., RunRecord], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: dict[str, object] = {"defenses": ("none",), "attacks": ("pgd",), "threat_models": ("joint",)}
    first = bench("first", **words)
    monkeypatch.setattr("dkd_bench.attacks.foolbox_attacks.PGD._perturb", lambda *_: pytest.fail("attacked again"))
    assert bench("second", **words).cells == first.cells


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("Hot", {ZERO_GRADIENTS}, id="temperature"),
        pytest.param("Quantised", {ZERO_GRADIENTS, UNBOUNDED, BLACK_BOX}, id="quantisation"),
        pytest.param("Sleeper", {ZERO_GRADIENTS, PROBABILITIES, UNBOUNDED, BLACK_BOX}, id="argmax sleeper"),
        pytest.param("LabelNoise", {RANDOM}, id="label noise"),
        pytest.param("Counting", {RANDOM}, id="state"),
        pytest.param("RejectsAll", {NOT_ADMITTED}, id="rejects all"),
        pytest.param("NotANumber", {NOT_ADMITTED}, id="not a number"),
        pytest.param("Listed", {NOT_ADMITTED}, id="members in a list"),
        pytest.param("Preprocessed", {TRANSFER}, id="undeclared preprocessing"),
        pytest.param("Steep", {BAD_GRADIENTS}, id="infinite gradients"),
        pytest.param("Junked", {MISLEADING}, id="gradients of something else"),
        pytest.param("Learning", {RANDOM}, id="learns from what it is asked"),
        pytest.param("Backward", {NOT_ADMITTED, ATTACK_ERROR}, id="no way back"),
    ],
)
def test_each_fault_raises_its_flag(flags: Callable[..., set[str]], name: str, expected: set[str]) -> None:
    assert expected <= flags(name)


@pytest.mark.parametrize("evidence", ["all", "none"])
def test_a_run_interrupted_while_it_is_challenged_is_not_through(
    bench: Callable[..., RunRecord], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evidence: str
) -> None:
    words: dict[str, object] = {"defenses": ("none",), "attacks": ("pgd",), "threat_models": ("joint",)}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dkd_bench.challenge.Challenger.challenge", stop)
        with pytest.raises(KeyboardInterrupt):
            bench("run", evidence=evidence, **words)
    record = load_run(tmp_path / "run")
    (row,) = rank_runs([("run", record)]).groups[0].rows
    assert not record.complete
    assert (row.rank, row.trust, [flag.name for flag in row.flags]) == (None, "invalid", [INTERRUPTED])
    again = bench("run", evidence=evidence, **words)
    assert again.complete
    assert again.manifest.defenses["none"].flags == ()
    left = list((cache / "crafts").glob("*.safetensors"))
    assert bool(left) == (evidence == "all")


def test_a_challenge_that_fails_leaves_the_run_incomplete_and_the_rest_in_place(
    bench: Callable[..., RunRecord], cache: Path
) -> None:
    words: dict[str, object] = {"attacks": ("pgd",), "threat_models": ("joint",), "eps": (0.05,)}
    record = bench(defenses=(known("Fragile"), "none"), **words)
    assert not record.complete
    assert {cell.status for cell in record.cells} == {"ok"}
    (flag,) = record.manifest.defenses["fragile"].flags
    assert flag.name == ATTACK_ERROR
    assert "when it was challenged: defence 'fragile' fails on images: ValueError: too far" in flag.detail
    assert record.manifest.defenses["none"].flags == ()
