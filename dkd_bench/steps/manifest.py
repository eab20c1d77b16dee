"""What it takes to make a run again, gathered for its record."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from platform import python_version
from typing import Any

import dkd_bench
from dkd_bench.plugins.settings import settings_as_json
from dkd_bench.records import DatasetRecord, DefenseRecord, FlagRecord, Interval, Manifest, SeparationRecord
from dkd_bench.records.environment import current_environment
from dkd_bench.records.rules import deployed_rule
from dkd_bench.steps.plan import CHUNK_SIZE
from dkd_bench.steps.prepare import Workbench
from dkd_bench.store.digests import library_versions

LIBRARIES = ("foolbox", "numpy", "pyautoattack", "safetensors", "scikit-learn", "scipy", "torch", "torchvision")


def make_manifest(
    bench: Workbench,
    clean: Mapping[str, dict[str, Interval]],
    rejected: Mapping[str, dict[str, Interval]],
    separations: Mapping[str, SeparationRecord],
    flags: Mapping[str, tuple[FlagRecord, ...]],
) -> Manifest:
    """Return the manifest of a run.

    Args:
        bench: what the run works with.
        clean: the accuracy of each defence on the run's images, by decision rule.
        rejected: the share of those images that a defence rejects, by decision rule, for those that abstain.
        separations: the latent space separation of those that are ensembles.
        flags: what concerns each defence as a whole.
    """
    trained, request = bench.trained, bench.request
    return Manifest(
        versions={
            **library_versions(*LIBRARIES),
            "dkd-bench": dkd_bench.__version__,
            "python": python_version(),
        },
        device=trained.device.type,
        environment=current_environment(trained.device),
        seed=request.seed,
        training_seed=request.training_seed,
        recipe=request.recipe,
        dataset=DatasetRecord(
            name=trained.dataset.name,
            digest=trained.dataset_digest,
            n=len(bench.indices),
            n_test=len(trained.dataset.test),
            indices=tuple(bench.indices.tolist()),
        ),
        defenses={
            name: DefenseRecord(
                title=each.defense.meta.title,
                settings=settings_as_json(each.defense.settings),
                weights_key=each.key,
                weights_sha256=each.sha256,
                clean_accuracy=clean[name],
                test_set_accuracy=each.clean_accuracy,
                separation=separations.get(name),
                randomized=each.defense.meta.randomized,
                access=bench.offers[name],
                flags=flags[name],
                clean_rejected=rejected.get(name, {}),
                abstains=each.defense.meta.abstains,
                optimizes=each.defense.meta.optimizes,
                deployed=deployed_rule(each.defense.deployed_rule, tuple(clean[name])),
            )
            for name, each in trained.defenses.items()
        },
        plan_digest=bench.plan_digest,
        request=request.as_json(),
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )


def suite_record(bench: Workbench) -> dict[str, Any]:
    """Return the attacks of a run with all that determines them, and its threat models."""
    return {
        "attacks": [
            {**attack.identity(), "variant": list(attack.variant(bench.trained.dataset.n_classes))}
            for attack in bench.attacks.values()
        ],
        "threat_models": list(bench.threat_models),
        "chunk_size": CHUNK_SIZE,
        "eot_draws": bench.request.eot_draws,
    }
