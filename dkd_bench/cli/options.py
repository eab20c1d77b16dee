"""The options that several commands share; their defaults are those of the requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dkd_bench.errors import ConfigError
from dkd_bench.steps.request import DeviceName

Defenses = Annotated[
    list[str],
    typer.Option(
        "--defense",
        metavar="NAME",
        help="A defence, torch:package.module:factory, robustbench:NAME, or path/to/file.py:Class. Repeats.",
    ),
]
Defense = Annotated[str, typer.Option("--defense", metavar="NAME", help="A defence, or path/to/file.py:Class.")]
Attacks = Annotated[
    list[str],
    typer.Option(
        "--attack",
        metavar="NAME|all",
        default_factory=lambda: ["all"],
        show_default="all",
        help="An attack, path/to/file.py:Class, or the standard suite. Repeats.",
    ),
]
ThreatModels = Annotated[
    list[str],
    typer.Option(
        "--threat-model",
        metavar="NAME|all",
        default_factory=lambda: ["all"],
        show_default="all",
        help="black-box, standalone, aggregated or joint. Repeats.",
    ),
]
Epsilons = Annotated[
    list[float],
    typer.Option(
        "--eps",
        metavar="E",
        default_factory=list,
        show_default="the dataset's own",
        help="A budget in [0, 1] pixel units; in l0, how many values may change. Repeats.",
    ),
]
DatasetName = Annotated[
    str,
    typer.Option("--dataset", metavar="NAME", help="digits, mnist, fashion-mnist, cifar10, npz:FILE, imagefolder:DIR."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="DIR", help="Where the datasets are; else DKD_BENCH_DATA, else downloaded."),
]
NExamples = Annotated[
    int | None,
    typer.Option("--n-examples", metavar="N", help="Test images to attack; else the dataset's own number."),
]
RecipeName = Annotated[Literal["fast", "paper"], typer.Option("--recipe", help="How networks are trained.")]
Seed = Annotated[int, typer.Option("--seed", metavar="S", help="Of training, images and attacks.")]
TrainingSeed = Annotated[
    int | None,
    typer.Option("--training-seed", metavar="S", help="Of the training alone; the images and attacks stay --seed's."),
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        default_factory=list,
        show_default=False,
        help="A setting of the defences or attacks, such as zeta=0.7 or pgd.steps=100. Repeats.",
    ),
]
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


def with_files(settings: list[str], *, weights: Path | None, zoo_root: Path | None) -> tuple[str, ...]:
    """Return the words of ``--set`` with those that ``--weights`` and ``--zoo-root`` are short for."""
    named = {"weights": weights, "zoo_root": zoo_root}
    return (*settings, *(f"{name}={path}" for name, path in named.items() if path is not None))


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
