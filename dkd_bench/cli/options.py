"""Options that are no fields of a request, and those of commands without a request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from dkd_bench.errors import FieldName
from dkd_bench.steps.request import CheckRequest, DeviceName, RequestT, RunRequest
from dkd_bench.steps.words import Word, words_of

ONE_DEFENSE = Word(option="defense", metavar="NAME", help="A defence, or path/to/file.py:Class.", once=True)
"""Argument of commands on one defence, where others take several."""

DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="Where the datasets are; else DKD_BENCH_DATA, else downloaded."),
]
RecipeName = Annotated[Literal["fast", "paper"], typer.Option("--recipe", help="How networks are trained.")]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="FILE", help="The weights of torch:package.module:factory; short for --set weights=FILE."
    ),
]
ZooRoot = Annotated[
    Path | None,
    typer.Option(
        "--zoo-root",
        metavar="DIR",
        help="Where the weights of robustbench:NAME are, or go; short for --set zoo_root=DIR.",
    ),
]
Device = Annotated[DeviceName, typer.Option("--device", help="Where to compute.")]
Format = Literal["markdown", "json"]
OutputFormat = Annotated[Format, typer.Option("--format", help="How the result is printed.")]
PictureFormat = Annotated[Literal["png", "svg"], typer.Option("--figure", help="The format of the picture.")]


def with_files(request: RequestT, *, weights: Path | None, zoo_root: Path | None) -> RequestT:
    """Return the request with the settings that ``--weights`` and ``--zoo-root`` are short for."""
    named = {"weights": weights, "zoo_root": zoo_root}
    files = (f"{name}={path}" for name, path in named.items() if path is not None)
    return replace(request, settings=(*request.settings, *files))


_OPTIONS = {
    name: word.option for request in (RunRequest, CheckRequest) for name, (_, word) in words_of(request).items()
}


def as_option(field: FieldName) -> str:
    """Return a field of a request as it is written on the command line: ``--n-examples``."""
    return f"--{field.option or _OPTIONS.get(field.name) or field.name.replace('_', '-')}"
