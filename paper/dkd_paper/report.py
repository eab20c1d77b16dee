"""Rendering of a reproduction as Markdown, and its files."""

from __future__ import annotations

from pathlib import Path

from dkd_bench.leaderboard import table
from dkd_bench.store.files import write_file, write_json
from dkd_paper.record import Block, Entry, Estimate, Reproduction, Unit
from dkd_paper.targets import Reproduced

_DIGEST = 8
"""Number of characters shown of a digest; the record has them all."""

_SCALE: dict[Unit, float] = {"percent": 100, "percentage points": 100, "per 10,000": 10_000, "margin": 1}
_DIGITS: dict[Unit, int] = {"percent": 1, "percentage points": 2, "per 10,000": 0, "margin": 3}


def save_reproduction(made: Reproduced, folder: Path) -> dict[str, Path]:
    """Write a reproduction as Markdown and JSON, and its picture; return the files by ``markdown`` and ``json``.

    Raises:
        StoreError: if a file cannot be written.
    """
    reproduction = made.reproduction
    files = {"markdown": folder / f"{reproduction.target}.md", "json": folder / f"{reproduction.target}.json"}
    if made.picture is not None:
        assert reproduction.picture is not None, "a picture has a name"
        write_file(folder / reproduction.picture, made.picture)
    write_json(files["json"], reproduction.model_dump(mode="json"))
    write_file(files["markdown"], render_reproduction(reproduction))
    return files


def render_reproduction(made: Reproduction) -> str:
    """Return tables, trends and sources as Markdown; our numbers first, the authors' in parentheses."""
    parts = [f"# {made.title}: {made.dataset}", _ground(made)]
    for block in made.blocks:
        parts += [f"## {block.title}, {block.unit}", _block(block)]
    if made.picture is not None:
        parts.append(f"![{made.title}]({made.picture})")
    verdicts = "\n".join(f"- **{each.verdict}**: {each.claim} ({each.evidence})" for each in made.trends)
    parts += ["## Claims", verdicts]
    parts += ["## Notes", "\n".join(f"- {note}" for note in (*made.notes, *_legend(made)))]
    if made.sources:
        parts += ["## Runs", _sources(made)]
    return "\n\n".join(parts) + "\n"


def _sources(made: Reproduction) -> str:
    """Return the sources of the numbers: a digest's beginning tells one thing from another."""
    defenses = list(dict.fromkeys(name for source in made.sources for name in source.weights_sha256))
    header = ["run", "seed", "n", "data", "images", "attack", *(f"weights of {name}" for name in defenses), "device"]
    rows = [
        [
            source.part,
            str(source.run.seed),
            f"{source.run.n:,}",
            *(
                digest[:_DIGEST]
                for digest in (source.run.dataset_digest, source.run.indices_digest, source.run.suite_fingerprint)
            ),
            *(source.weights_sha256.get(name, "")[:_DIGEST] for name in defenses),
            source.run.device,
        ]
        for source in made.sources
    ]
    return table(header, rows, left=1)


def _ground(made: Reproduction) -> str:
    recipes = sorted({source.run.recipe for source in made.sources})
    seeds = ", ".join(map(str, made.seeds))
    return f"Recipe {', '.join(recipes)}, seed{'s' if len(made.seeds) > 1 else ''} {seeds}; made by `{made.command}`."


def _block(block: Block) -> str:
    header = ["", *block.columns, "n"]
    rows = [
        [row.label, *(_entry(entry, block.unit) for entry in row.entries), _count(row.entries)] for row in block.rows
    ]
    return table(header, rows, left=1)


def _entry(entry: Entry, unit: Unit) -> str:
    measured = "-" if entry.measured is None else _estimate(entry.measured, unit)
    return measured if entry.paper is None else f"{measured} ({_number(entry.paper, unit)})"


def _estimate(found: Estimate, unit: Unit) -> str:
    text = _number(found.value, unit)
    if found.spread is not None:
        text += f" ± {_number(found.spread, unit)}"
    if found.ci95 is not None:
        text += f" [{_number(found.ci95[0], unit)}, {_number(found.ci95[1], unit)}]"
    return text


def _number(value: float, unit: Unit) -> str:
    return f"{_SCALE[unit] * value:.{_DIGITS[unit]}f}" if unit != "margin" else f"{value:.3g}"


def _count(entries: tuple[Entry, ...]) -> str:
    counts = sorted({entry.measured.n for entry in entries if entry.measured is not None}, reverse=True)
    return " / ".join(f"{n:,}" for n in counts) or "-"


def _legend(made: Reproduction) -> list[str]:
    lines = ["n: images under each seed."]
    if any("/" in _count(row.entries) for block in made.blocks for row in block.rows):
        lines = ["n: images under each seed; of two, the larger is that of the columns on the left."]
    if any(entry.paper is not None for block in made.blocks for row in block.rows for entry in row.entries):
        lines.append(f"In parentheses: the authors' numbers for {made.paper_dataset}, not measured here.")
    if any(block.unit != "margin" for block in made.blocks):
        lines.append("In brackets: the 95 % Wilson interval for n images.")
    if len(made.seeds) > 1:
        lines.append("±: standard deviation over the seeds, each with networks of its own.")
    lines.append("* marks the boosted vote. An image that is wrong when clean is lost.")
    return lines
