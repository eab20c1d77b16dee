"""Published rows: RobustBench's JSON files of others' results, shown apart from what was measured here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isclose, isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dkd_bench.errors import ConfigError
from dkd_bench.leaderboard._table import NOTHING, table
from dkd_bench.records import Fraction, Record
from dkd_bench.store.files import read_file

Threat = Literal["Linf", "L2", "corruptions", "corruptions_3d", "unknown"]
"""Threat in RobustBench's words: what may change in an image; ``unknown`` for a file outside its folders."""
Measure = Literal["external", "autoattack", "corruptions", "corruptions 3D"]

_FOLDERS: dict[str, Threat] = {
    "Linf": "Linf",
    "L2": "L2",
    "corruptions": "corruptions",
    "corruptions_3d": "corruptions_3d",
}
_ADVERSARIAL: tuple[Measure, ...] = ("external", "autoattack")
"""Names of the field for accuracy under attack; RobustBench ranks by the external number where there is one."""
_ORDERS: dict[Threat, tuple[Measure, ...]] = {
    "Linf": _ADVERSARIAL,
    "L2": _ADVERSARIAL,
    "corruptions": ("corruptions", "corruptions 3D"),
    "corruptions_3d": ("corruptions 3D",),
    "unknown": (*_ADVERSARIAL, "corruptions", "corruptions 3D"),
}
"""Names of the fields that count for each threat, the first that is there."""
_FIELDS: dict[Measure, str] = {
    "external": "external",
    "autoattack": "autoattack_acc",
    "corruptions": "corruptions_acc",
    "corruptions 3D": "corruptions_acc_3d",
}
_LEVELS = 255
"""Number of levels of a pixel: the unit in which Linf budgets are usually written."""


class PublishedRow(Record):
    """Defence as somebody else measured it; never ranked among rows measured here."""

    source: str
    """Name of the file, without its suffix."""
    name: str
    dataset: str
    threat: Threat
    eps: float | None
    """Budget in [0, 1] pixel units; ``None`` where there is none."""
    clean_accuracy: Fraction
    robust_accuracy: Fraction
    """Accuracy under attack that the publisher ranks by, in [0, 1]."""
    measured_by: Measure
    """Field that ``robust_accuracy`` is from: ``external`` for an evaluation other than AutoAttack."""
    autoattack_accuracy: Fraction | None
    """Accuracy under AutoAttack, in [0, 1], also where an external number counts instead."""
    venue: str
    link: str
    unreliable: bool
    """Whether the publisher itself calls the number unreliable."""
    footnote: str | None


def fraction_of(percent: str) -> Fraction:
    """Return ``"53.42"`` as 0.5342; raise ValueError unless it is a number from 0 to 100."""
    try:
        number = float(percent)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= 100:
        raise ValueError(f"expected a percentage such as '53.42', from 0 to 100, got {percent!r}")
    return number / 100


def eps_as_text(eps: float, threat: str) -> str:
    """Return a budget as RobustBench writes it: ``8/255`` where that is exact, but in L2, else a decimal."""
    levels = round(eps * _LEVELS)
    if threat != "L2" and 0 < levels < _LEVELS and isclose(eps * _LEVELS, levels, rel_tol=1e-6):
        return f"{levels}/{_LEVELS}"
    return f"{eps:.10g}"


def read_published(path: Path) -> tuple[PublishedRow, ...]:
    """Return the rows of a RobustBench JSON file, or of all such files in and below a folder, by file name.

    Which threat a row belongs to is not in the file: it is the name of the folder that the file lies in.

    Raises:
        ConfigError: if there is no such file, or one is not a row in RobustBench's format; names the file.
        StoreError: if a file cannot be read.
    """
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if path.is_dir() and not files:
        raise ConfigError(f"no JSON file in {path}; expected rows as in RobustBench's folder model_info")
    if not path.exists():
        raise ConfigError(f"no file or folder {path}; expected a row, or rows, as in RobustBench's folder model_info")
    return tuple(_read(file) for file in files)


def render_published(rows: Sequence[PublishedRow]) -> str:
    """Return the rows as a section of Markdown, best first for each dataset and budget; empty if there is none."""
    if not rows:
        return ""
    header = ["defence", "dataset", "threat", "eps", "venue", "link", "note", "clean", "AutoAttack"]
    lines = [
        [
            row.name,
            row.dataset,
            row.threat,
            NOTHING if row.eps is None else eps_as_text(row.eps, row.threat),
            row.venue,
            row.link,
            _note(row),
            _percent(row.clean_accuracy),
            _percent(row.robust_accuracy),
        ]
        for row in sorted(rows, key=_reading_order)
    ]
    return "\n\n".join(
        (
            "## Published elsewhere, not measured here",
            "Numbers of RobustBench's files, as they stand there: no evidence of them was checked, and they have no "
            "rank. The last column is AutoAttack's number unless the note says otherwise.",
            table(header, lines, left=7),
        )
    )


def _reading_order(row: PublishedRow) -> tuple[object, ...]:
    return row.dataset, row.threat, row.eps is None, row.eps or 0.0, -row.robust_accuracy, row.name


def _note(row: PublishedRow) -> str:
    parts: list[str] = [] if row.measured_by == "autoattack" else [row.measured_by]
    if row.measured_by == "external" and row.autoattack_accuracy is not None:
        parts = [f"external; AutoAttack {_percent(row.autoattack_accuracy)}"]
    return "; ".join([*parts, "unreliable"] if row.unreliable else parts)


def _percent(fraction: Fraction) -> str:
    """Return a percentage with the two decimals that RobustBench gives."""
    return f"{100 * fraction:.2f}"


def _parse_percent(value: Any) -> Fraction:
    if not isinstance(value, str):
        raise ValueError(f"expected a percentage as a string such as '53.42', got {value!r}")
    return fraction_of(value)


def _parse_percent_or_none(value: Any) -> Fraction | None:
    return None if value is None else _parse_percent(value)


def _parse_eps(value: Any) -> float | None:
    """Return the budget of ``"8/255"``, of ``"0.5"`` or of a plain number, as RobustBench's own tool writes it."""
    if value is None:
        return None
    eps = float("nan")
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        over, _, under = str(value).partition("/")
        try:
            eps = float(over) / float(under or 1)
        except (ValueError, ZeroDivisionError):
            eps = float("nan")
    if not (isfinite(eps) and eps > 0):
        raise ValueError(f"expected a budget such as '8/255' or '0.5', or null, got {value!r}")
    return eps


_Percent = Annotated[Fraction, BeforeValidator(_parse_percent)]
_PercentOrNone = Annotated[Fraction | None, BeforeValidator(_parse_percent_or_none)]


class _File(BaseModel):
    """Fields that are read of a file; RobustBench adds fields now and then, which do not matter here."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, str_strip_whitespace=True)

    name: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    eps: Annotated[float | None, BeforeValidator(_parse_eps)]
    clean_acc: _Percent
    external: _PercentOrNone = None
    autoattack_acc: _PercentOrNone = None
    corruptions_acc: _PercentOrNone = Field(
        None, validation_alias=AliasChoices("corruptions_acc", "corruptions_acc_2d")
    )
    corruptions_acc_3d: _PercentOrNone = None
    venue: str
    link: str
    unreliable: bool = False
    footnote: str | None = None


def _read(file: Path) -> PublishedRow:
    try:
        value = json.loads(read_file(file))
        if not isinstance(value, dict):
            raise _not_a_row(file, f"it should hold one JSON object, and holds a {type(value).__name__}")
        content = _File.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise _not_a_row(file, f"{where}: {first['msg'].removeprefix('Value error, ')}") from error
    except (ValueError, RecursionError) as error:
        raise _not_a_row(file, f"it is not JSON ({error})") from error
    threat = _FOLDERS.get(file.absolute().parent.name, "unknown")
    numbers: dict[Measure, Fraction | None] = {measure: getattr(content, name) for measure, name in _FIELDS.items()}
    measure = next((each for each in _ORDERS[threat] if numbers[each] is not None), None)
    robust = None if measure is None else numbers[measure]
    if measure is None or robust is None:
        expected = " or ".join(_FIELDS[each] for each in _ORDERS[threat])
        raise _not_a_row(file, f"it should have {expected}, and has none")
    return PublishedRow(
        source=file.stem,
        name=content.name,
        dataset=content.dataset,
        threat=threat,
        eps=content.eps,
        clean_accuracy=content.clean_acc,
        robust_accuracy=robust,
        measured_by=measure,
        autoattack_accuracy=content.autoattack_acc,
        venue=content.venue,
        link=content.link,
        unreliable=content.unreliable,
        footnote=content.footnote,
    )


def _not_a_row(file: Path, reason: str) -> ConfigError:
    return ConfigError(f"{file} is not a row in RobustBench's format: {reason}; see the files of its folder model_info")
