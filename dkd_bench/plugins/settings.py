"""Settings of plugins: frozen dataclasses, and how words on the command line become their fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, TypeVar, get_args, get_type_hints

from dkd_bench.errors import ConfigError, UnknownNameError

SettingsT = TypeVar("SettingsT")


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSettings:
    """Settings of a plugin with nothing to set."""


def settings_from_words(settings_type: type[SettingsT], words: Mapping[str, str], *, owner: str) -> SettingsT:
    """Return ``settings_type`` with the fields in ``words`` parsed by their declared type.

    Raises:
        UnknownNameError: if a word is no field of ``settings_type``.
        ConfigError: if a value does not parse, or the settings refuse it.
    """
    types = get_type_hints(settings_type)
    values = {}
    for name, word in words.items():
        if name not in types:
            raise UnknownNameError(f"setting of {owner}", name, setting_names(settings_type), known_as="Its settings")
        values[name] = _parse(word, types[name], name=name, owner=owner)
    return settings_type(**values)


def setting_names(settings_type: type[Any]) -> list[str]:
    """Return the names of the fields of a settings dataclass."""
    return [field.name for field in fields(settings_type)]


def settings_as_json(settings: Any) -> dict[str, Any]:
    """Return a settings dataclass as plain values, for keys and manifests."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}


def _parse(word: str, declared: Any, *, name: str, owner: str) -> Any:
    choices: dict[str, bool] = {"true": True, "false": False, "yes": True, "no": False}
    parts = get_args(declared)
    if len(parts) == 2 and type(None) in parts:
        declared = parts[0] if parts[1] is type(None) else parts[1]
    try:
        if declared is bool:
            return choices[word.lower()]
        if declared in (int, float, str):
            value = declared(word)
            if isinstance(value, float) and not isfinite(value):
                raise ValueError
            return value
    except (KeyError, ValueError):
        expected = "a finite float" if declared is float else declared.__name__
        raise ConfigError(f"setting {name!r} of {owner} must be {expected}, got {word!r}") from None
    raise ConfigError(f"setting {name!r} of {owner} cannot be given as a word; set it in Python")
