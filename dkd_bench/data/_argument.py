"""Checks of the part after the colon in ``--dataset NAME:ARGUMENT``, alike for every dataset."""

from __future__ import annotations

from pathlib import Path

from dkd_bench.errors import DatasetError, FieldName


def refuse_argument(name: str, argument: str | None) -> None:
    """Do nothing if there is no argument.

    Raises:
        DatasetError: if there is one.
    """
    if argument is not None:
        raise DatasetError(
            f"dataset {name!r} takes no argument, got {argument!r}; write ", FieldName("dataset"), f" {name}"
        )


def path_argument(name: str, argument: str | None, *, what: str) -> Path:
    """Return the path that the argument names.

    Raises:
        DatasetError: if there is no argument.
    """
    if not argument:
        raise DatasetError(f"dataset {name!r} needs {what}, got none; write ", FieldName("dataset"), f" {name}:PATH")
    return Path(argument).expanduser()
