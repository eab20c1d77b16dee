"""Lookup of plugins by name: entry points, ``path/to/file.py:Class``, or ``name:argument`` for a family of defences.

Nothing here imports torch, so that ``dkd-bench list`` answers at once.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from dkd_bench.errors import ConfigError, DkdBenchError, FieldName, PluginError, UnknownNameError
from dkd_bench.store.code import find_module

Kind = Literal["defenses", "attacks", "datasets", "threat-models", "commands"]
"""Kind of plugin, as ``dkd-bench list`` calls it."""

GROUPS: Mapping[Kind, str] = {
    "defenses": "dkd_bench.defenses",
    "attacks": "dkd_bench.attacks",
    "datasets": "dkd_bench.datasets",
    "threat-models": "dkd_bench.threat_models",
    "commands": "dkd_bench.commands",
}
_ONE_OF: Mapping[Kind, str] = {
    "defenses": "defence",
    "attacks": "attack",
    "datasets": "dataset",
    "threat-models": "threat model",
    "commands": "command",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSummary:
    """Facts on a plugin that are known without importing it."""

    name: str
    location: str
    """Entry point, ``package.module:Class``."""
    distribution: str
    """Installed distribution with its version."""
    summary: str
    """First line of the plugin's docstring; empty where its source cannot be read."""


def installed(kind: Kind) -> dict[str, EntryPoint]:
    """Return the entry points of ``kind`` by name, in alphabetical order.

    Raises:
        PluginError: if two distributions register the same name.
    """
    return {name: only(kind, entries) for name, entries in registered(kind).items()}


def registered(kind: Kind) -> dict[str, tuple[EntryPoint, ...]]:
    """Return the entry points of ``kind`` under each name, in alphabetical order; the same one seen twice is one."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for entry in sorted(entry_points(group=GROUPS[kind]), key=lambda entry: entry.name):
        found.setdefault(entry.name, {})[entry.value] = entry
    return {name: tuple(entries.values()) for name, entries in found.items()}


def only(kind: Kind, entries: Sequence[EntryPoint]) -> EntryPoint:
    """Return the one entry point that is registered under a name.

    Raises:
        PluginError: if there are several; names two of them.
    """
    first, *others = entries
    if others:
        raise PluginError(
            f"{_ONE_OF[kind]} {first.name!r} is registered twice, by {_distribution(first)} "
            f"({first.value}) and {_distribution(others[0])} ({others[0].value}); uninstall one of them"
        )
    return first


def described(kind: Kind, entry: EntryPoint) -> str:
    """Return a plugin as an error names it: ``attack 'mine' of package 1.0 (package.module:Mine)``."""
    return f"{_ONE_OF[kind]} {entry.name!r} of {_distribution(entry)} ({entry.value})"


def load(kind: Kind, name: str) -> Any:
    """Return the plugin called ``name``, or the one in ``path/to/file.py:Class``.

    An entry point of a defence may be a function instead of a class: it makes the class from what follows the
    first colon in ``name:argument``, and refuses an empty argument if it needs one.

    Raises:
        UnknownNameError: if nothing of that name is installed.
        ConfigError: if there is an argument for a plugin that takes none, or a wrong one.
        PluginError: if the plugin cannot be imported; names it and the cause.
    """
    entries = installed(kind)
    family, colon, argument = name.partition(":") if kind == "defenses" else (name, "", "")
    if ".py:" in name and family not in entries:
        return _load_from_file(kind, name)
    if family not in entries:
        raise UnknownNameError(_ONE_OF[kind], family, entries)
    plugin = load_entry(kind, entries[family])
    if inspect.isfunction(plugin) and kind == "defenses":
        return _of_family(plugin, name, argument)
    if colon:
        raise ConfigError(
            f"defence {family!r} takes no argument, got {argument!r}; write ", FieldName("defenses"), f" {family}"
        )
    return plugin


def without_argument(kind: Kind) -> tuple[str, ...]:
    """Return the names of the installed plugins that are one thing each, not a family that takes an argument.

    Raises:
        PluginError: if a plugin cannot be imported; names it and the cause.
    """
    entries = installed(kind)
    return tuple(name for name, entry in entries.items() if not inspect.isfunction(load_entry(kind, entry)))


def load_entry(kind: Kind, entry: EntryPoint) -> Any:
    """Import what ``entry`` names.

    Raises:
        PluginError: if that fails; names the plugin and the cause.
    """
    try:
        return entry.load()
    except Exception as error:
        raise PluginError(
            f"{_ONE_OF[kind]} {entry.name!r} of {_distribution(entry)} cannot be loaded from {entry.value}: "
            f"{type(error).__name__}: {error}; repair or uninstall that plugin"
        ) from error


def _of_family(family: Callable[[str], Any], name: str, argument: str) -> Any:
    try:
        return family(argument)
    except DkdBenchError:
        raise
    except Exception as error:
        raise PluginError(f"defence {name!r} cannot be loaded: {type(error).__name__}: {error}") from error


def summaries(kind: Kind) -> list[PluginSummary]:
    """Return the summary of every installed plugin of ``kind`` without importing any."""
    return [summary(entry) for entry in installed(kind).values()]


def summary(entry: EntryPoint) -> PluginSummary:
    """Return the summary of a plugin without importing it."""
    return PluginSummary(
        name=entry.name,
        location=entry.value,
        distribution=_distribution(entry),
        summary=_first_docstring_line(entry),
    )


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


def _first_docstring_line(entry: EntryPoint) -> str:
    """Read the docstring out of the source, since importing a plugin imports torch."""
    spec = find_module(entry.module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return ""
    try:
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == entry.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _load_from_file(kind: Kind, reference: str) -> Any:
    file_name, _, attribute = reference.rpartition(":")
    path = Path(file_name)
    if not path.is_file():
        raise ConfigError(f"no file {file_name!r}; expected path/to/file.py:Class for a {_ONE_OF[kind]}")
    module_name = f"dkd_bench_plugin_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None, "a .py file always has a spec"
        assert spec.loader is not None, "a .py file always has a loader"
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise PluginError(
                f"{_ONE_OF[kind]} file {file_name!r} cannot be imported: {type(error).__name__}: {error}; "
                "repair the file and run again"
            ) from error
    if not hasattr(module, attribute):
        known = (name for name, value in vars(module).items() if getattr(value, "__module__", "") == module_name)
        raise UnknownNameError(f"class in {file_name}", attribute, known, known_as="Defined there")
    return getattr(module, attribute)
