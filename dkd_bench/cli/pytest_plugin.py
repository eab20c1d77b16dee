"""Pytest plugin: ``assert robustness("dkd", attack="pgd", eps=0.1) >= reference``, in a user's own tests.

Every pytest session loads it where this package is installed, so nothing heavy is imported before a fixture is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import pytest

from dkd_bench.errors import AttackError, ConfigError, DkdBenchError, ExitCode, FieldName, UnknownNameError

if TYPE_CHECKING:
    from dkd_bench.check import CheckReport, Reference, Rule
    from dkd_bench.records import CellRecord, FlagRecord, RunRecord
    from dkd_bench.steps.request import RunRequest

MARKER = (
    "robustness(**words): words of a run that the test's robustness fixture takes unless told otherwise, "
    "such as attack='pgd' or eps=0.1"
)

_SEVERAL = {"attack": "attacks", "threat_model": "threat_models", "eps": "eps", "settings": "settings"}
"""Words that may be one or a sequence, with the request's name for them."""
_WORDS = {plural: word for word, plural in _SEVERAL.items()}
_PATHS = ("data_root", "out")


class AttackChangedWarning(pytest.PytestWarning):
    """Warning that the attack is no longer the reference's, on the same weights: a comparison would say nothing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RobustAccuracy:
    """Accuracy of a defence under attack; compares as its value does.

    ``accuracy >= reference`` asks whether nothing regressed against what ``robustness_reference`` returned.
    """

    value: float
    """Fraction of all images that survived every attack, as on the leaderboard; the lowest of several decision rules
    and budgets."""
    ci95: tuple[float, float]
    """95 % interval of the value, in [0, 1]."""
    n: int
    """Number of images attacked."""
    defense: str
    decision: str
    """Decision rule that the value is of."""
    eps: float
    """Budget that the value is of: [0, 1] pixel units, in l0 a number of values; ``None`` without budget."""
    record: RunRecord
    """Record of the whole run; of the decision rule alone, where one was named."""

    @property
    def cells(self) -> tuple[CellRecord, ...]:
        """Cells whose worst number is the value, the lowest first."""
        own = (cell for cell in self.record.cells if self._is_own(cell))
        return tuple(sorted(own, key=lambda cell: cell.robust_accuracy or 0.0))

    @property
    def flagged(self) -> tuple[FlagRecord, ...]:
        """Flags that make the value hard to believe, on the defence and on the cells."""
        raised = [*self.record.manifest.defenses[self.defense].flags]
        raised += [flag for cell in self.cells for flag in cell.flags]
        return tuple(raised)

    @property
    def flags(self) -> tuple[str, ...]:
        """The names of the flags that were raised, in alphabetical order."""
        return tuple(sorted({flag.name for flag in self.flagged}))

    def _is_own(self, cell: CellRecord) -> bool:
        return (cell.defense, cell.decision, cell.eps) == (self.defense, self.decision, self.eps)

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        low, high = self.ci95
        flags = f"; flags: {', '.join(self.flags)}" if self.flags else ""
        return f"<{self.defense}, {self.decision}: {self.value:.3f} [{low:.3f}, {high:.3f}], n = {self.n}{flags}>"

    def __eq__(self, other: object) -> bool:
        return self.value == float(other) if isinstance(other, (Real, RobustAccuracy)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.value)

    def __ge__(self, other: object) -> bool:
        if isinstance(other, RobustnessReference):
            return other.stands(self)
        return self.value >= float(other) if isinstance(other, (Real, RobustAccuracy)) else NotImplemented

    def __gt__(self, other: object) -> bool:
        _refuse_reference(other, ">")
        return self.value > float(other) if isinstance(other, (Real, RobustAccuracy)) else NotImplemented

    def __le__(self, other: object) -> bool:
        _refuse_reference(other, "<=")
        return self.value <= float(other) if isinstance(other, (Real, RobustAccuracy)) else NotImplemented

    def __lt__(self, other: object) -> bool:
        _refuse_reference(other, "<")
        return self.value < float(other) if isinstance(other, (Real, RobustAccuracy)) else NotImplemented


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RobustnessReference:
    """Committed reference that a measured accuracy is held against: ``robustness(...) >= reference``."""

    path: Path
    reference: Reference
    rule: Rule
    """Limits of the check: its ``alpha`` and ``tolerance``."""
    strict_environment: bool = False
    """Whether a run that another torch, numpy, processor or device computed is not compared."""

    def __repr__(self) -> str:
        return f"<reference {self.path.name}>"

    def check(self, accuracy: RobustAccuracy) -> CheckReport:
        """Return the comparison of the cells that the test asked for; what it did not ask for is not missing.

        Raises:
            ConfigError: if the reference has none of them.
        """
        from dkd_bench.check import compare

        asked = {cell.key.with_dataset(self.reference.dataset.name) for cell in accuracy.record.cells}
        cells = tuple(cell for cell in self.reference.cells if cell.key in asked)
        if not cells:
            asked_for = "; ".join(str(cell.key) for cell in accuracy.cells)
            raise ConfigError(
                f"{self.path} has none of what the test asks for ({asked_for}); make it of a run with these words, "
                "by 'dkd-bench run' and 'dkd-bench reference', or ask for what it has"
            )
        asked_of = self.reference.model_copy(update={"cells": cells})
        return compare(
            asked_of,
            accuracy.record,
            alpha=self.rule.alpha,
            tolerance=self.rule.tolerance,
            strict_environment=self.strict_environment,
        )

    def stands(self, accuracy: RobustAccuracy) -> bool:
        """Return whether nothing regressed and all was compared; warn where the attack alone is another one."""
        report = self.check(accuracy)
        changed = [str(cell.key) for cell in report.cells if cell.moved == "attack"]
        if changed:
            warnings.warn(
                f"the attack is no longer that of {self.path.name} and the weights are, so that nothing was compared "
                f"of {'; '.join(changed)}; a new reference ends it",
                AttackChangedWarning,
                stacklevel=3,
            )
        return report.exit_code == ExitCode.DONE


def _refuse_reference(other: object, operator: str) -> None:
    if isinstance(other, RobustnessReference):
        raise TypeError(f"an accuracy is not {operator} a reference, it stands it or not; use >=")


def _as_keyword(field: FieldName) -> str:
    """Return a field of a request as a test writes it: ``attack``, not ``attacks``."""
    return _WORDS.get(field.name, field.name)


def _in_keywords(error: DkdBenchError) -> DkdBenchError:
    """Return the error with its fields named as a test gives them, without the harness's frames: it says all."""
    error.args = (error.sentence.spelled(_as_keyword),)
    return error.with_traceback(None)


def robust_accuracy(record: RunRecord, *, decision: str | None = None) -> RobustAccuracy:
    """Return the robust accuracy of a complete run's defence, by the rules of the leaderboard.

    Raises:
        UnknownNameError: if the run has no such decision rule.
        AttackError: if an attack has no number; a number without it would flatter.
        ConfigError: if no attack had a budget.
    """
    from dkd_bench.leaderboard import rank_runs

    if decision is not None:
        rules = {cell.decision for cell in record.cells}
        if decision not in rules:
            raise UnknownNameError("decision rule", decision, rules, known_as="The run has")
        cells = tuple(cell for cell in record.cells if cell.decision == decision)
        record = record.model_copy(update={"cells": cells})
    board = rank_runs([("run", record)])
    rows = [(group.eps, row) for group in board.groups if group.eps is not None for row in group.rows]
    measured = [(row.worst, row, eps) for eps, row in rows if row.worst is not None]
    if not rows:
        raise ConfigError("no attack of the run had a budget, so there is no accuracy within one; give eps=0.1")
    if len(measured) < len(rows):
        row = next(row for _, row in rows if row.worst is None)
        raise AttackError(
            f"{row.defense} under {row.decision} has no number: {row.missing}; ask for threat_model and attack that "
            "apply to it"
        )
    worst, row, eps = min(measured, key=lambda each: each[0].value)
    return RobustAccuracy(
        value=worst.value,
        ci95=worst.ci95,
        n=record.manifest.dataset.n,
        defense=row.defense,
        decision=row.decision,
        eps=eps,
        record=record,
    )


def run_request(defense: str, words: Mapping[str, Any], folder: Path) -> RunRequest:
    """Return the request that ``words`` make up; without ``out`` it is written under ``folder``.

    A word that is ``None`` leaves the run's own default.

    Raises:
        UnknownNameError: if a word is unknown.
        ConfigError: if its value is refused.
    """
    from dkd_bench.steps.request import RunRequest
    from dkd_bench.store.digests import digest_json

    known = {_WORDS.get(each.name, each.name) for each in fields(RunRequest)} - {"defenses"}
    values: dict[str, Any] = {}
    for word, value in words.items():
        if word not in known:
            raise UnknownNameError("word of the robustness fixture", word, {*known, "decision"}, known_as="Known")
        if value is None:
            continue
        if word in _SEVERAL:
            values[_SEVERAL[word]] = (value,) if isinstance(value, (str, Real)) else tuple(value)
        else:
            values[word] = Path(value) if word in _PATHS else value
    try:
        request = RunRequest(defenses=(defense,), **values)
    except TypeError as error:
        raise ConfigError(f"a word of the robustness fixture has a value of the wrong type: {error}") from error
    except ConfigError as error:
        raise _in_keywords(error) from None
    return request if request.out else replace(request, out=folder / digest_json(request.as_json())[:16])


@pytest.fixture(scope="session")
def _robustness_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the runs of a session are written."""
    return tmp_path_factory.mktemp("robustness")


@pytest.fixture
def robustness(request: pytest.FixtureRequest, _robustness_folder: Path) -> Callable[..., RobustAccuracy]:
    """Return a function that attacks a defence and returns what is left: ``robustness("dkd", attack="pgd", eps=0.1)``.

    It takes the words of ``dkd-bench run``, ``attack``, ``threat_model``, ``eps`` and ``settings`` one or several,
    and ``decision`` for one decision rule. What was computed before is found again in the user's cache.
    """
    defaults: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("robustness"))):
        if mark.args:
            raise pytest.UsageError(f"the marker robustness takes words such as attack='pgd', got {mark.args[0]!r}")
        defaults |= mark.kwargs

    def measured(defense: str, **words: Any) -> RobustAccuracy:
        """Attack ``defense``; raise DkdBenchError if the words are wrong or the run is incomplete."""
        __tracebackhide__ = True
        try:
            return _measured(defense, defaults | words, _robustness_folder)
        except DkdBenchError as error:
            raise _in_keywords(error) from None

    return measured


def _measured(defense: str, words: Mapping[str, Any], folder: Path) -> RobustAccuracy:
    from dkd_bench.pipeline import run_whole
    from dkd_bench.progress import SilentProgress

    asked = run_request(defense, {word: value for word, value in words.items() if word != "decision"}, folder)
    return robust_accuracy(run_whole(asked, progress=SilentProgress()), decision=words.get("decision"))


@pytest.fixture
def robustness_reference(request: pytest.FixtureRequest) -> Callable[..., RobustnessReference]:
    """Return a function that reads a reference: ``robustness_reference("reference.json")``, beside the test's file.

    ``alpha``, ``tolerance`` and ``strict_environment`` are those of ``dkd-bench check``, and so are their defaults.
    """

    def loaded(
        path: str | Path,
        *,
        alpha: float | None = None,
        tolerance: float | None = None,
        strict_environment: bool = False,
    ) -> RobustnessReference:
        """Read the reference at ``path``; raise DkdBenchError if it is none, or was damaged or edited."""
        from dkd_bench.check import Rule, load_reference

        __tracebackhide__ = True
        given = {"alpha": alpha, "tolerance": tolerance}
        limits = {name: value for name, value in given.items() if value is not None}
        file = request.path.parent / path
        try:
            return RobustnessReference(
                path=file, rule=Rule(**limits), reference=load_reference(file), strict_environment=strict_environment
            )
        except DkdBenchError as error:
            raise _in_keywords(error) from None

    return loaded


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Say why a comparison failed: the numbers behind it, and against a reference the check's own words."""
    if isinstance(left, RobustAccuracy):
        accuracy, other = left, right
    elif isinstance(right, RobustAccuracy):
        accuracy, other = right, left
    else:
        return None
    return [f"{left!r} {op} {right!r}", *_reasons(accuracy, other)]


def _reasons(accuracy: RobustAccuracy, other: object) -> list[str]:
    if isinstance(other, RobustnessReference):
        from dkd_bench.check import render_check

        return render_check(other.check(accuracy), "text", _as_keyword).splitlines()
    both = [accuracy, other] if isinstance(other, RobustAccuracy) else [accuracy]
    return [line for each in both for line in _numbers(each)]


def _numbers(accuracy: RobustAccuracy) -> list[str]:
    """Return a line for each attack, the strongest first, and one for each flag."""
    return [
        *(f"{cell.key}: {cell.robust_accuracy:.3f}" for cell in accuracy.cells),
        *dict.fromkeys(f"flag {flag.name!r}: {flag.detail}" for flag in accuracy.flagged),
    ]
