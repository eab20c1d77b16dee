"""Digests of code by meaning: a changed helper is other code, a changed comment is not.

What a class computes is decided by the modules that define it and its bases, and by every module of its own that
these import, transitively, wherever in the module the import stands. A module's own are

- the modules of its top-level package, and what lies in the folder that holds it: beside ``path/to/file.py`` the
  modules and packages there, beside ``package/module.py`` what lies where the package does. What pip has put among
  the libraries lies beside nothing, and is not followed unless its distribution registers a plugin of the harness;
- for the harness, its own room (``dkd_bench.attacks``) and the rooms that compute; but not records, files, errors,
  words and presentation, on which no result depends. A plugin's digest follows nothing into the harness, except
  through the harness's classes that it derives from.

Of a module that is not followed, only the names count that are taken from it and used. The packages around a module
count with what stands in their ``__init__.py``, which is followed only where it is imported itself. Modules are known
by what they say, not by their names or places. What is imported dynamically (``importlib``, ``exec``) is not seen.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from dkd_bench.store.meaning import Import, Meaning, meaning_of

_STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
_HARNESS = __name__.partition(".")[0]
_COMPUTING_ROOMS = frozenset({"attacks", "budget", "data", "defense", "target", "threats", "training"})
_LIBRARIES = sys.stdlib_module_names | {"torch"}
"""Top-level packages that are known by their versions alone."""

_of_classes: WeakKeyDictionary[type, str] = WeakKeyDictionary()
_of_modules: dict[str, tuple[Any, str]] = {}
"""Specification and digest of each module, by name; an import or reload makes another specification."""


def code_digest(cls: type) -> str:
    """Return a digest of the code that defines ``cls`` and its bases, and of all that this code imports of its own.

    A plugin whose code changed is another plugin: its cached weights and crafts must not be found again. The digest
    is of the files as they were when it was first asked for, since a loaded class does not change with its file.
    """
    if cls not in _of_classes:
        bases = [base for base in cls.__mro__ if _root(base.__module__) not in _LIBRARIES]
        _of_classes[cls] = _digest(*(f"{base.__qualname__} {_module_digest(base.__module__)}" for base in bases))
    return _of_classes[cls]


@cache
def package_digest() -> str:
    """Return a digest of the harness's code that a run goes through: a record must not outlive the code that made it.

    These are the modules that the pipeline imports; plugins, the harness's own included, have digests of their own.
    """
    return _digest(*_closure(f"{_HARNESS}.pipeline", whole=True).values())


def find_module(name: str, *, folder: Path | None = None) -> ModuleSpec | None:
    """Return the specification of a module without importing it or the packages around it, or ``None``.

    Args:
        name: ``package.module``.
        folder: where to look after ``sys.path``.
    """
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(loaded, ModuleSpec):
        return loaded
    parent, _, last = name.rpartition(".")
    if parent:
        around = find_module(parent, folder=folder)
        return _inside(around, name, last) if around is not None else None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    return spec or (PathFinder.find_spec(name, [str(folder)]) if folder else None)


def _inside(around: ModuleSpec, name: str, last: str) -> ModuleSpec | None:
    """Return a module of a package; importlib cannot tell of a folder inside a package that is not imported."""
    if around.submodule_search_locations is None:
        return None
    locations = list(around.submodule_search_locations)
    try:
        return PathFinder.find_spec(name, locations)
    except KeyError:
        folders = [Path(each) / last for each in locations]
        found = ModuleSpec(name, None, is_package=True)
        found.submodule_search_locations = [str(folder) for folder in folders if folder.is_dir()]
        return found


@dataclass(frozen=True, slots=True)
class _Place:
    """Module with its file."""

    name: str
    file: Path
    is_package: bool

    @property
    def package(self) -> str:
        """Package to which relative imports of the module are relative; empty outside packages."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    def meaning(self) -> Meaning:
        """Return the meaning of the file as it is now."""
        return meaning_of(self.file.read_bytes())


@dataclass(frozen=True, slots=True)
class _Home:
    """Set of modules that count as a module's own."""

    root: str
    room: str
    folder: Path | None
    """Folder of the module's top-level package or, outside packages, of its file; ``None`` among the libraries."""
    follows: bool
    whole: bool
    """Whether every room of the harness is its own, for a module of the harness."""

    @classmethod
    def of(cls, place: _Place, *, whole: bool) -> _Home:
        """Return the home of the module at ``place``."""
        root, installed = _root(place.name), _installed(place.file)
        return cls(
            root=root,
            room=_room(place.name),
            folder=None if installed else place.file.parents[place.name.count(".") + place.is_package],
            follows=root == _HARNESS or not installed or root in _plugin_packages(),
            whole=whole,
        )

    def owns(self, name: str) -> bool:
        """Return whether the module called ``name`` is one of the home's own."""
        root = _root(name)
        if not self.follows or root in _LIBRARIES:
            return False
        if _HARNESS in {root, self.root}:
            return root == self.root and (self.whole or _room(name) in {self.room, *_COMPUTING_ROOMS})
        return root == self.root or self._holds(root)

    def _holds(self, root: str) -> bool:
        spec = find_module(root, folder=self.folder) if self.folder else None
        if spec is None or self.folder is None:
            return False
        places = [*(spec.submodule_search_locations or ()), *((spec.origin,) if spec.has_location else ())]
        files = [_real(place) for place in places if place]
        return any(file.is_relative_to(self.folder) and not _installed(file) for file in files)

    def imported(self, each: Import, place: _Place) -> tuple[str, str, _Place | None]:
        """Return the module that an import line at ``place`` names, what it takes of it, and where, if it is own."""
        base = each.module
        if each.level:
            around = place.package.split(".")
            base = ".".join([*around[: len(around) + 1 - each.level], *([each.module] if each.module else [])])
        if self.owns(inner := f"{base}.{each.name}") and each.name not in {"", "*"}:
            submodule = _located(inner, self.folder)
            if submodule is not None:
                return inner, "", submodule
        return base, each.name, _located(base, self.folder) if self.owns(base) else None


def _module_digest(name: str) -> str:
    """Return the digest of a module with what it imports of its own; its name where it has no file."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    known = _of_modules.get(name)
    if known is None or known[0] is not spec:
        known = _of_modules[name] = spec, _digest(*(_closure(name).values() or [name]))
    return known[1]


def _closure(name: str, *, whole: bool = False) -> dict[str, str]:
    """Return the digests of a module, which comes first, and of all its own that it imports, in order of digest."""
    start = _located(name)
    if start is None:
        return {}
    home = _Home.of(start, whole=whole)
    found: dict[str, str] = {}
    around: dict[str, str] = {}
    todo = [start]
    while todo:
        place = todo.pop()
        if place.name in found:
            continue
        meaning = place.meaning()
        names = set()
        for each in meaning.imports:
            own = home.imported(each, place)[2]
            if own is not None:
                todo.append(own)
            if own is not None or each.used:
                names.add(f"{each.alias} = {_origin(each, place, home)}")
        found[place.name] = _digest(meaning.digest, *sorted(names))
        around |= {each.name: each.meaning().digest for each in _packages_around(place, home)}
    first = found.pop(start.name)
    return {start.name: first, **dict(sorted({**around, **found}.items(), key=lambda item: item[1]))}


def _origin(each: Import, place: _Place, home: _Home) -> str:
    """Return where an imported name comes from at last, through the modules of one's own that hand it on."""
    seen = set()
    while True:
        module, taken, own = home.imported(each, place)
        if own is None:
            return f"{taken} of {_HARNESS if _root(module) == _HARNESS else module}"
        meaning = own.meaning()
        handed_on = next((other for other in meaning.imports if other.alias == taken), None)
        if handed_on is None or own.name in seen:
            return f"{taken} of {meaning.digest}"
        seen.add(own.name)
        each, place = handed_on, own


def _packages_around(place: _Place, home: _Home) -> Iterator[_Place]:
    parts = place.name.split(".")
    for length in range(1, len(parts)):
        name = ".".join(parts[:length])
        package = _located(name, home.folder) if home.owns(name) else None
        if package is not None:
            yield package


def _located(name: str, folder: Path | None = None) -> _Place | None:
    """Return the place of a module; ``None`` if it cannot be found or has no file."""
    spec = find_module(name, folder=folder)
    origin = getattr(sys.modules.get(name), "__file__", None) if spec is None else spec.has_location and spec.origin
    if not origin or not Path(origin).is_file():
        return None
    is_package = spec is not None and spec.submodule_search_locations is not None
    return _Place(name, _real(origin), is_package)


@cache
def _real(path: str) -> Path:
    """Return a path without links."""
    return Path(path).resolve()


def _root(name: str) -> str:
    return name.partition(".")[0]


def _room(name: str) -> str:
    return [*name.split("."), ""][1]


def _installed(file: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts) or file.is_relative_to(_STANDARD)


@cache
def _plugin_packages() -> frozenset[str]:
    """Return the top-level packages that register plugins of the harness."""
    groups = [group for group in entry_points().groups if group.startswith(f"{_HARNESS}.")]
    return frozenset(_root(entry.module) for group in groups for entry in entry_points(group=group))


def _digest(*parts: str) -> str:
    return sha256("\n".join(parts).encode()).hexdigest()
