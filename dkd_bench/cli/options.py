"""The options that several commands share; their defaults are those of the requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dkd_bench.errors import ConfigError

Defenses = Annotated[
    list[str],
    typer.Option("--defense", metavar="NAME", help="A defence, or path/to/file.py:Class. Repeats."),
]
DatasetName = Annotated[
    str,
    typer.Option("--dataset", metavar="NAME", help="digits, mnist, fashion-mnist, cifar10, npz:FILE, imagefolder:DIR."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="Where the datasets are; else DKD_BENCH_DATA, else downloaded."),
]
RecipeName = Annotated[str, typer.Option("--recipe", metavar="fast|paper", help="How networks are trained.")]
Seed = Annotated[int, typer.Option("--seed", metavar="S", help="Of training, images and attacks.")]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting of the defences or attacks, such as zeta=0.7 or pgd.steps=100. Repeats.",
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute.")]
OutputFormat = Annotated[str, typer.Option("--format", metavar="markdown|json", help="How the leaderboard is printed.")]


def batch_size(word: str) -> int | None:
    """Return the number in ``--batch-size``, ``None`` for ``auto``.

    Raises:
        ConfigError: if it is neither.
    """
    if word == "auto":
        return None
    try:
        return int(word)
    except ValueError:
        raise ConfigError(f"--batch-size must be a number or auto, got {word!r}") from None
