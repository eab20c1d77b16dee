"""Hand-made run records, with outcomes spelt as one letter for each image; and where the steps of a run keep things."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dkd_bench.records import (
    CandidateRecord,
    CellRecord,
    DatasetRecord,
    DefenseRecord,
    FlagRecord,
    Manifest,
    NormQuantiles,
    Outcome,
    RunRecord,
)
from dkd_bench.records.statistics import interval
from dkd_bench.steps.crafter import Crafter
from dkd_bench.store.files import TensorStore

LETTERS = {
    "r": Outcome.ROBUST,
    "f": Outcome.FOOLED,
    "m": Outcome.FAILED_MAJORITY,
    "a": Outcome.ABSTAINED,
    "c": Outcome.CLEAN_ERROR,
}

MakeCell = Callable[..., CellRecord]
MakeRun = Callable[..., RunRecord]


def _make_cell(outcomes: str = "rrrr", **changes: Any) -> CellRecord:
    """Return a cell of the defence ``dkd``; with ``status`` other than ok, one without numbers."""
    ok = changes.get("status", "ok") == "ok"
    told = tuple(LETTERS[letter] for letter in outcomes)
    n = len(told)
    accuracy = sum(letter in "ra" for letter in outcomes) / n
    values: dict[str, Any] = {
        "defense": "dkd",
        "decision": "majority",
        "dataset": "digits",
        "threat_model": "joint",
        "attack": "pgd",
        "norm": "linf",
        "eps": 0.1,
        "n": n,
        "clean_accuracy": 1 - outcomes.count("c") / n if ok else None,
        "robust_accuracy": accuracy if ok else None,
        "mean_robust_accuracy": accuracy if ok else None,
        "ci95": (0.0, 1.0) if ok else None,
        "failed_majorities": outcomes.count("m") if ok else None,
        "abstained": outcomes.count("a") if ok else None,
        "status": "ok",
        "wall_time_s": 0.5,
        "forward_passes": 40 * n if ok else 0,
        "evidence": (),
        "fooling_norms": None,
        "outcomes": told if ok else (),
        "candidates": (),
    }
    return CellRecord.model_validate(values | changes)


def _make_run(cells: Sequence[CellRecord], *, n: int | None = None, **changes: Any) -> RunRecord:
    """Return a run of these cells, every defence in them clean on all but one image."""
    n = cells[0].n if n is None else n
    randomized = {cell.defense for cell in cells if cell.survival is not None}
    abstaining = {cell.defense for cell in cells if Outcome.ABSTAINED in cell.outcomes}
    rules: dict[str, set[str]] = {}
    for cell in cells:
        rules.setdefault(cell.defense, set()).add(cell.decision)
    defenses = {
        defense: DefenseRecord(
            title=f"The {defense} defence",
            settings={},
            weights_key="k" * 64,
            weights_sha256="w" * 64,
            clean_accuracy={rule: interval(n - 1, n) for rule in sorted(rules[defense])},
            randomized=defense in randomized,
            abstains=defense in abstaining,
        )
        for defense in sorted(rules)
    }
    manifest: dict[str, Any] = {
        "versions": {"python": "3.11.7", "torch": "2.4.0"},
        "device": "cpu",
        "seed": 0,
        "recipe": "fast",
        "dataset": DatasetRecord(name="digits", digest="d1" * 32, n=n, indices=tuple(range(n))),
        "defenses": defenses,
        "plan_digest": "b2" * 32,
        "request": {},
        "command": "dkd-bench run --defense dkd --attack all",
    }
    values: dict[str, Any] = {
        "complete": all(cell.status == "ok" for cell in cells),
        "suite": {},
        "suite_fingerprint": "f3" * 32,
        "evidence": {},
        "cells": tuple(cells),
    }
    manifest |= {name: changes.pop(name) for name in list(changes) if name in Manifest.model_fields}
    return RunRecord.model_validate(values | changes | {"manifest": Manifest.model_validate(manifest)})


@pytest.fixture
def crafter(tmp_path: Path) -> Crafter:
    """Return a crafter that has made nothing yet."""
    return Crafter(TensorStore(tmp_path / "crafts"))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep weights and crafts of one test apart from those of others."""
    monkeypatch.setenv("DKD_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def make_cell() -> MakeCell:
    return _make_cell


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    return _make_run


@pytest.fixture(scope="session")
def small_run() -> RunRecord:
    """Return a run that shows everything a board can: two rules, a failure, a flag, rejects, no budget."""
    members = tuple(
        CandidateRecord(name=name, robust_accuracy=accuracy, ci95=(0.0, 1.0), failed_majorities=0, abstained=0)
        for name, accuracy in (("member 1", 0.9), ("member 2", 0.7), ("member 3", 0.8))
    )
    standalone = {"threat_model": "standalone", "mean_robust_accuracy": 0.8, "candidates": members}
    boosted = {"decision": "boosted"}
    magnet = {"defense": "magnet", "decision": "deployed"}
    oom = {"status": "error", "reason": "CUDA out of memory,\nask for a smaller --batch-size"}
    one = NormQuantiles(n=1, q25=1.25, median=1.25, q75=1.25)
    quantiles = NormQuantiles(n=3, q25=0.61, median=0.8125, q75=1.02)
    deepfool = {"attack": "deepfool", "norm": "l2", "eps": None, "threat_model": "joint"}
    return _make_run(
        [
            _make_cell("crrrrrrrrr", threat_model="black-box", attack="fgsm"),
            _make_cell("crrrrrrrrr", threat_model="black-box"),
            _make_cell("crrrrrrmmr", attack="fgsm", **standalone),
            _make_cell("crrrrrfmmr", **standalone),
            _make_cell("crrrrfmmmr", threat_model="aggregated", attack="fgsm"),
            _make_cell("crrrrfmmmr", threat_model="aggregated"),
            _make_cell("crrrffmfmr", attack="fgsm"),
            _make_cell("crrffffffm", forward_passes=123456),
            _make_cell("crrrrrrrrr", threat_model="black-box", attack="fgsm", **boosted),
            _make_cell("crrrrrrrrr", threat_model="black-box", **boosted),
            _make_cell("crrrrrrrrr", attack="fgsm", **standalone, **boosted),
            _make_cell("crrrrrfrrr", **standalone, **boosted),
            _make_cell("crrrrfrmrr", threat_model="aggregated", attack="fgsm", **boosted),
            _make_cell("crrrrfrrrr", threat_model="aggregated", **boosted),
            _make_cell("crrrffrfrr", attack="fgsm", **boosted),
            _make_cell("crrrfffffr", forward_passes=123456, **boosted),
            _make_cell("caaarrrrrr", threat_model="black-box", attack="fgsm", **magnet),
            _make_cell("caarrrrrrr", threat_model="black-box", **magnet),
            _make_cell("caaarrffrr", threat_model="standalone", attack="fgsm", **magnet),
            _make_cell("caaarfffrr", threat_model="standalone", **magnet),
            _make_cell("cafarfffrr", threat_model="aggregated", attack="fgsm", **magnet),
            _make_cell("caaarfffrr", threat_model="aggregated", **magnet),
            _make_cell(
                "cafarfffrr",
                attack="fgsm",
                flags=(FlagRecord(name="gradients may be masked", detail="7 of 10"),),
                **magnet,
            ),
            _make_cell("rrrrrrrrrr", **magnet, **oom),
            _make_cell("crrrrrrfff", fooling_norms=quantiles, **deepfool),
            _make_cell("crrrrrrrrr", **deepfool, **boosted),
            _make_cell("crrrrrrrrf", **(deepfool | standalone), fooling_norms=one),
            _make_cell("crrrrrrrrr", **(deepfool | standalone), **boosted),
            _make_cell("crrrrrrrrr", **(deepfool | {"threat_model": "standalone"}), **magnet),
            _make_cell("rrrrrrrrrr", **deepfool, **magnet, **oom),
        ]
    )
