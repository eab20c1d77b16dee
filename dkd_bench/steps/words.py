"""Words for the fields of a request: facts that stand on the fields, for whoever asks a user for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Description of one field on the command line; the default is the field's own."""

    help: str
    option: str = ""
    """Name of the option, without dashes; empty for the field's name with hyphens."""
    metavar: str | None = None
    shown_default: str = ""
    """Text for a default that says nothing by itself, such as an empty tuple."""
    none: str = ""
    """Word that stands for ``None``, where there is one."""
    choices: tuple[str, ...] = ()
    """Choices of the field, where its type does not say them."""
    positional: bool = False
    once: bool = False
    """Whether a field of several is asked for one alone."""
    default: Any = ...
    """Default instead of the field's own, where it is not ``...``."""


def in_words(help: str, **facts: Any) -> Mapping[str, Word]:
    """Return the metadata of a field of a request; ``facts`` are those of ``Word``."""
    return {"word": Word(help=help, **facts)}


def words_of(request: type[Any]) -> dict[str, tuple[Field[Any], Word]]:
    """Return the fields of a request that are asked for in words, by name, in their order."""
    return {each.name: (each, each.metadata["word"]) for each in fields(request) if "word" in each.metadata}
