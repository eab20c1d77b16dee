"""Code by meaning: what changes what is computed changes the digest of a class, and nothing else does."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from torch import nn

from dkd_baselines.user_models import UserSettings, torch_model
from dkd_bench.api import Attack, Defense, ImageSpec, digest_module
from dkd_bench.attacks.jsma import JSMA
from dkd_bench.plugins import registry
from dkd_bench.store import code
from dkd_bench.store.code import code_digest, find_module
from dkd_bench.store.digests import digest_content
from dkd_bench.store.meaning import meaning_of

SOURCE = '''
"""A module."""
from typing import TYPE_CHECKING, ClassVar

import math
from dataclasses import dataclass, field

LIMIT = 3

@dataclass
class Settings:
    """What can be set."""

    steps: int = 10
    """How many."""
    names: list[str] = field(default_factory=list)
    kind: ClassVar[str] = "fixed"
    width: float

def scaled(x: float, by: float = 2.0) -> float:
    """Return it scaled."""
    y: float = x * by  # as in the paper
    return math.floor(y)
'''

SAME = {
    "comment": ("LIMIT = 3", "LIMIT = 3  # three\n# not four"),
    "blank lines": ("LIMIT = 3", "\n\nLIMIT = 3\n\n"),
    "brackets": ("x * by", "(x\n    * by)"),
    "docstring of the module": ('"""A module."""', '"""Another module."""'),
    "no docstring of a function": ('    """Return it scaled."""\n', ""),
    "docstring of a field": ("How many.", "The number of steps."),
    "annotation of a parameter": ("x: float,", "x,"),
    "annotation of what is returned": (") -> float:", ") -> int:"),
    "annotation of a variable": ("y: float = ", "y = "),
    "annotation of a field": ("steps: int = 10", "steps: float = 10"),
    "order of imports": (
        "import math\nfrom dataclasses import dataclass, field",
        "from dataclasses import field, dataclass\nimport math",
    ),
    "imports apart": ("import dataclass, field", "import field\nfrom dataclasses import dataclass"),
    "an import for annotations": ("import math", "import math\nfrom numpy import float32\nz: float32"),
    "an import for a type checker": ("import math", "import math\nif TYPE_CHECKING:\n    from numpy import ndarray"),
    "the module's list of names": ("LIMIT = 3", "LIMIT = 3\n__all__ = ['LIMIT']"),
    "quotes": ('"fixed"', "'fixed'"),
    "pass": ("    return math.floor(y)", "    pass\n    return math.floor(y)"),
}

OTHER = {
    "constant": ("LIMIT = 3", "LIMIT = 4"),
    "type of a constant": ("LIMIT = 3", "LIMIT = 3.0"),
    "default of a parameter": ("by: float = 2.0", "by: float = 3.0"),
    "default of a field": ("steps: int = 10", "steps: int = 11"),
    "name of a field without default": ("width: float", "height: float"),
    "kind of a field": ('kind: ClassVar[str] = "fixed"', 'kind: str = "fixed"'),
    "a field no longer": ("steps: int = 10", "steps = 10"),
    "operator": ("x * by", "x + by"),
    "decorator": ("@dataclass\n", "@dataclass(frozen=True)\n"),
    "no decorator": ("@dataclass\n", ""),
    "name of a function": ("def scaled", "def rescaled"),
    "order of statements": ("LIMIT = 3\n", "LIMIT = 3\nLIMIT += 1\n"),
    "sign": ("return math", "return -math"),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_means_nothing(change: tuple[str, str]) -> None:
    assert change[0] in SOURCE
    changed = SOURCE.replace(*change, 1)
    assert meaning_of(changed.encode()).digest == meaning_of(SOURCE.encode()).digest


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_what_means_something(change: tuple[str, str]) -> None:
    assert change[0] in SOURCE
    changed = SOURCE.replace(*change, 1)
    assert meaning_of(changed.encode()).digest != meaning_of(SOURCE.encode()).digest


def test_a_source_that_cannot_be_read_means_its_bytes() -> None:
    assert meaning_of(b"\x7fELF\x00").digest != meaning_of(b"\x7fELF\x01").digest
    assert meaning_of(b"def").digest != meaning_of(b"def # a").digest
    deep = " + ".join(["x"] * 5000).encode()
    assert meaning_of(deep).digest != meaning_of(deep + b" + x").digest


# What a module imports of its own.

Load = Callable[..., type]

IN_A_PACKAGE = {
    "pack/__init__.py": "",
    "pack/plugin.py": "from pack.helper import scaled\n\nclass Plugin:\n    f = scaled\n",
    "pack/helper.py": "from . import constants\n\ndef scaled(x):\n    return x * constants.FACTOR\n",
    "pack/constants.py": "FACTOR = 2\n",
    "pack/unrelated.py": "FACTOR = 2\n",
}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Return a function that writes files and returns a class from them as a new process would import it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    names: set[str] = set()

    def forget() -> None:
        importlib.invalidate_caches()
        for name in [*sys.modules]:
            if name.startswith("dkd_bench_plugin_") or name.partition(".")[0] in names:
                del sys.modules[name]

    def written(files: Mapping[str, str], where: str = "pack.plugin:Plugin") -> type:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
            names.update(part.removesuffix(".py") for part in Path(name).parts)
        forget()
        if ".py:" in where:
            found = registry.load("defenses", str(tmp_path / where))
        else:
            module, _, name = where.partition(":")
            found = getattr(importlib.import_module(module), name)
        assert isinstance(found, type)
        return found

    yield written
    forget()


def test_a_package_s_helpers(load: Load) -> None:
    plugin = code_digest(load(IN_A_PACKAGE))
    assert code_digest(load(IN_A_PACKAGE)) == plugin
    helper = IN_A_PACKAGE["pack/helper.py"]
    assert code_digest(load({"pack/helper.py": helper.replace("x *", "x +")})) != plugin
    assert code_digest(load({"pack/helper.py": helper + "# a comment\n"})) == plugin
    assert code_digest(load({"pack/constants.py": "FACTOR = 3\n"})) != plugin, "two levels deep"
    assert code_digest(load({"pack/constants.py": "FACTOR: int = 2\n"})) == plugin
    assert code_digest(load({"pack/unrelated.py": "FACTOR = 3\n"})) == plugin
    assert code_digest(load({"pack/__init__.py": "import torch\ntorch.set_flush_denormal(False)\n"})) != plugin
    assert (
        code_digest(load({"pack/__init__.py": "from pack.unrelated import FACTOR\n\n__all__ = ['FACTOR']\n"})) == plugin
    )


@pytest.mark.parametrize(
    "line",
    [
        "from .helper import scaled",
        "from . import helper",
        "import pack.helper",
        "import pack.helper as h",
        "from pack import helper as h",
        "from pack.helper import *",
        "class Late:\n    def f(self):\n        from pack.helper import scaled",
        "try:\n    from pack.helper import scaled\nexcept ImportError:\n    scaled = None",
    ],
)
def test_every_way_to_import_a_helper(load: Load, line: str) -> None:
    plugin = code_digest(load({**IN_A_PACKAGE, "pack/plugin.py": f"{line}\n\nclass Plugin:\n    pass\n"}))
    assert code_digest(load({"pack/helper.py": "def scaled(x):\n    return 0\n"})) != plugin


def test_relative_imports_from_a_package_inside(load: Load) -> None:
    files = {
        "pack/__init__.py": "",
        "pack/nets/__init__.py": "from .inner import Plugin\n",
        "pack/nets/inner.py": "from ..common.layers import f\n\nclass Plugin:\n    pass\n",
        "pack/common/layers.py": "def f():\n    return 1\n",
    }
    plugin = code_digest(load(files, "pack.nets:Plugin"))
    changed = load({"pack/common/layers.py": "def f():\n    return 2\n"}, "pack.nets:Plugin")
    assert code_digest(changed) != plugin


def test_helpers_of_a_folder_that_is_not_imported_yet(load: Load) -> None:
    files = {
        "pack/__init__.py": "",
        "pack/plugin.py": "class Plugin:\n    def f(self):\n        from pack.inner.more import late\n",
        "pack/inner/more/late.py": "def g():\n    return 1\n",
    }
    plugin = code_digest(load(files))
    assert "pack.inner" not in sys.modules
    assert code_digest(load({"pack/inner/more/late.py": "def g():\n    return 2\n"})) != plugin


def test_imports_in_a_circle(load: Load) -> None:
    files = {
        "pack/__init__.py": "",
        "pack/plugin.py": "from pack import a\n\nclass Plugin:\n    pass\n",
        "pack/a.py": "from pack import b\n",
        "pack/b.py": "from pack import a, plugin\n\nLIMIT = 1\n",
    }
    plugin = code_digest(load(files))
    assert code_digest(load({"pack/b.py": files["pack/b.py"].replace("1", "2")})) != plugin


def test_another_function_under_the_same_name(load: Load) -> None:
    plugin = "from pack.{} import f as g\nfrom pack.{} import f as h\n\nclass Plugin:\n    lower, upper = g, h\n"
    files = {
        "pack/__init__.py": "",
        "pack/plugin.py": plugin.format("a", "b"),
        "pack/a.py": "def f():\n    return 1\n",
        "pack/b.py": "def f():\n    return 2\n",
    }
    before = code_digest(load(files))
    assert code_digest(load({"pack/plugin.py": plugin.format("b", "a")})) != before
    handed_on = plugin.format("a", "compat")
    floor = code_digest(load({"pack/plugin.py": handed_on, "pack/compat.py": "from math import floor as f\n"}))
    assert code_digest(load({"pack/compat.py": "from math import ceil as f\n"})) != floor
    library = "from math import {} as f\n\nclass Plugin:\n    def f(self, x):\n        return f(x)\n"
    floor = code_digest(load({"pack/plugin.py": library.format("floor")}))
    assert code_digest(load({"pack/plugin.py": library.format("ceil")})) != floor
    assert code_digest(load({"pack/plugin.py": "from os import path\n" + library.format("floor")})) == floor


def test_helpers_beside_a_path(load: Load, tmp_path: Path) -> None:
    plugin = (
        "import helper\nfrom tools.inner import g\n\nclass Plugin:\n    def f(self):\n        return helper.f() + g()\n"
    )
    files = {
        "plugin.py": plugin,
        "helper.py": "def f():\n    return 1\n",
        "tools/__init__.py": "",
        "tools/inner.py": "def g():\n    return 1\n",
        "unrelated.py": "LIMIT = 1\n",
    }
    before = code_digest(load(files, "plugin.py:Plugin"))
    assert code_digest(load({"plugin.py": f'"""A plugin."""\n{plugin}'}, "plugin.py:Plugin")) == before
    assert code_digest(load({"unrelated.py": "LIMIT = 2\n"}, "plugin.py:Plugin")) == before
    assert code_digest(load({"helper.py": "def f():\n    return 2\n"}, "plugin.py:Plugin")) != before
    assert code_digest(load(files, "plugin.py:Plugin")) == before
    assert code_digest(load({"tools/inner.py": "def g():\n    return 2\n"}, "plugin.py:Plugin")) != before
    moved = {f"elsewhere/{name}": text for name, text in files.items()}
    sys.path.insert(0, str(tmp_path / "elsewhere"))
    assert code_digest(load(moved, "elsewhere/plugin.py:Plugin")) == before, "the same code at another place"


FACTORY = """
from torch import nn
from {} import classes

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes()))
"""


@pytest.mark.parametrize("helper", ["helper", "tools.helper"])
def test_helpers_of_a_factory(load: Load, helper: str) -> None:
    file = f"{helper.replace('.', '/')}.py"
    files = {
        "nets.py": "import functools\nfrom made import make\n",
        "made.py": FACTORY.format(helper),
        file: "def classes():\n    return 10\n",
        "unrelated.py": "",
    }

    def target() -> nn.Module:
        defense = torch_model("nets:make")(ImageSpec(channels=1, height=8, width=8, n_classes=10), UserSettings())
        for parameter in defense.parameters():
            nn.init.zeros_(parameter)
        return defense.members[0]

    load(files, "pathlib:Path")
    before = target()
    digest, content = digest_module(before), digest_content(before)
    for name, text, same in (
        ("unrelated.py", "LIMIT = 1\n", True),
        ("made.py", files["made.py"] + "# a comment\n", True),
        (file, "def classes():\n    return 5 + 5\n", False),
        ("nets.py", files["nets.py"] + "LIMIT = 1\n", False),
    ):
        load({**files, name: text}, "pathlib:Path")
        assert (digest_module(target()) == digest) == same, name
        assert digest_content(target()) == content, "the seeds of crafts are of no code"


def test_a_base_of_the_same_name_in_another_module(load: Load) -> None:
    files = {
        "plugin.py": "import base\n\nclass Plugin(base.Plugin):\n    limit = 1\n",
        "base.py": "class Plugin:\n    pass\n",
    }
    before = code_digest(load(files, "plugin:Plugin"))
    assert code_digest(load({"plugin.py": files["plugin.py"].replace("1", "2")}, "plugin:Plugin")) != before
    assert code_digest(load({**files, "base.py": "class Plugin:\n    limit = 2\n"}, "plugin:Plugin")) != before


def test_a_loaded_class_keeps_the_code_that_it_was_loaded_with(load: Load, tmp_path: Path) -> None:
    old = load(IN_A_PACKAGE)
    before = code_digest(old)
    (tmp_path / "pack/helper.py").write_text("def scaled(x):\n    return 0\n", encoding="utf-8")
    assert code_digest(old) == before
    assert code_digest(load({})) != before, "loaded again, it is other code"
    assert code_digest(old) == before
    assert code_digest(load(IN_A_PACKAGE)) == before


def test_what_is_installed_is_followed_in_packages_of_plugins_alone(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {f"site-packages/{name}": text for name, text in IN_A_PACKAGE.items()}
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    changed = {"site-packages/pack/helper.py": "def scaled(x):\n    return 0\n"}
    library = code_digest(load(installed))
    assert code_digest(load(changed)) == library, "known by its version"
    monkeypatch.setattr(code, "_plugin_packages", lambda: frozenset({"pack"}))
    plugin = code_digest(load(installed))
    assert code_digest(load(changed)) != plugin


def test_a_class_without_a_file() -> None:
    made = type("Made", (), {"__module__": "no_such_module_anywhere"})
    assert code_digest(made) == code_digest(type("Made", (), {"__module__": "no_such_module_anywhere"}))
    assert code_digest(made) != code_digest(type("Made", (), {"__module__": "another_of_the_kind"}))


# The harness.


def closure(name: str) -> set[str]:
    return set(code._closure(name))


def test_what_determines_the_craft_of_an_attack() -> None:
    found = closure(JSMA.__module__)
    assert {Attack.__module__, JSMA.__module__, "dkd_bench.budget", "dkd_bench.target.randomness"} <= found
    assert "dkd_bench.target._target" in found
    assert not any(
        name.split(".")[1] in {"records", "store", "errors", "plugins", "cli", "leaderboard"} for name in found
    )
    others = {"dkd_bench.attacks.square", "dkd_bench.attacks.latent", "dkd_bench.attacks.autoattack"}
    assert not found & others


def test_a_comment_or_an_import_in_the_harness_changes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path(sys.modules[Attack.__module__].__file__ or "").resolve()
    before, reading = code._closure(JSMA.__module__), Path.read_bytes
    line = "from abc import ABC, abstractmethod\n"
    for old, new, same in (
        (line, f"# a comment\n{line}", True),
        (line, f"import json\n{line}", True),
        (line, "from abc import abstractmethod, ABC\n", True),
        ("dkd_bench.target.randomness", "dkd_bench.errors", False),
        ("torch.enable_grad()", "torch.no_grad()", False),
    ):
        assert old in base.read_text(encoding="utf-8")
        edited = reading(base).replace(old.encode(), new.encode(), 1)
        monkeypatch.setattr(Path, "read_bytes", lambda path, edited=edited: edited if path == base else reading(path))
        assert (code._closure(JSMA.__module__) == before) == same, new
        monkeypatch.undo()


def test_the_rooms_that_compute_are_there() -> None:
    for room in code._COMPUTING_ROOMS:
        assert find_module(f"dkd_bench.{room}") is not None, room


def test_a_plugin_s_digest_follows_nothing_into_the_harness() -> None:
    assert all(name.startswith("dkd_baselines") for name in closure("dkd_baselines.magnet"))
    assert "dkd_baselines._magnet_guards" in closure("dkd_baselines.magnet")
    assert closure(Defense.__module__) > {"dkd_bench.target.surrogates", "dkd_bench.training._fit"}


def test_a_run_goes_through_the_modules_that_its_pipeline_imports() -> None:
    found = set(code._closure("dkd_bench.pipeline", whole=True))
    assert {"dkd_bench.pipeline", "dkd_bench.steps.score", "dkd_bench.steps.plan", "dkd_bench.store.files"} <= found
    assert not any("testing" in name or "plots" in name for name in found)
