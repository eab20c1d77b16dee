"""Comparison of a record's ground, cells and evidence with what the request makes here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from dkd_bench.budget import Norm
from dkd_bench.data import CHUNK_SIZE
from dkd_bench.plugins.settings import settings_as_json
from dkd_bench.plugins.suites import suite_fingerprint
from dkd_bench.records import CellKey, CellRecord, DefenseRecord, EvidenceRecord, RunRecord
from dkd_bench.steps.plan import Trial
from dkd_bench.steps.prepare import Prepared
from dkd_bench.steps.record import suite_record


def ground_problems(record: RunRecord, prepared: Prepared) -> Iterator[str]:
    """Yield a sentence for each thing that stands in the manifest otherwise than it is here."""
    manifest, trained, request = record.manifest, prepared.subjects, prepared.request
    dataset = manifest.dataset
    yield from _differs("dataset digest", dataset.digest, trained.dataset_digest)
    yield from _differs("dataset", dataset.name, trained.dataset.name)
    yield from _differs("number of images", dataset.n, len(prepared.images))
    if dataset.n_test is not None:
        yield from _differs("number of test images", dataset.n_test, len(trained.dataset.test))
    yield from _differs("positions of the images", dataset.indices, tuple(prepared.images.indices.tolist()))
    words = (manifest.seed, manifest.training_seed, manifest.recipe)
    yield from _differs("seeds and recipe", words, (request.seed, request.training_seed, request.recipe))
    fingerprint = suite_fingerprint(
        list(prepared.attacks.values()), n_classes=trained.dataset.n_classes, eot_draws=request.eot_draws
    )
    yield from _differs("fingerprint of the attacks", record.suite_fingerprint, fingerprint)
    yield from _suite_differs(record.suite, _as_read(suite_record(prepared)))
    for name in trained.defenses.keys() - manifest.defenses.keys():
        yield f"defence {name!r} is asked for, and the record has nothing of it"
    for name, defense in manifest.defenses.items():
        yield from _defense_differs(name, defense, prepared)


def _defense_differs(name: str, recorded: DefenseRecord, prepared: Prepared) -> Iterator[str]:
    here = prepared.subjects.defenses.get(name)
    if here is None:
        found = prepared.subjects.failures.get(name, "no such defence")
        yield from _differs(f"weights digest of {name!r}", recorded.weights_sha256, found)
        return
    yield from _differs(f"weights digest of {name!r}", recorded.weights_sha256, here.sha256)
    yield from _differs(f"weights key of {name!r}", recorded.weights_key, here.key)
    declared: dict[str, object] = {
        "title": here.defense.meta.title,
        "randomized": here.defense.meta.randomized,
        "abstains": here.defense.meta.abstains,
        "optimizes": here.defense.meta.optimizes,
        "access": prepared.targets.offers.get(name, ()),
    }
    for what, here_declared in declared.items():
        if what in recorded.model_fields_set:  # records of older versions do not tell all of them
            yield from _differs(f"{what!r} of {name!r}", getattr(recorded, what), here_declared)
    settings = _as_read(settings_as_json(here.defense.settings))
    yield from _entries_differ(f"the settings of {name!r}", recorded.settings, settings)


def _suite_differs(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each attack, and each other part, that the record describes otherwise than it is here."""
    yield from _entries_differ("the suite", {**recorded, "attacks": None}, {**here, "attacks": None})
    attacks = recorded.get("attacks")
    listed = attacks if isinstance(attacks, list) else []
    described = [(str(each.get("name")), each) for each in listed if isinstance(each, dict)]
    names = [each["name"] for each in here["attacks"]]
    yield from _differs("attacks of the suite", [name for name, _ in described], names)
    for name, each in described:
        if name in names:
            yield from _entries_differ(f"attack {name!r} in the suite", each, here["attacks"][names.index(name)])


def _as_read(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``words`` as they are once they were written to a file and read again."""
    read: dict[str, Any] = json.loads(json.dumps(words))
    return read


def cell_problems(record: RunRecord, prepared: Prepared, rules: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield a sentence for each cell that is missing, too many, twice, or without the evidence that the plan wants.

    Args:
        record: to look at.
        prepared: products of the run's first steps, whose plan says what there should be.
        rules: the decision rules of each defence.
    """
    wanted, dataset = planned_cells(prepared, rules), prepared.subjects.dataset.name
    there = Counter(cell.key.with_dataset(dataset) for cell in record.cells)
    for key, count in there.items():
        if count > 1:
            yield f"{key}: the record has this cell {count} times"
        if key not in wanted and key.defense in rules:
            yield f"{key}: the plan has no such cell"
        if key.defense not in rules and key.defense not in prepared.subjects.failures:
            yield f"{key}: the run has no such defence"
    for key in wanted.keys() - there.keys():
        yield f"{key}: the plan wants this cell, the record does not have it"
    for cell in record.cells:
        if cell.dataset != dataset:
            yield f"{cell.key}: it is of dataset {cell.dataset!r}, the run of another"
        for problem in _cell_differs(cell, wanted.get(cell.key.with_dataset(dataset)), complete=record.complete):
            yield f"{cell.key}: {problem}"


def planned_cells(prepared: Prepared, rules: Mapping[str, Collection[str]]) -> dict[CellKey, Trial]:
    """Return the cells that the plan wants, in its order, with the trial of each."""
    return {
        CellKey(
            defense=trial.defense,
            decision=rule,
            dataset=prepared.subjects.dataset.name,
            threat_model=trial.threat_model,
            attack=trial.attack,
            norm=budget.norm,
            eps=budget.eps,
        ): trial
        for trial in prepared.plan.trials
        for budget in trial.budgets
        for rule in rules[trial.defense]
    }


def _cell_differs(cell: CellRecord, trial: Trial | None, *, complete: bool) -> Iterator[str]:
    if complete and (cell.status == "error" or (cell.status == "not_run" and trial is not None and trial.crafts)):
        yield f"it is {cell.status} in a record that says it is complete"
    if cell.status != "ok":
        if cell.robust_accuracy is not None or cell.outcomes or cell.candidates or cell.detectors:
            yield f"it is {cell.status}, and has a number"
        if cell.status == "not_run" and trial is not None and not trial.crafts and not cell.flags:
            yield "no attack of its kind could be run, and no flag says so"
        return
    if cell.robust_accuracy is None:
        yield "it has no robust accuracy"
    if cell.reason is not None:
        yield f"it has a number, and a reason why there is none: {_short(cell.reason)}"
    if cell.eps is not None and cell.fooling_distances:
        yield "it is within a budget, and has fooling distances"
    if trial is None:
        return
    keys = tuple(key for craft in trial.crafts.values() for key in craft.keys)
    if cell.evidence != keys:
        first = next((key for key in cell.evidence if key not in keys), None)
        problem = f"evidence {first} is none of this cell's" if first else "the evidence is not all that the plan wants"
        yield f"{problem}: expected {len(keys)} keys from {keys[0] if keys else 'none'} on, got {len(cell.evidence)}"


def evidence_problems(record: RunRecord, prepared: Prepared) -> Iterator[str]:
    """Yield a sentence for each piece of evidence that is no cell's, or is said to be what the plan does not make."""
    wanted = {
        key: (prepared.targets.networks[craft.target].called, craft.attack, craft.budget.norm, craft.budget.eps, chunk)
        for craft in prepared.plan.crafts
        for chunk, key in enumerate(craft.keys)
    }
    used = {key for cell in record.cells for key in cell.evidence}
    for key, evidence in record.evidence.items():
        source = f"evidence {key} ({evidence.attack} on {evidence.target})"
        if key in wanted:
            yield from _evidence_differs(key, evidence, wanted[key], n=len(prepared.images))
        else:
            yield f"{source} is in the record, and the plan does not make it"
        if record.complete and key not in used:
            yield f"{source} is in the record, and no cell uses it"


def _evidence_differs(
    key: str, recorded: EvidenceRecord, made: tuple[str, str, Norm, float | None, int], *, n: int
) -> Iterator[str]:
    stated = (recorded.target, recorded.attack, recorded.norm, recorded.eps, recorded.chunk)
    yield from _differs(f"target, attack, budget and chunk of evidence {key}", stated, made)
    yield from _differs(f"number of images of evidence {key}", recorded.n, min(CHUNK_SIZE, n - made[-1] * CHUNK_SIZE))


def _entries_differ(what: str, recorded: Mapping[str, object], found: Mapping[str, object]) -> Iterator[str]:
    for name in sorted(recorded.keys() | found.keys()):
        yield from _differs(f"{name!r} of {what}", recorded.get(name, "nothing"), found.get(name, "nothing"))


def _differs(what: str, recorded: object, found: object) -> Iterator[str]:
    if recorded != found:
        yield f"{what}: the record says {_short(recorded)}, here it is {_short(found)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
