"""Errors that a user can meet, each one sentence: what was expected, what was found, what to do next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum
from typing import TypeAlias, final


class ExitCode(IntEnum):
    """The exit statuses of every command."""

    DONE = 0
    CHECK_FAILED = 1
    USAGE = 2
    INCOMPLETE = 3
    INTERRUPTED = 130


@final
@dataclass(frozen=True, slots=True)
class FieldName:
    """A field of a request within a sentence: whoever shows the sentence spells it as its readers write it."""

    name: str
    option: str = ""
    """Its name on the command line, without dashes, where that is another one and no request says so."""

    def __str__(self) -> str:
        return self.name


Spelling: TypeAlias = Callable[[FieldName], str]
"""How the fields of requests are written: ``str`` for those who call Python."""


@final
class Sentence(str):
    """A sentence that names fields of requests; as text it has their names in Python."""

    parts: tuple[str | FieldName, ...]

    def __new__(cls, *parts: str | FieldName) -> Sentence:
        """Join texts, field names, and sentences."""
        made = super().__new__(cls, "".join(map(str, parts)))
        made.parts = tuple(each for part in parts for each in (part.parts if isinstance(part, Sentence) else (part,)))
        return made

    def spelled(self, spell: Spelling) -> str:
        """Return the sentence with its fields written as ``spell`` writes them."""
        return "".join(spell(part) if isinstance(part, FieldName) else part for part in self.parts)


class DkdBenchError(Exception):
    """Base class of all errors that a user can meet; the message is complete without a traceback."""

    exit_code = ExitCode.USAGE

    def __init__(self, *parts: str | FieldName) -> None:
        """Say what is wrong, in texts and names of fields that make up one sentence."""
        super().__init__(*parts)

    def __str__(self) -> str:
        return str(self.sentence)

    @property
    def sentence(self) -> Sentence:
        """What is wrong; its ``spelled`` writes fields as those who read it do."""
        return Sentence(*self.args)


class ConfigError(DkdBenchError):
    """Option, setting or parameter that is wrong."""


class UnknownNameError(ConfigError):
    """Name that no plugin, setting or choice has."""

    def __init__(self, what: str, name: str, known: Iterable[str], *, known_as: str = "Installed") -> None:
        """Say which name is unknown, the nearest known one, and all that are known."""
        names = sorted(known)
        near = get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"no {what} named {name!r}.{hint} {known_as}: {', '.join(names) or 'none'}")


class DatasetError(DkdBenchError):
    """Dataset that is missing, corrupt or not of the expected form."""


class PluginError(DkdBenchError):
    """Plugin that cannot be loaded, or breaks the promise of its interface."""

    exit_code = ExitCode.INCOMPLETE


class UndeclaredRandomnessError(PluginError):
    """Defence that answers differently when asked again, and does not declare it."""


class AttackError(DkdBenchError):
    """Attack that failed to run, or whose target gave answers that no attack can use."""

    exit_code = ExitCode.INCOMPLETE


class IncompleteRunError(DkdBenchError):
    """Run that lacks numbers, so that nothing can be held against it."""

    exit_code = ExitCode.INCOMPLETE


class EvidenceError(DkdBenchError):
    """Adversarial images that are not what they claim to be: budget, box, count, order or digest."""

    exit_code = ExitCode.CHECK_FAILED


class StoreError(DkdBenchError):
    """File that cannot be read or written."""

    exit_code = ExitCode.INCOMPLETE
