"""Export of a row as RobustBench's JSON, or in one sentence why its rules do not admit it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from dkd_bench.budget import Norm
from dkd_bench.errors import ConfigError, EvidenceError, FieldName, UnknownNameError
from dkd_bench.leaderboard._external import eps_as_text, fraction_of
from dkd_bench.records import CellRecord, DefenseRecord, Fraction, RunRecord
from dkd_bench.records.flags import row_status
from dkd_bench.records.rundir import LoadedRun, as_loaded
from dkd_bench.threats import STANDARD, facts_of, in_reading_order, sees_whole

AUTOATTACK = "autoattack"
"""The attack that RobustBench ranks by, made on the whole defence."""
_FIELDS = FieldName("fields", option="field")
_STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
"""Names of the attacks that AutoAttack's standard version is made of."""
_TEST_IMAGES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
"""Number of test images that RobustBench evaluates, by the datasets that it knows."""
_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}
_FROM_THE_RUN = ("dataset", "eps", "clean_acc", "autoattack_acc")
_ORDER = (
    "link",
    "name",
    "authors",
    "additional_data",
    "number_forward_passes",
    "dataset",
    "venue",
    "architecture",
    "eps",
    "clean_acc",
    "reported",
    "autoattack_acc",
    "footnote",
)
"""Order of the fields in RobustBench's own files."""
_TO_GIVE = tuple(name for name in _ORDER if name not in _FROM_THE_RUN)


class RowName(NamedTuple):
    """Name of one row of a run among the others."""

    defense: str
    decision: str
    norm: Norm
    eps: float

    def __str__(self) -> str:
        return f"{self.defense}/{self.decision}"

    @property
    def in_full(self) -> str:
        """The name with the budget, for runs with several."""
        return f"{self}/{_eps(self)}"


def render_robustbench(run: RunRecord | LoadedRun, *, row: str | None, fields: Sequence[str]) -> str:
    """Return one row of a run as the text of a RobustBench JSON file.

    Args:
        run: its record, or as it was loaded.
        row: ``DEFENCE/RULE``, or ``DEFENCE/RULE/EPS`` where there are several budgets; ``None`` if there is one row.
        fields: ``NAME=VALUE`` words for what a run does not know.

    Raises:
        ConfigError: if RobustBench's rules do not admit the row, the row is not named, or fields are missing or wrong.
        EvidenceError: if the record contradicts itself.
    """
    found = robustbench_row(run, row=row, fields=parse_fields(fields))
    return json.dumps(found, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def robustbench_row(
    run: RunRecord | LoadedRun, *, row: str | None, fields: Mapping[str, str | bool | int]
) -> dict[str, str | bool | int]:
    """Return the fields of RobustBench's file, in its order, for one row of a run.

    What the run knows is filled in: the defence's title as the name, and one forward pass for a single network.

    Args:
        run: its record, or as it was loaded.
        row: as in ``render_robustbench``.
        fields: what the run does not know, as ``parse_fields`` gives it.

    Raises:
        ConfigError: if RobustBench's rules do not admit the row, the row is not named, or fields are missing.
        EvidenceError: if the record contradicts itself.
    """
    loaded = as_loaded(run)
    record = loaded.record
    _check_run(record)
    found = named_row(record, row)
    defense = _check_defense(record, found)
    cell = _check_cell(record, found)
    _check_flags(loaded, found, defense)
    _check_attack(record)
    known: dict[str, str | bool | int] = {"name": defense.title}
    if not _is_ensemble(record, found, defense):
        known["number_forward_passes"] = 1
    given = {**known, **fields}
    missing = [name for name in _TO_GIVE if name not in given and name != "footnote"]
    if missing:
        raise ConfigError(
            f"RobustBench also wants {', '.join(missing)}, which the run does not know; give each as ",
            _FIELDS,
            " NAME=VALUE, such as ",
            _FIELDS,
            f" {missing[0]}={_EXAMPLES[missing[0]]}",
        )
    assert cell.clean_accuracy is not None, "a cell with status ok has its clean accuracy"
    measured: dict[str, str | bool | int] = {
        "dataset": cell.dataset,
        "eps": _eps(found),
        "clean_acc": _percent(cell.clean_accuracy),
        "autoattack_acc": _percent(cell.image_outcomes.robust.value),
        "footnote": " ".join(filter(None, (str(given.get("footnote", "")), _provenance(record)))),
    }
    values = given | measured
    return {name: values[name] for name in _ORDER}


def named_row(record: RunRecord, name: str | None) -> RowName:
    """Return the row of that name, or the only one.

    Raises:
        ConfigError: if the run has no such row, or several; lists them.
    """
    rows = list(
        dict.fromkeys(
            RowName(cell.defense, cell.decision, cell.norm, cell.eps) for cell in record.cells if cell.eps is not None
        )
    )
    if not rows:
        raise ConfigError(
            "RobustBench wants accuracy within a budget, and the run has none; run with ",
            FieldName("attacks"),
            f" {AUTOATTACK}",
        )
    found = [each for each in rows if name in (None, str(each), each.in_full)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UnknownNameError("row", str(name), _names(rows), known_as="The run has")
    raise ConfigError(
        f"a RobustBench file has one row, and {'the run' if name is None else repr(name)} has {len(found)}; "
        "name one with ",
        FieldName("row"),
        f": {', '.join(_names(found))}",
    )


def parse_fields(words: Sequence[str]) -> dict[str, str | bool | int]:
    """Return ``NAME=VALUE`` words as the values of RobustBench's fields.

    Raises:
        ConfigError: if a word has no ``=``, a field is given twice or measured by the run, or a value is not of its
            kind.
        UnknownNameError: if RobustBench has no such field.
    """
    fields: dict[str, str | bool | int] = {}
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not name:
            raise ConfigError(_FIELDS, f" takes NAME=VALUE, got {word!r}")
        if name in _FROM_THE_RUN:
            raise ConfigError(_FIELDS, f" {name} cannot be given: the run has measured it; leave it out")
        if name not in _TO_GIVE:
            raise UnknownNameError("field", name, _TO_GIVE, known_as="RobustBench's that can be given")
        if name in fields:
            raise ConfigError(_FIELDS, f" gives {name!r} twice; give it once")
        fields[name] = _parse(name, value)
    return fields


_EXAMPLES = {
    "link": "https://arxiv.org/abs/2002.11569",
    "name": "'Title of the paper'",
    "authors": "'Ada Lovelace, Alan Turing'",
    "additional_data": "false",
    "number_forward_passes": "1",
    "venue": "'ICML 2020'",
    "architecture": "WideResNet-34-20",
    "reported": "53.42",
    "footnote": "'Trained on synthetic images.'",
}
"""Examples of values, for messages."""


def _parse(name: str, word: str) -> str | bool | int:
    booleans = {"true": True, "false": False}
    try:
        if name == "additional_data":
            return booleans[word.lower()]
        if name == "number_forward_passes":
            return _positive(int(word))
        if name == "reported":
            fraction_of(word)
        if not word or (name == "link" and not word.startswith(("https://", "http://"))):
            raise ValueError
    except (KeyError, ValueError):
        kinds = {
            "additional_data": "true or false",
            "number_forward_passes": "a whole number, at least 1",
            "reported": "a percentage from 0 to 100: the robust accuracy that the paper states",
            "link": "an address that begins with https:// or http://",
        }
        expected = kinds.get(name, "a text")
        raise ConfigError(
            _FIELDS,
            f" {name} must be {expected}, got {word!r}; write ",
            _FIELDS,
            f" {name}={_EXAMPLES[name]}",
        ) from None
    return word


def _positive(number: int) -> int:
    if number < 1:
        raise ValueError
    return number


def _names(rows: Collection[RowName]) -> list[str]:
    """Return the shortest names that tell the rows apart."""
    short = [str(row) for row in rows]
    return [row.in_full if short.count(str(row)) > 1 else str(row) for row in rows]


def _check_run(record: RunRecord) -> None:
    dataset = record.manifest.dataset
    size = _TEST_IMAGES.get(dataset.name)
    if size is None:
        raise ConfigError(f"RobustBench has no row on {dataset.name!r}; it takes {', '.join(_TEST_IMAGES)}")
    if dataset.n != size or len(set(dataset.indices)) != size or dataset.n_test not in (None, size):
        of = "" if dataset.n_test is None else f" of {dataset.n_test}"
        raise ConfigError(
            f"RobustBench evaluates its {size} test images of {dataset.name}, the run has {dataset.n}{of}, and a part "
            f"is not comparable; run again with ",
            FieldName("n_examples"),
            f" {size}",
        )
    if not record.complete:
        raise ConfigError("the run is incomplete, and RobustBench's row cannot say so; finish it with its own command")


def _check_defense(record: RunRecord, row: RowName) -> DefenseRecord:
    """Return the record of the row's defence; raise ConfigError where RobustBench's rules exclude its kind."""
    if row.norm not in _NORMS:
        raise ConfigError(f"RobustBench ranks {' and '.join(_NORMS)}, and the run is in {row.norm}")
    defense = record.manifest.defenses.get(row.defense)
    if defense is None:
        raise ConfigError(f"{row.defense!r} was never trained in this run, so there is nothing to publish")
    kinds = {
        "is randomised": defense.randomized,
        "abstains": defense.abstains,
        "optimises at test time": defense.optimizes,
    }
    found = [kind for kind, holds in kinds.items() if holds]
    if found:
        raise ConfigError(
            f"{row.defense!r} {' and '.join(found)}, and RobustBench takes only defences that answer every image with "
            "a label, always the same one, without an optimisation loop"
        )
    return defense


def _check_cell(record: RunRecord, row: RowName) -> CellRecord:
    """Return the cell of AutoAttack on the whole defence; raise ConfigError if there is none with a number."""
    attacked = {c.threat_model: c for c in _cells(record, row) if c.attack == AUTOATTACK and sees_whole(c.threat_model)}
    if not attacked:
        whole = next(filter(sees_whole, STANDARD))
        raise ConfigError(
            f"{row} was not attacked by {AUTOATTACK} under the {whole} threat model, which is what RobustBench ranks "
            "by; run with ",
            FieldName("attacks"),
            f" {AUTOATTACK} ",
            FieldName("threat_models"),
            f" {whole}",
        )
    cell = attacked[in_reading_order(attacked)[0]]
    if cell.status != "ok":
        raise ConfigError(f"{AUTOATTACK} on {row} has no number ({cell.status}: {cell.reason}); run it again")
    if not len(cell.outcomes) == cell.n == record.manifest.dataset.n:
        raise EvidenceError(
            f"{AUTOATTACK} on {row} should tell of {record.manifest.dataset.n} images, got {len(cell.outcomes)} "
            f"outcomes for n = {cell.n}; the record was damaged or edited, make the run again"
        )
    return cell


def _check_flags(run: LoadedRun, row: RowName, defense: DefenseRecord) -> None:
    raised = [*defense.flags, *(flag for cell in _cells(run.record, row) for flag in cell.flags)]
    flags = {flag.name for flag in (*raised, run.flag) if flag is not None}
    status = row_status(flags)
    if status != "accepted":
        raise ConfigError(
            f"{row} is {status}: {', '.join(sorted(flags))}; such a row has no rank here and is not published "
            "elsewhere, see 'dkd-bench explain'"
        )


def _check_attack(record: RunRecord) -> None:
    """Raise ConfigError unless the run's AutoAttack is the standard version with the library's parameters."""
    suite: Sequence[Mapping[str, Any]] = record.suite.get("attacks", ())
    attack = next((each for each in suite if each.get("name") == AUTOATTACK), {})
    variant = tuple(attack.get("variant", ()))
    if variant != _STANDARD:
        raise ConfigError(
            f"RobustBench ranks by AutoAttack's standard version, {', '.join(_STANDARD)}; "
            f"the run had {', '.join(variant) or 'one that its record does not describe'}"
        )
    parameters, standard = attack.get("parameters", {}), _standard_parameters()
    changed = sorted(name for name in {*parameters, *standard} if parameters.get(name) != standard.get(name))
    if changed:
        raise ConfigError(
            f"RobustBench ranks by AutoAttack's standard version, and the run changed {', '.join(changed)}; "
            "run it without ",
            FieldName("settings"),
            f" for {AUTOATTACK}",
        )


def _standard_parameters() -> dict[str, Any]:
    """Return the library's parameters, which are the attack's defaults; imported here since attacks need torch."""
    from dkd_bench.attacks.autoattack import AutoAttackSettings
    from dkd_bench.plugins.settings import settings_as_json

    return settings_as_json(AutoAttackSettings())


def _cells(record: RunRecord, row: RowName) -> list[CellRecord]:
    return [cell for cell in record.cells if RowName(cell.defense, cell.decision, cell.norm, cell.eps or 0) == row]


def _is_ensemble(record: RunRecord, row: RowName, defense: DefenseRecord) -> bool:
    """Say whether the record shows several networks: latents to compare, or examples made on several of them."""
    several = any(len(cell.candidates) > 1 and _is_made_on_each(cell.threat_model) for cell in _cells(record, row))
    return defense.separation is not None or several


def _is_made_on_each(threat_model: str) -> bool:
    """Return whether each candidate is made on one of the networks, so that a mean over them says something."""
    facts = facts_of(threat_model)
    return facts is not None and bool(facts.mean_over)


def _eps(row: RowName) -> str:
    return eps_as_text(row.eps, _NORMS.get(row.norm, row.norm))


def _percent(fraction: Fraction) -> str:
    """Return a percentage as RobustBench's files have it: two decimals, no sign."""
    return f"{100 * fraction:.2f}"


def _provenance(record: RunRecord) -> str:
    version = record.manifest.versions.get("dkd-bench", "of unknown version")
    return (
        f"Measured with dkd-bench {version}, suite fingerprint {record.suite_fingerprint}, "
        f"n = {record.manifest.dataset.n}."
    )
