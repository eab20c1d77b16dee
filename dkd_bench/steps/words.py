"""How the fields of a request are asked for in words: facts that stand on the fields, for whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What the command line says of one field; the default is the field's own."""

    help: str
    option: str = ""
    """Its name there, without dashes; empty for the field's name with hyphens."""
    metavar: str | None = None
    shown_default: str = ""
    """What stands for a default that says nothing by itself, such as an empty tuple."""
    none: str = ""
    """The word that stands for ``None``, where there is one."""
    choices: tuple[str, ...] = ()
    """All there is to choose from, where the field's type does not say it."""
    positional: bool = False
    once: bool = False
    """Whether a field of several is asked for one alone."""
    default: Any = ...
    """Instead of the field's own, where it is not ``...``."""


def in_words(help: str, **facts: Any) -> Mapping[str, Word]:
    """Return the metadata of a field of a request; ``facts`` are those of ``Word``."""
    return {"word": Word(help=help, **facts)}


def words_of(request: type[Any]) -> dict[str, tuple[Field[Any], Word]]:
    """Return the fields of a request that are asked for in words, by name, in their order."""
    return {each.name: (each, each.metadata["word"]) for each in fields(request) if "word" in each.metadata}
