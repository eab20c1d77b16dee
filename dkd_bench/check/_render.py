"""Rendering of a check as text: for people, for a pull request, for machines; pure functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, get_args

from dkd_bench.check._junit import render_junit
from dkd_bench.check._report import VERDICTS, CellVerdict, CheckReport
from dkd_bench.errors import Spelling, UnknownNameError
from dkd_bench.leaderboard import one_line, percent, table

CheckFormat = Literal["text", "json", "junit", "markdown"]

_HEADER = ("cell", "verdict", "reference", "now", "difference", "95 % interval", "p", "p corrected", "n")


def render_check(report: CheckReport, format: CheckFormat, spell: Spelling = str) -> str:
    """Return a report as text for people, JSON, JUnit XML, or Markdown for a pull request.

    ``spell`` writes the fields of requests that it names.

    Raises:
        UnknownNameError: if there is no such format.
    """
    renderers = {"text": _text, "json": _json, "junit": render_junit, "markdown": _markdown}
    if format not in renderers:
        raise UnknownNameError("format", format, get_args(CheckFormat), known_as="Formats")
    return renderers[format](report, spell)


def _text(report: CheckReport, spell: Spelling) -> str:
    width = max(len(verdict) for verdict in VERDICTS)
    lines = []
    for cell in _worst_first(report.cells):
        lines.append(f"{cell.verdict:<{width}}  {cell.key}: {_numbers(cell)}")
        if cell.detail:
            lines.append(f"{'':<{width}}  {cell.detail.spelled(spell)}")
    lines += [f"{'new':<{width}}  {key}: not in the reference" for key in report.new_cells]
    lines += [report.environment_note] if report.environment else []
    lines += [f"warning: {warning}" for warning in report.warnings]
    return "\n".join([*lines, _summary(report)]) + "\n"


def _markdown(report: CheckReport, spell: Spelling) -> str:
    changed = [cell for cell in _worst_first(report.cells) if cell.verdict != "same"]
    same = [cell for cell in report.cells if cell.verdict == "same"]
    parts = [f"### Robustness: {_headline(report)}", _summary(report)]
    if changed:
        parts.append(_table(changed))
        told = [cell for cell in changed if cell.detail]
        details = dict.fromkeys(f"- {cell.key}: {one_line(cell.detail.spelled(spell))}" for cell in told)
        parts += ["\n".join(details)] if details else []
    if same:
        parts.append(f"<details><summary>{len(same)} the same</summary>\n\n{_table(same)}\n\n</details>")
    if report.new_cells:
        parts.append("Not in the reference: " + "; ".join(one_line(str(key)) for key in report.new_cells) + ".")
    parts += [one_line(report.environment_note) + "."] if report.environment else []
    parts += [f"**Warning:** {one_line(warning)}" for warning in report.warnings]
    return "\n\n".join(parts) + "\n"


def _json(report: CheckReport, spell: Spelling) -> str:
    content: dict[str, Any] = report.model_dump(mode="json")
    for dumped, cell in zip(content["cells"], report.cells, strict=True):
        dumped |= {"detail": cell.detail.spelled(spell), "regressed": cell.regressed}
    content |= {"regressed": report.regressed, "exit_code": int(report.exit_code)}
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _headline(report: CheckReport) -> str:
    if report.regressed:
        return f"regressed in {sum(cell.regressed for cell in report.cells)} of {_cells(len(report.cells))}"
    return "not fully checked" if report.exit_code else "no regression"


def _summary(report: CheckReport) -> str:
    counts = {verdict: sum(cell.verdict == verdict for cell in report.cells) for verdict in VERDICTS}
    found = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    new = f", {len(report.new_cells)} new" if report.new_cells else ""
    return (
        f"{_cells(len(report.cells))}: {found}{new}; regressed is a drop of more than {report.tolerance:g} at "
        f"p <= {report.alpha:g}, paired by image, corrected for the number of cells (Holm)"
    )


def _cells(number: int) -> str:
    return f"{number} cell" if number == 1 else f"{number} cells"


def _table(cells: Sequence[CellVerdict]) -> str:
    return table(_HEADER, [_row(cell) for cell in cells], left=2)


def _row(cell: CellVerdict) -> list[str]:
    verdict = f"**{cell.verdict}**" if cell.regressed or cell.unchecked else cell.verdict
    return [
        str(cell.key),
        verdict + (f": {_WHO[cell.moved]}" if cell.moved else ""),
        percent(cell.reference_accuracy),
        percent(cell.new_accuracy),
        "-" if cell.difference is None else f"{100 * cell.difference:+.1f}",
        "-" if cell.ci95 is None else _interval(cell.ci95),
        _p(cell.p_value) + ("" if cell.old_evidence_now is None else " (old evidence)"),
        _p(cell.p_corrected),
        str(cell.n),
    ]


_WHO = {"attack": "the attack moved", "defense": "the defence moved", "unknown": "side unknown"}


def _numbers(cell: CellVerdict) -> str:
    if cell.difference is None or cell.ci95 is None:
        return f"n = {cell.n}"
    numbers = (
        f"{percent(cell.reference_accuracy)} % before, {percent(cell.new_accuracy)} % now, "
        f"{100 * cell.difference:+.1f} {_interval(cell.ci95)}"
    )
    of = "" if cell.old_evidence_now is None else " on the old evidence"
    tests = "" if cell.p_value is None else f", p = {_p(cell.p_value)}{of}, corrected {_p(cell.p_corrected)}"
    return f"{numbers}{tests}, n = {cell.n}"


def _interval(ci95: tuple[float, float]) -> str:
    return f"[{100 * ci95[0]:+.1f}, {100 * ci95[1]:+.1f}]"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _worst_first(cells: Sequence[CellVerdict]) -> list[CellVerdict]:
    return sorted(cells, key=lambda cell: (not cell.regressed, not cell.unchecked, VERDICTS.index(cell.verdict)))
