"""Rendering of a check as JUnit XML, which CI services show as tests."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from dkd_bench.check._report import CellVerdict, CheckReport
from dkd_bench.errors import Spelling

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Pattern of the characters that no XML document may hold, in whatever form."""

_SUITE = "dkd-bench check"


def render_junit(report: CheckReport, spell: Spelling = str) -> str:
    """Return one test for each cell: a failure where it regressed, an error where nothing was compared.

    Skipped are cells whose attack changed, where that is all that is known to have changed.
    """
    kinds = [_kind(cell) for cell in report.cells]
    counts = {
        "tests": str(len(kinds)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
        "skipped": str(kinds.count("skipped")),
    }
    root = ElementTree.Element("testsuites", {"name": _SUITE, **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _SUITE, **counts})
    for cell, kind in zip(report.cells, kinds, strict=True):
        case = ElementTree.SubElement(
            suite,
            "testcase",
            {
                "classname": _clean(f"robustness.{cell.key.defense}.{cell.key.decision}"),
                "name": _clean(f"{cell.key.threat_model} {cell.key.attack} {cell.key.budget}"),
            },
        )
        if kind is not None:
            ElementTree.SubElement(case, kind, {"message": _clean(_message(cell, spell)), "type": cell.verdict})
    if report.environment:
        ElementTree.SubElement(suite, "system-out").text = _clean(report.environment_note)
    if report.warnings:
        ElementTree.SubElement(suite, "system-err").text = _clean("\n".join(report.warnings))
    ElementTree.indent(root, space=" ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _kind(cell: CellVerdict) -> str | None:
    if cell.regressed:
        return "failure"
    if cell.unchecked:
        return "error"
    return "skipped" if cell.verdict == "attack changed" else None


def _message(cell: CellVerdict, spell: Spelling) -> str:
    detail = cell.detail.spelled(spell)
    if cell.difference is None or cell.ci95 is None:
        return detail
    numbers = (
        f"robust accuracy {cell.new_accuracy:.4f}, in the reference {cell.reference_accuracy:.4f}: "
        f"{cell.difference:+.4f} [{cell.ci95[0]:+.4f}, {cell.ci95[1]:+.4f}], n = {cell.n}"
    )
    if cell.p_value is not None:
        of = "" if cell.old_evidence_now is None else " on the old evidence"
        numbers += f", p = {cell.p_value:.3g}{of}, corrected {cell.p_corrected:.3g}"
    return f"{numbers}; {detail}" if detail else numbers


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
