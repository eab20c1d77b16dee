"""Rendering of latent space separation for people: how far apart the members are, and what the words mean."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dkd_bench.errors import UnknownNameError
from dkd_bench.leaderboard._render import FORMATS, Format
from dkd_bench.leaderboard._table import NOTHING, one_line, percent, table
from dkd_bench.separation.records import Separation, SeparationReport

_LEGEND = (
    "LSS: the width 2/||w|| of the widest gap between the latents of one member and those of all others, the margin "
    "of a hard-margin linear SVM, as a mean over the members (arXiv 2006.15127, Eq. 5 and 6).",
    "raw: in the units of the latents. It grows with their scale and says nothing of networks whose latents differ in "
    "scale: do not compare raw numbers where the radius differs.",
    "scale-free: over the radius, the root mean square distance of all the latents from their mean; compare these, at "
    "equal n and D.",
    "certificate: the largest duality gap, the share by which ||w||^2 could still be smaller; all points were checked.",
)
_NULL_LEGEND = (
    "null: the same latents dealt to the members at random; the share of draws in which a plane separates them, and "
    "the largest raw margin found. Where that share is not 0, a margin says little."
)


def render_separations(reports: Sequence[SeparationReport], format: Format) -> str:
    """Return the reports as text in ``format``, ending in a newline.

    Markdown is a table, a line for each member and a legend; JSON a list, with what derives from its numbers.

    Raises:
        UnknownNameError: if there is no such format.
    """
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS, known_as="Known")
    return _json(reports) if format == "json" else _markdown(reports)


def _markdown(reports: Sequence[SeparationReport]) -> str:
    legend = [*_LEGEND, _NULL_LEGEND] if any(report.null for report in reports) else _LEGEND
    return "\n\n".join([_overview(reports), _members(reports), "\n".join(f"- {line}" for line in legend)]) + "\n"


def _json(reports: Sequence[SeparationReport]) -> str:
    derived = [
        {
            "lss": report.separation.lss,
            "scaled_lss": report.separation.scaled_lss,
            "reason": report.separation.reason,
            "null_share_separable": report.null.share_separable if report.null else None,
            "null_quartiles": report.null.quartiles if report.null else None,
            **report.model_dump(mode="json"),
        }
        for report in reports
    ]
    return json.dumps(derived, indent=2, allow_nan=False) + "\n"


def _overview(reports: Sequence[SeparationReport]) -> str:
    header = ["defence", "dataset", "layer", "members", "n", "D", "LSS raw", "LSS scale-free", "radius"]
    header += ["null separable", "null largest", "certificate"]
    lines = []
    for report in reports:
        members = report.separation.members
        lines.append(
            [
                report.defense,
                report.dataset,
                report.layer,
                str(len(members)),
                str(report.n_examples),
                str(members[0].dimension),
                _number(report.separation.lss),
                _number(report.separation.scaled_lss),
                _number(members[0].rms_radius),
                *_null(report),
                _certificate(members),
            ]
        )
    return table(header, lines, left=3)


def _null(report: SeparationReport) -> tuple[str, str]:
    if report.null is None:
        return "", ""
    found = report.null.found
    return f"{percent(report.null.share_separable)} %", _number(found[-1] if found else None)


def _certificate(members: Sequence[Separation]) -> str:
    gaps = [member.certificate.duality_gap for member in members if member.certificate is not None]
    return f"{max(gaps):.0e}" if len(gaps) == len(members) else NOTHING


def _members(reports: Sequence[SeparationReport]) -> str:
    return "\n".join(
        f"- {one_line(report.defense)}, member {number} against the others: {_sentence(member)}"
        for report in reports
        for number, member in enumerate(report.separation.members, start=1)
    )


def _sentence(member: Separation) -> str:
    if member.margin is None:
        wrong = "" if member.training_error is None else f" (training error {100 * member.training_error:.2f} %)"
        return f"no number: {one_line(member.reason or '')}{wrong}."
    return (
        f"raw {_number(member.margin)}, scale-free {_number(member.scaled_margin)}, "
        f"{member.support_vectors} support vectors of {member.n_points} points."
    )


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:#.3g}".rstrip(".")
