"""Meaning of a Python source: its syntax tree without what changes nothing that is computed."""

from __future__ import annotations

import ast
import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import final

_UNREAD = frozenset({"annotation", "returns", "ctx", "kind", "type_comment"})
"""Fields of syntax nodes that say nothing about what is computed."""
_FIELD_WORDS = ("ClassVar", "InitVar", "KW_ONLY")
"""Words in the annotation of a dataclass's field that make it another kind of field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """Name that an import line brings in, wherever in the source it stands."""

    module: str
    """Module as written, without leading dots; empty for ``from . import name``."""
    level: int
    """Number of leading dots; 0 for an absolute import."""
    name: str
    """Name that is taken from the module; ``*`` for all of it, empty for ``import module``."""
    alias: str
    """Name that it has in the source."""
    used: bool
    """Whether anything in the source mentions it, annotations excepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """Meaning of a source, as a digest and its imports."""

    digest: str
    """SHA-256 of its syntax tree without docstrings, comments, annotations, ``__all__`` and import lines."""
    imports: tuple[Import, ...]
    """Imports in the order of the source, without what only a type checker reads."""


@cache
def meaning_of(source: bytes) -> Meaning:
    """Return the meaning of a Python source; one that cannot be parsed, such as a compiled module, means its bytes."""
    reader = _Reader()
    try:
        with _quietly():
            reader.read_all(ast.parse(source).body)
    except (SyntaxError, ValueError, RecursionError):
        return Meaning(digest=sha256(source).hexdigest(), imports=())
    digest = sha256("\n".join(reader.parts).encode("utf-8", "surrogatepass")).hexdigest()
    return Meaning(digest=digest, imports=tuple(reader.imports()))


@contextmanager
def _quietly() -> Iterator[None]:
    """Ignore warnings of a source that was compiled before, and do not collect garbage among its many small nodes.

    Each collection goes through all that torch has loaded: with them, reading a module takes three times as long.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if collecting:
            gc.enable()


@final
class _Reader:
    """Writes a syntax tree down as a list of words, and collects its imports."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._imports: list[tuple[str, int, str, str]] = []
        self._names: set[str] = set()
        self._in_class = False

    def imports(self) -> list[Import]:
        """Return the imports in all that was read."""
        return [
            Import(
                module=module,
                level=level,
                name=name,
                alias=alias,
                used=alias in self._names or alias == "*",
            )
            for module, level, name, alias in self._imports
        ]

    def read_all(self, values: Sequence[object]) -> None:
        """Read the elements of a list: statements, arguments, names."""
        self.parts.append("[")
        for value in values:
            self._read(value)
        self.parts.append("]")

    def _read(self, value: object) -> None:
        if isinstance(value, list):
            self.read_all(value)
        elif not isinstance(value, ast.AST):
            self.parts.append(repr(value))
        elif not isinstance(value, ast.stmt):
            self._node(value)
        else:
            self._statement(value)

    def _statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Import() | ast.ImportFrom():
                self._import(statement)
            case ast.Pass() | ast.Expr(value=ast.Constant(value=str())) | ast.Assign(targets=[ast.Name(id="__all__")]):
                pass
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                for each in statement.orelse:
                    self._statement(each)
            case ast.AnnAssign():
                self._annotated_assignment(statement)
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                around, self._in_class = self._in_class, isinstance(statement, ast.ClassDef)
                self._node(statement)
                self._in_class = around
            case _:
                self._node(statement)

    def _node(self, node: ast.AST) -> None:
        self.parts.append(type(node).__name__)
        if isinstance(node, ast.Name):
            self.parts.append(node.id)
            self._names.add(node.id)
            return
        for field in node._fields:
            if field not in _UNREAD:
                self._read(getattr(node, field, None))

    def _annotated_assignment(self, node: ast.AnnAssign) -> None:
        """Read an assignment as if it had no annotation; in a class, what is annotated is a field."""
        if self._in_class:
            annotation = ast.unparse(node.annotation)
            self.parts += ["Field", *(word for word in _FIELD_WORDS if word in annotation)]
            self._read(node.target)
            self._read(node.value)
        elif node.value is not None:
            self.parts.append(ast.Assign.__name__)
            self.read_all([node.target])
            self._read(node.value)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            self._imports += [(each.name, 0, "", each.asname or each.name.partition(".")[0]) for each in node.names]
        elif node.module != "__future__":
            self._imports += [
                (node.module or "", node.level, each.name, each.asname or each.name) for each in node.names
            ]
