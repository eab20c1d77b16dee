"""Report of ``dkd-bench probe``: every check of one defence under one attack, and its outcome."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from dkd_bench.attacks import Attack
from dkd_bench.budget import Budget
from dkd_bench.defense import Defense
from dkd_bench.doubts.answers import PROBED_IMAGES
from dkd_bench.errors import ConfigError, FieldName, PluginError
from dkd_bench.leaderboard import Format, one_line, percent, table
from dkd_bench.pipeline import measure
from dkd_bench.probe.planted import NORMS, BinarizationResult, BinarizationSettings, binarization_test
from dkd_bench.progress import Progress
from dkd_bench.records import RunRecord
from dkd_bench.records.flags import (
    ATTACK_ERROR,
    BAD_GRADIENTS,
    BINARIZATION,
    MISLEADING,
    MORE_STEPS,
    NOISE,
    NOT_ADAPTIVE,
    OPTIMIZES,
    PROBABILITIES,
    RANDOM,
    TRANSFER,
    UNBOUNDED,
    ZERO_GRADIENTS,
)
from dkd_bench.steps.crafter import Crafter, crafts_store
from dkd_bench.steps.prepare import Prepared, prepare
from dkd_bench.steps.record import Findings, record
from dkd_bench.steps.request import RunRequest
from dkd_bench.steps.score import ask_clean, score_clean
from dkd_bench.target.variation import answers_vary

Outcome = Literal["ok", "FLAG", "says nothing"]

_CHECKED_ON: Mapping[str, str] = MappingProxyType(
    {
        NOT_ADAPTIVE: "whether the attack sees the protection, detectors included",
        ZERO_GRADIENTS: "gradients of the surrogates",
        BAD_GRADIENTS: "gradients of the surrogates",
        MISLEADING: "steps along the gradients, and random ones",
        OPTIMIZES: "backward passes while it answers",
        PROBABILITIES: "answers of the networks",
        RANDOM: "answers of the surrogates, asked twice",
        TRANSFER: "examples on the surrogate and on the defence",
        UNBOUNDED: "the attack with every pixel at will",
        MORE_STEPS: "the attack with twice its steps",
        NOISE: "random points of the budget",
    }
)
"""Description, by flag, of what every run with this attack is checked for."""
_ON_CLEAN_IMAGES = (ZERO_GRADIENTS, BAD_GRADIENTS, MISLEADING, OPTIMIZES, PROBABILITIES, RANDOM)
_ON_ATTACKED_IMAGES = (TRANSFER, UNBOUNDED, MORE_STEPS, NOISE)
_ON_WHAT_STANDS = (MORE_STEPS, NOISE)
_NEED_GRADIENTS = (ZERO_GRADIENTS, BAD_GRADIENTS, MISLEADING, *_ON_ATTACKED_IMAGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Check for one flag."""

    flag: str
    """Name of the flag, one of ``dkd_bench.records.flags``."""
    looked_at: str
    passed: bool | None
    """Whether the flag is not raised; ``None`` where nothing can be said."""
    detail: str
    """Observation behind the outcome, with its numbers; empty where there is nothing to tell."""
    share: float | None = None
    """Share of the images looked at, in [0, 1]; ``None`` where no images are counted."""

    @property
    def outcome(self) -> Outcome:
        """Outcome of the check, in a word."""
        return "says nothing" if self.passed is None else "ok" if self.passed else "FLAG"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """Checks of one defence under one attack."""

    defense: str
    dataset: str
    attack: str
    budget: Budget
    n_images: int
    """Number of images shown to the binarisation test."""
    seed: int
    checks: tuple[Check, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the flags that are raised."""
        return tuple(check.flag for check in self.checks if check.passed is False)


def probe_defense(request: RunRequest, *, progress: Progress) -> ProbeReport:
    """Train or load the one defence of ``request``, and look for every flag that one attack can raise.

    Args:
        request: one defence, one attack, which is challenged and tested, and the images that it is shown.
        progress: where training and test report to.

    Raises:
        PluginError: if the defence cannot be trained, or is not admitted.
        ConfigError: if there is not one of each, or the test is not for that attack or budget; else as ``prepare``.
    """
    if request.norm not in NORMS:
        raise ConfigError("probe takes ", FieldName("norm"), f" {' or '.join(NORMS)}, got {request.norm!r}")
    prepared = prepare(request, progress)
    for reason in prepared.subjects.failures.values():
        raise PluginError(reason)
    name, attack = _only("defenses", prepared.subjects.defenses), _only("attacks", prepared.attacks)
    return ProbeReport(
        defense=name,
        dataset=prepared.subjects.dataset.name,
        attack=attack,
        budget=prepared.budgets[0],
        n_images=len(prepared.images),
        seed=request.seed,
        checks=tuple(checks(prepared, name, attack=attack, progress=progress)),
    )


def checks(prepared: Prepared, defense: str, *, attack: str, progress: Progress) -> list[Check]:
    """Return every check of a defence of ``prepared``, cheap ones first."""
    return [
        *_checked_in_a_run(prepared, defense, progress),
        _binarization(prepared, defense, prepared.attacks[attack], progress),
    ]


def render_probe(report: ProbeReport, format: Format) -> str:
    """Return the report as text in ``format``, ending in a newline."""
    if format == "json":
        plain = asdict(report) | {"flags": report.flags}
        return json.dumps(plain, indent=2, allow_nan=False) + "\n"
    raised = f"Flags: {', '.join(report.flags)}." if report.flags else "No flag."
    rows = [(each.flag, each.outcome, each.looked_at) for each in report.checks]
    details = [f"- {each.flag}: {one_line(each.detail)}." for each in report.checks if each.detail]
    return "\n\n".join(
        [
            f"{report.defense} on {report.dataset}, {report.attack} within {report.budget}",
            table(["looked for", "outcome", "at"], rows, left=3),
            *(["\n".join(details)] if details else []),
            f"{raised} 'dkd-bench explain FLAG' says what a flag means and what to do.\n",
        ]
    )


def _only(field: str, named: Mapping[str, object]) -> str:
    if len(named) != 1:
        raise ConfigError("probe takes one ", FieldName(field), f", got {len(named)}: {', '.join(sorted(named))}")
    return next(iter(named))


def _checked_in_a_run(prepared: Prepared, name: str, progress: Progress) -> list[Check]:
    """Return the checks that a run makes, those included whose flag was not raised."""
    answers = ask_clean(prepared)
    findings = Findings(clean=score_clean(prepared, answers))
    found_by_run = record(prepared, findings, measure(prepared, findings, answers, Crafter(crafts_store()), progress))
    flags = (*found_by_run.manifest.defenses[name].flags, *(flag for cell in found_by_run.cells for flag in cell.flags))
    raised = {flag.name: flag for flag in reversed(flags)}
    shown = min(PROBED_IMAGES, len(prepared.subjects.trainer.probe))
    done = []
    for flag in (*_CHECKED_ON, *sorted(raised.keys() - _CHECKED_ON.keys())):
        found, reason = raised.get(flag), _why_unchecked(flag, prepared, name, found_by_run, raised)
        looked_at = _CHECKED_ON.get(flag, "the attack")
        if flag in _ON_CLEAN_IMAGES:
            looked_at += f", {shown} clean images"
        if found is not None:
            check = Check(flag=flag, looked_at=looked_at, passed=False, detail=found.detail, share=found.share)
        elif reason is not None:
            check = Check(flag=flag, looked_at=looked_at, passed=None, detail=reason)
        else:
            check = Check(flag=flag, looked_at=looked_at, passed=True, detail="")
        done.append(check)
    return done


def _why_unchecked(flag: str, prepared: Prepared, name: str, record: RunRecord, raised: Collection[str]) -> str | None:
    """Return why a flag that is not raised says nothing; ``None`` if it was looked for."""
    defense = prepared.subjects.defenses[name].defense
    (attack,) = (each.meta for each in prepared.attacks.values())
    scored = [cell for cell in record.cells if cell.status == "ok"]
    reasons = (
        ((RANDOM,), defense.meta.randomized, "it says that it is random"),
        ((MISLEADING,), defense.meta.randomized, "it is random, and one draw of a gradient says little"),
        ((OPTIMIZES,), defense.meta.optimizes, "it says that it optimises"),
        (_NEED_GRADIENTS, not defense.surrogates(), "it has no surrogates to follow"),
        (_ON_ATTACKED_IMAGES, ATTACK_ERROR in raised or not scored, f"{attack.name} failed"),
        ((UNBOUNDED,), attack.kind != "fixed" or attack.single_step, f"{attack.name} does not search a budget"),
        ((MORE_STEPS,), attack.effort is None, f"{attack.name} says no number of steps"),
        ((TRANSFER,), attack.kind != "fixed", f"{attack.name} has no budget on its own target"),
        (_ON_WHAT_STANDS, not any(max(cell.shares) > 0.5 for cell in scored), "no image stood the attack"),
    )
    return next((reason for concerned, holds, reason in reasons if holds and flag in concerned), None)


def _binarization(prepared: Prepared, name: str, attack: Attack, progress: Progress) -> Check:
    """Return the binarisation test of the surrogate that passes best: the joint attack takes the strongest."""
    defense = prepared.subjects.defenses[name].defense
    images = torch.cat([chunk.images for chunk in prepared.images.chunks()])
    looked_at = f"whether {attack.meta.name} finds planted examples, {len(images)} clean images"
    results = {}
    for called, surrogate in defense.surrogates().items():
        settings = BinarizationSettings(
            draws=_draws(prepared, defense, surrogate, attack, images), seed=prepared.request.seed
        )
        results[called] = binarization_test(
            surrogate, images, attack, prepared.budgets[0], settings=settings, progress=progress
        )
    if not results:
        detail = "it has no surrogates to plant examples in"
        return Check(flag=BINARIZATION, looked_at=looked_at, passed=None, detail=detail)
    best = max(results, key=lambda called: _rank(results[called]))
    in_order = [best, *(called for called in results if called != best)]
    verdict = results[best].verdict
    return Check(
        flag=BINARIZATION,
        looked_at=looked_at,
        passed=None if verdict == "inconclusive" else verdict == "passed",
        detail=". ".join(f"Surrogate {called}: {_sentence(results[called])}" for called in in_order),
        share=results[best].attack_success,
    )


def _draws(prepared: Prepared, defense: Defense, surrogate: nn.Module, attack: Attack, images: Tensor) -> int:
    """Return the number of evaluations of a surrogate that a run averages in one answer."""
    random = defense.meta.randomized and answers_vary(surrogate, images[:PROBED_IMAGES])
    return prepared.request.eot_draws if random and not attack.meta.averages_draws else 1


def _rank(result: BinarizationResult) -> tuple[bool, float]:
    """Return the key that surrogates are compared by: those that pass, then those that the attack does best on."""
    return result.passed, -1.0 if result.attack_success is None else result.attack_success


def _sentence(result: BinarizationResult) -> str:
    """Return the outcome of the test on one surrogate, in words with numbers."""
    planted = f"{result.n_tested} of {result.n_images} images got a planted example"
    if result.attack_success is None:
        return f"{planted}: no plane parts its features from those around it"
    said = (
        f"{percent(result.attack_success)} % of the planted examples found ({percent(result.required_success)} % are "
        f"required), {percent(result.random_success)} % by random draws; {planted}"
    )
    if result.verdict == "inconclusive":
        said += "; what chance finds says nothing of the attack"
    return said if result.error is None else f"{said}; the attack failed: {result.error}"
