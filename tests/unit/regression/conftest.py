"""Runs with a suite that says what its attacks were, and changes to them."""

from __future__ import annotations

from typing import Any

import pytest

from dkd_bench.records import RunRecord


def _suite(steps: dict[str, int]) -> dict[str, Any]:
    attacks = [{"name": name, "parameters": {"steps": number}, "code": "c" * 64} for name, number in steps.items()]
    return {"attacks": attacks, "threat_models": ["joint"], "chunk_size": 250, "eot_draws": 16}


@pytest.fixture(scope="session")
def suite():
    """Return the suite of pgd and fgsm, other attacks or other numbers of steps as named."""
    return lambda **steps: _suite({"pgd": 40, "fgsm": 1} | steps)


@pytest.fixture(scope="session")
def described(make_run, suite):
    """Make a run whose suite describes its attacks."""
    return lambda cells, **changes: make_run(cells, **({"suite": suite()} | changes))


@pytest.fixture(scope="session")
def with_defenses():
    """Return a run whose defences have other weights or flags."""

    def change(run: RunRecord, **changes: Any) -> RunRecord:
        defenses = {name: each.model_copy(update=changes) for name, each in run.manifest.defenses.items()}
        return run.model_copy(update={"manifest": run.manifest.model_copy(update={"defenses": defenses})})

    return change
