"""Pages of published results, rendered from a folder of records and from nothing else."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from dkd_bench.errors import ConfigError, StoreError
from dkd_bench.records.rundir import RESULTS, load_with_doubt
from dkd_bench.steps.save import board_files
from dkd_bench.store.files import read_file, write_file
from dkd_paper.record import Reproduction
from dkd_paper.report import render_reproduction
from dkd_paper.targets import TARGETS

PAGE = "LEADERBOARD.md"


def pages(folder: Path) -> dict[Path, str]:
    """Return every page of published results with the text that its records give it.

    Each folder inside ``folder`` holds a run (``results.json``) or reproductions (``table2.json`` and so on); its
    own pages are rendered from them, and ``LEADERBOARD.md`` shows all.

    Raises:
        ConfigError: if nothing is published in ``folder``.
        StoreError: if a record is damaged, or a picture is not the one that its record names.
    """
    texts: dict[Path, str] = {}
    sections: dict[str, list[str]] = {}
    for inside in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
        rendered = _run_page(inside) | _reproduction_pages(inside)
        texts |= rendered
        if rendered:
            shown = [text for path, text in rendered.items() if path.suffix == ".md"]
            sections[inside.name] = [_inside(text, inside.name) for text in shown]
    if not sections:
        raise ConfigError(f"nothing is published in {folder}; expected folders with {RESULTS} or {TARGETS[0]}.json")
    contents = "\n".join(f"- [{name}](#{name})" for name in sections)
    body = [part for name, parts in sections.items() for part in (f"## {name}", *parts)]
    head = "# Published results\n\nRendered by `dkd-bench publish` from the records in the folders; not edited by hand."
    texts[folder / PAGE] = "\n\n".join(part.strip("\n") for part in (head, contents, *body)) + "\n"
    return texts


def publish(folder: Path) -> list[Path]:
    """Write every page of ``folder`` again and return those that changed; raises as ``pages`` does."""
    stale = stale_pages(folder)
    for path, text in pages(folder).items():
        if path in stale:
            write_file(path, text)
    return stale


def stale_pages(folder: Path) -> list[Path]:
    """Return the pages that are not what their records give; raises as ``pages`` does."""
    return [path for path, text in pages(folder).items() if not path.is_file() or read_file(path) != text.encode()]


def _run_page(folder: Path) -> dict[Path, str]:
    if not (folder / RESULTS).is_file():
        return {}
    return board_files(load_with_doubt(folder), folder)


def _reproduction_pages(folder: Path) -> dict[Path, str]:
    found = [folder / f"{target}.json" for target in TARGETS if (folder / f"{target}.json").is_file()]
    texts = {}
    for path in found:
        reproduction = _reproduction(path)
        _check_picture(reproduction, folder)
        texts[path.with_suffix(".md")] = render_reproduction(reproduction)
    return texts


def _check_picture(reproduction: Reproduction, folder: Path) -> None:
    """Raise StoreError unless the picture that a reproduction names is the one it was saved with."""
    if reproduction.picture is None:
        return
    found = sha256(read_file(folder / reproduction.picture)).hexdigest()
    if found != reproduction.picture_sha256:
        raise StoreError(
            f"{folder / reproduction.picture} should have digest {reproduction.picture_sha256}, has {found}; "
            f"take it anew from '{reproduction.command}'"
        )


def _reproduction(path: Path) -> Reproduction:
    try:
        return Reproduction.model_validate_json(read_file(path))
    except ValidationError as error:
        raise StoreError(
            f"{path} is not a reproduction of this version: {error.errors()[0]['msg']}; make it again"
        ) from error


def _inside(text: str, folder: str) -> str:
    """Return a page as a section of the whole: headings two levels down, links from one folder up."""
    lines = [f"##{line}" if line.startswith("#") else line for line in text.splitlines()]
    return "\n".join(lines).replace("](", f"]({folder}/")
