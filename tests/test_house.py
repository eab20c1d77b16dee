"""The rules of the house, read from the sources alone: sizes, directions of imports, walls, private names, the top.

What breaks a rule and stays stands in ``EXCEPTIONS`` with its reason; an entry that is no longer needed fails too.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HARNESS, PAPER = "dkd_bench", "dkd_paper"
PLUGINS = ("dkd_defenses", "dkd_baselines", "dkd_bench_example")
PACKAGES = {
    HARNESS: ROOT,
    PAPER: ROOT / "paper",
    "dkd_defenses": ROOT / "defenses",
    "dkd_baselines": ROOT / "baselines",
    "dkd_bench_example": ROOT / "examples/dkd-bench-example",
}

LINES_OF_A_FILE, LINES_OF_A_FUNCTION, PARAMETERS = 400, 50, 6
NAMES_AT_THE_TOP = 26

LAYERS = (
    ("cli",),
    ("check", "plots", "probe", "testing", "verify"),
    ("sweep",),
    ("pipeline",),
    ("doubts",),
    ("executors",),
    ("steps",),
    ("api", "leaderboard"),
    ("attacks", "defense", "separation"),
    ("threats", "training"),
    ("data",),
    ("plugins", "records", "target"),
    ("store",),
    ("budget", "progress"),
    ("errors",),
)
"""Every name at the top of the harness, from the command line down to the ground; imports only go down."""

DOORS = frozenset({"api", "pipeline"})
"""Modules at the top that are there for others than the harness, however many of its modules import them."""

EXCEPTIONS = {
    "dkd_bench/steps/craft.py imports executors": "a worker of an executor prepares the run anew, by the steps",
    "dkd_bench/data/torchvision_sets.py writes": "unpacks a download beside its place and moves it in whole",
    "dkd_bench/testing/_defense.py writes": "saves weights in a folder of its own, which is gone after the check",
    "dkd_baselines/zoo.py writes": "a plugin's download; the door for plugins has nothing that writes",
    "dkd_bench/separation/latents.py: measured_separation takes too many parameters": "four of them have defaults",
    "dkd_bench/training/_fit.py: train_network takes too many parameters": "public: plugins call it by these names",
}

VERIFY_COUNTS_BY_ITSELF = (
    "dkd_bench.steps.cells",
    "dkd_bench.steps.score",
    "dkd_bench.steps.scoring",
    "dkd_bench.records.statistics",
    "dkd_bench.records.worst_outcome",
    "dkd_bench.defense.detection",
    "dkd_bench.budget.check_images",
    "dkd_bench.budget.perturbation_norms",
)
WALLS = {
    "dkd_bench": ("dkd_defenses", "dkd_baselines", "dkd_bench_example", "dkd_paper"),
    "dkd_bench.verify": VERIFY_COUNTS_BY_ITSELF,
    "dkd_bench.steps.score": ("dkd_bench.attacks",),
    "dkd_bench.steps.scoring": ("dkd_bench.attacks",),
    "dkd_bench.records": ("dkd_bench.cli", "dkd_bench.leaderboard", "dkd_bench.plots", "dkd_paper"),
}
"""By module or package, what it imports nowhere: neither in a function nor for types alone."""

WRITING_METHODS = frozenset(
    {"hardlink_to", "mkdir", "rename", "rmdir", "symlink_to", "touch", "unlink", "write_bytes", "write_text"}
)
WRITING_FUNCTIONS = frozenset({"NamedTemporaryFile", "TemporaryDirectory", "mkdtemp", "mkstemp", "save_file"})
WRITING_LIBRARIES = {
    "os": {"link", "makedirs", "mkdir", "remove", "rename", "replace", "rmdir", "symlink", "unlink"},
    "shutil": {"copy", "copy2", "copyfile", "copytree", "move", "rmtree"},
    "np": {"save", "savetxt", "savez", "savez_compressed"},
    "torch": {"save"},
}


@dataclass(frozen=True, slots=True)
class Imported:
    """A name that a module imports."""

    name: str
    """Dotted: of the module, or of what is taken from it."""
    loads: bool
    """Whether importing the module imports this: not so in a function, or for types alone."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the house and what it says."""

    name: str
    path: str
    """Relative to the folder that holds its package."""
    is_package: bool
    lines: int
    tree: ast.Module
    imports: tuple[Imported, ...]

    @property
    def room(self) -> str:
        """The name at the top of the harness that it belongs to; empty for ``dkd_bench`` itself."""
        return [*self.name.split("."), ""][1]


@cache
def modules() -> dict[str, Module]:
    """Return every module of the house by name."""
    files = ((folder, file) for package, folder in PACKAGES.items() for file in (folder / package).rglob("*.py"))
    return {module.name: module for module in (read(folder, file) for folder, file in sorted(files))}


def read(folder: Path, file: Path) -> Module:
    """Return the module in ``file``; ``folder`` holds its package."""
    text, is_package = file.read_text(encoding="utf-8"), file.name == "__init__.py"
    relative = file.relative_to(folder)
    name = ".".join((relative.parent if is_package else relative.with_suffix("")).parts)
    tree = ast.parse(text)
    package = name if is_package else name.rpartition(".")[0]
    imports = tuple(imported(tree, package, loads=True))
    return Module(name, relative.as_posix(), is_package, len(text.splitlines()), tree, imports)


def imported(node: ast.AST, package: str, *, loads: bool) -> Iterator[Imported]:
    """Yield what the statements of ``node`` import, however deep they stand."""
    if isinstance(node, ast.Import):
        yield from (Imported(alias.name, loads) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        around = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
        base = ".".join([*around, *([node.module] if node.module else [])])
        yield from (Imported(f"{base}.{alias.name}", loads) for alias in node.names)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from imported(child, package, loads=False)
        for child in node.orelse:
            yield from imported(child, package, loads=loads)
    else:
        loads = loads and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for child in ast.iter_child_nodes(node):
            yield from imported(child, package, loads=loads)


def of(*packages: str) -> Iterator[Module]:
    """Yield the modules of some packages, or the modules of these names."""
    yield from (module for module in modules().values() if any(within(module.name, name) for name in packages))


def within(name: str, package: str) -> bool:
    """Return whether a dotted name is ``package`` or something in it."""
    return name == package or name.startswith(f"{package}.")


def names_at_the_top() -> set[str]:
    """Return the modules and packages that stand directly in the harness."""
    return {module.room for module in of(HARNESS)} - {""}


def calls(module: Module) -> Iterator[ast.Call]:
    """Yield every call in a module."""
    yield from (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))


# The rules: each yields what breaks it.


def too_large() -> Iterator[str]:
    """Files, functions and signatures; of a function every line counts but its decorators."""
    for module in of(HARNESS, PAPER, "dkd_defenses", "dkd_baselines"):
        if module.lines > LINES_OF_A_FILE:
            yield f"{module.path} has too many lines"
        for node in ast.walk(module.tree):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if (node.end_lineno or 0) - node.lineno + 1 > LINES_OF_A_FUNCTION:
                yield f"{module.path}: {node.name} has too many lines"
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if len([each for each in arguments if each.arg not in {"self", "cls"}]) > PARAMETERS:
                yield f"{module.path}: {node.name} takes too many parameters"


def upwards() -> Iterator[str]:
    """Imports between rooms that do not go down."""
    depth = {room: number for number, layer in enumerate(LAYERS) for room in layer}
    for module in of(HARNESS):
        for each in module.imports:
            room = [*each.name.split("."), ""][1]
            elsewhere = within(each.name, HARNESS) and room in depth and room != module.room
            if elsewhere and each.loads and depth[room] <= depth.get(module.room, -1):
                yield f"{module.path} imports {room}"


def through_walls() -> Iterator[str]:
    """Imports that the walls forbid."""
    for place, forbidden in WALLS.items():
        for module in of(place):
            for each in module.imports:
                if any(within(each.name, name) for name in forbidden):
                    yield f"{module.path} imports {each.name}"
    for module in of(*PLUGINS):
        for each in module.imports:
            if within(each.name, HARNESS) and not within(each.name, "dkd_bench.api"):
                yield f"{module.path} imports {each.name}"


def plan_with_torch() -> Iterator[str]:
    """What loads torch of all that is loaded with the plan."""
    loaded, todo = set(), ["dkd_bench.steps.plan"]
    while todo:
        parts = todo.pop().split(".")
        for name in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
            module = modules().get(name)
            if module is None or name in loaded:
                continue
            loaded.add(name)
            todo += [each.name for each in module.imports if each.loads]
            if any(within(each.name, "torch") for each in module.imports if each.loads):
                yield f"{module.path} loads torch into the plan"


def private() -> Iterator[str]:
    """Imports of what begins with an underscore, from outside the package that it is in."""
    for module in modules().values():
        for each in module.imports:
            parts = each.name.split(".")
            for number, part in enumerate(parts):
                around = ".".join(parts[:number])
                hidden = part.startswith("_") and not part.startswith("__")
                if hidden and parts[0] in PACKAGES and not within(module.name, around):
                    yield f"{module.path} imports {each.name}"


def printing() -> Iterator[str]:
    """Modules that print and are no command line."""
    for module in modules().values():
        if within(module.name, "dkd_bench.cli") or module.name == "dkd_paper.cli":
            continue
        spoken = (ast.unparse(call.func) for call in calls(module))
        if any(called in {"print", "typer.echo", "sys.stdout.write", "sys.stderr.write"} for called in spoken):
            yield f"{module.path} prints"


def writing() -> Iterator[str]:
    """Modules outside the store that write, link, move or remove files or folders."""
    for module in modules().values():
        if not within(module.name, "dkd_bench.store") and any(writes(call) for call in calls(module)):
            yield f"{module.path} writes"


def writes(call: ast.Call) -> bool:
    """Return whether a call changes what is on disk; ``Path.replace`` is told from ``str.replace`` by its one word."""
    called, mode = call.func, call.args[1:2]
    if isinstance(called, ast.Attribute):
        library = called.value.id if isinstance(called.value, ast.Name) else ""
        if library in WRITING_LIBRARIES:
            return called.attr in WRITING_LIBRARIES[library]
        if called.attr in WRITING_METHODS | WRITING_FUNCTIONS:
            return True
        if called.attr == "replace":
            return len(call.args) == 1 and not call.keywords
        name, mode = called.attr, call.args[:1]
    else:
        name = ast.unparse(called)
    modes = [*mode, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    opened = name == "open" and any(set(str(getattr(each, "value", ""))) & set("wax+") for each in modes)
    return opened or name in WRITING_FUNCTIONS


def lonely() -> Iterator[str]:
    """Modules at the top that fewer than two others import: they belong to the one that does."""
    for module in of(HARNESS):
        if module.name.count(".") != 1 or module.is_package or module.room in DOORS:
            continue
        importers = [
            other for other in modules().values() if any(within(each.name, module.name) for each in other.imports)
        ]
        if len(importers) < 2:
            yield f"{module.path} has a single importer"


@cache
def found_by(rule: Callable[[], Iterator[str]]) -> frozenset[str]:
    """Return what breaks a rule, exceptions included."""
    return frozenset(rule())


RULES = (too_large, upwards, through_walls, plan_with_torch, private, printing, writing, lonely)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: Callable[[], Iterator[str]]) -> None:
    assert sorted(found_by(rule) - EXCEPTIONS.keys()) == []


def test_every_exception_is_still_needed() -> None:
    assert sorted(EXCEPTIONS.keys() - frozenset().union(*map(found_by, RULES))) == []


def test_the_names_at_the_top_are_those_of_the_layers() -> None:
    assert sorted(chain.from_iterable(LAYERS)) == sorted(names_at_the_top())
    assert len(names_at_the_top()) <= NAMES_AT_THE_TOP


# The rules see what they are for.


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("path.write_text('a')", True),
        ("partial.replace(path)", True),
        ("name.replace('a', 'b')", False),
        ("parameter.replace(kind=1)", False),
        ("open(path, 'wb')", True),
        ("path.open('a')", True),
        ("path.open(mode='r+')", True),
        ("open('waxen')", False),
        ("path.open()", False),
        ("open(path, 'rb')", False),
        ("os.replace(a, b)", True),
        ("os.getpid()", False),
        ("shutil.rmtree(path)", True),
        ("TemporaryDirectory()", True),
        ("tempfile.mkdtemp()", True),
    ],
)
def test_what_counts_as_writing(source: str, expected: bool) -> None:
    expression = ast.parse(source, mode="eval").body
    assert isinstance(expression, ast.Call)
    assert writes(expression) is expected


def test_imports_are_seen_wherever_they_stand() -> None:
    source = """
import torch.nn
from . import _a
from ..b import c
try:
    import maybe
finally:
    pass
if TYPE_CHECKING:
    from d import e
else:
    import f
def function():
    from g import h
"""
    found = list(imported(ast.parse(source), "dkd_bench.room", loads=True))
    loaded = ["torch.nn", "dkd_bench.room._a", "dkd_bench.b.c", "maybe", "f"]
    assert [each.name for each in found if each.loads] == loaded
    assert [each.name for each in found if not each.loads] == ["d.e", "g.h"]
