"""Writing of a run's folder: its record, and its board with links to its pictures."""

from __future__ import annotations

from pathlib import Path

from dkd_bench.leaderboard import rank_runs, render
from dkd_bench.records import RunRecord
from dkd_bench.records.rundir import PLOTS, RESULTS, LoadedRun
from dkd_bench.records.verification import VERIFICATION
from dkd_bench.store.files import delete_file, write_file, write_json

_PICTURE_SUFFIXES = (".png", ".svg")


def save_run(record: RunRecord, folder: Path) -> None:
    """Write the record and the leaderboard, and forget what was verified; raise StoreError if that cannot be done."""
    delete_file(folder / VERIFICATION)
    save_board(record, folder)
    write_json(folder / RESULTS, record.model_dump(mode="json"))


def save_board(run: RunRecord | LoadedRun, folder: Path) -> None:
    """Write the leaderboard, with links to the pictures there are; raise StoreError if it cannot be written."""
    for path, text in board_files(run, folder).items():
        write_file(path, text)


def board_files(run: RunRecord | LoadedRun, folder: Path) -> dict[Path, str]:
    """Return the files of a run's leaderboard in its ``folder``, with links to the pictures that are there.

    Of a picture drawn in several formats the first of ``_PICTURE_SUFFIXES`` is shown.
    """
    board = rank_runs([(folder.name, run)])
    return {
        folder / "leaderboard.md": _with_pictures(render(board, "markdown"), folder),
        folder / "leaderboard.json": render(board, "json"),
    }


def _with_pictures(board: str, folder: Path) -> str:
    """Return the board's Markdown followed by the pictures in ``folder``; as it is if there are none."""
    names = sorted({file.stem for file in (folder / PLOTS).glob("*") if file.suffix in _PICTURE_SUFFIXES})
    if not names:
        return board
    kinds = {
        name: next(kind for kind in _PICTURE_SUFFIXES if (folder / PLOTS / (name + kind)).is_file()) for name in names
    }
    links = "\n\n".join(f"![{name}]({PLOTS}/{name}{kind})" for name, kind in kinds.items())
    return f"{board}\n## Pictures\n\n{links}\n"


def forget_pictures(folder: Path) -> None:
    """Delete the pictures of a run that is about to be made; they would show other numbers.

    Raises:
        StoreError: if one cannot be deleted.
    """
    for file in (folder / PLOTS).glob("*"):
        if file.suffix in _PICTURE_SUFFIXES:
            delete_file(file)
