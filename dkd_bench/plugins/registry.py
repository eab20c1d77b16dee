"""Finds plugins by name: entry points, ``path/to/file.py:Class``, or ``name:argument`` for a family of defences.

Nothing here imports torch, so that ``dkd-bench list`` answers at once.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from dkd_bench.errors import ConfigError, DkdBenchError, FieldName, PluginError, UnknownNameError

Kind = Literal["defenses", "attacks", "datasets", "threat-models"]
"""The kinds of plugin, as ``dkd-bench list`` calls them."""

GROUPS: Mapping[Kind, str] = {
    "defenses": "dkd_bench.defenses",
    "attacks": "dkd_bench.attacks",
    "datasets": "dkd_bench.datasets",
    "threat-models": "dkd_bench.threat_models",
}
_ONE_OF: Mapping[Kind, str] = {
    "defenses": "defence",
    "attacks": "attack",
    "datasets": "dataset",
    "threat-models": "threat model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSummary:
    """What can be said of a plugin without importing it."""

    name: str
    location: str
    """``package.module:Class``."""
    distribution: str
    """The installed distribution and its version."""
    summary: str
    """The first line of the plugin's docstring; empty where its source cannot be read."""


def installed(kind: Kind) -> dict[str, EntryPoint]:
    """Return the entry points of ``kind`` by name, in alphabetical order.

    Raises:
        PluginError: if two distributions register the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=GROUPS[kind]), key=lambda entry: entry.name):
        other = found.get(entry.name)
        if other is not None and other.value != entry.value:
            raise PluginError(
                f"{_ONE_OF[kind]} {entry.name!r} is registered twice, by {_distribution(other)} "
                f"({other.value}) and {_distribution(entry)} ({entry.value}); uninstall one of them"
            )
        found[entry.name] = entry
    return found


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
    plugin = _load_entry(kind, entries[family])
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
    return tuple(name for name, entry in entries.items() if not inspect.isfunction(_load_entry(kind, entry)))


def _load_entry(kind: Kind, entry: EntryPoint) -> Any:
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
    """Return what is known of every installed plugin of ``kind`` without importing any."""
    return [
        PluginSummary(
            name=entry.name,
            location=entry.value,
            distribution=_distribution(entry),
            summary=_first_docstring_line(entry),
        )
        for entry in installed(kind).values()
    ]


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


def _first_docstring_line(entry: EntryPoint) -> str:
    """Read the docstring out of the source, since importing a plugin imports torch."""
    source_file = _source_file(entry.module)
    if source_file is None:
        return ""
    try:
        tree = ast.parse(source_file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == entry.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _source_file(module: str) -> Path | None:
    """Find a module's source package by package: ``find_spec`` of the whole name imports the packages around it."""
    root, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return None
    name = root
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations)
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


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
