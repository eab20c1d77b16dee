"""Plugins by name and by file, and what goes wrong with them, said by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import get_args

import pytest

from dkd_bench.errors import ConfigError, ExitCode, PluginError, UnknownNameError
from dkd_bench.plugins import registry
from dkd_bench.plugins.registry import Kind, PluginSummary, installed, load, summaries

Register = Callable[..., None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Return a function that makes these, ``name = module:Class``, the only plugins installed."""

    def only(*entries: tuple[str, str]) -> None:
        def entry_points(*, group: str) -> Sequence[EntryPoint]:
            return [EntryPoint(name, value, group) for name, value in entries]

        monkeypatch.setattr(registry, "entry_points", entry_points)

    return only


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder that modules are imported from; afterwards they are forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("defenses", ["dkd", "kd", "none", "ri", "robustbench", "torch"]),
        ("attacks", ["autoattack", "autoattack-rand", "cw", "deepfool", "fgsm", "jsma", "pgd"]),
        ("datasets", ["cifar10", "digits", "fashion-mnist", "imagefolder", "mnist", "npz"]),
        ("threat-models", ["aggregated", "black-box", "joint", "standalone"]),
    ],
)
def test_ours_are_installed(kind: Kind, names: list[str]) -> None:
    assert set(names) <= set(installed(kind))
    assert list(installed(kind)) == sorted(installed(kind))
    ours = {each.name: each for each in summaries(kind)}
    for name in names:
        assert ours[name].distribution.startswith("dkd-bench ")
        assert ours[name].summary
        assert installed(kind)[name].load().__name__ == ours[name].location.partition(":")[2]


def test_kinds_are_those_of_the_command_line() -> None:
    assert set(get_args(Kind)) == set(registry.GROUPS)


def test_duplicates_are_refused(register: Register) -> None:
    register(("mine", "package_a:Mine"), ("mine", "package_b:Mine"))
    message = (
        r"^attack 'mine' is registered twice, by an unknown distribution \(package_a:Mine\) "
        r"and an unknown distribution \(package_b:Mine\); uninstall one of them$"
    )
    with pytest.raises(PluginError, match=message):
        installed("attacks")


def test_the_same_entry_seen_twice_is_one(register: Register) -> None:
    register(("mine", "package_a:Mine"), ("mine", "package_a:Mine"))
    assert list(installed("attacks")) == ["mine"]


def test_unknown_name(register: Register) -> None:
    register(("magnet", "m:M"), ("dkd", "d:D"))
    message = r"^no defence named 'magnett'\. Did you mean 'magnet'\? Installed: dkd, magnet$"
    with pytest.raises(UnknownNameError, match=message):
        load("defenses", "magnett")
    with pytest.raises(UnknownNameError, match=r"^no threat model named 'xyz'\. Installed: dkd, magnet$"):
        load("threat-models", "xyz")


def test_none_installed(register: Register) -> None:
    register()
    with pytest.raises(UnknownNameError, match=r"^no dataset named 'digits'\. Installed: none$"):
        load("datasets", "digits")


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import no_such_module_anywhere", r"ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("raise RuntimeError('needs a GPU')", "RuntimeError: needs a GPU"),
        ("def broken(:", "SyntaxError: "),
        ("Other = 1", r"AttributeError: .*'Mine'"),
    ],
)
def test_a_plugin_that_cannot_be_imported(register: Register, importable: Path, code: str, cause: str) -> None:
    (importable / "broken_plugin.py").write_text(code, encoding="utf-8")
    register(("mine", "broken_plugin:Mine"))
    message = f"^defence 'mine' of an unknown distribution cannot be loaded from broken_plugin:Mine: {cause}"
    with pytest.raises(PluginError, match=message) as caught:
        load("defenses", "mine")
    assert str(caught.value).endswith("; repair or uninstall that plugin")
    assert caught.value.exit_code == ExitCode.INCOMPLETE


@pytest.mark.parametrize(
    "package", ["raise RuntimeError('needs a GPU')", "import no_such_module_anywhere", "def broken(:"]
)
def test_a_broken_plugin_is_listed_all_the_same(register: Register, importable: Path, package: str) -> None:
    """Its package is not imported, so nothing of it fails; the summary is read from the source."""
    folder = importable / "listed_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(package, encoding="utf-8")
    (folder / "inner.py").write_text('class Mine:\n    """My defence.\n\n    More.\n    """\n', encoding="utf-8")
    register(("mine", "listed_package.inner:Mine"))
    assert summaries("defenses") == [
        PluginSummary(
            name="mine",
            location="listed_package.inner:Mine",
            distribution="an unknown distribution",
            summary="My defence.",
        )
    ]
    assert "listed_package" not in sys.modules


@pytest.mark.parametrize(
    "value", ["nowhere:Mine", "nowhere.inner:Mine", "listed_module.inner:Mine", "listed_module:Other", "sys:Mine"]
)
def test_a_plugin_without_readable_docstring(register: Register, importable: Path, value: str) -> None:
    (importable / "listed_module.py").write_text("class Mine: ...\nclass Other: ...\n", encoding="utf-8")
    register(("mine", value))
    assert [each.summary for each in summaries("defenses")] == [""]


def test_a_plugin_whose_source_does_not_parse(register: Register, importable: Path) -> None:
    (importable / "listed_module.py").write_text("def broken(:", encoding="utf-8")
    register(("mine", "listed_module:Mine"))
    assert [each.summary for each in summaries("defenses")] == [""]


FAMILY = '''
from dkd_bench.errors import ConfigError

class Mine:
    """My defence."""

def family(argument):
    """Make a defence of its argument."""
    if not argument:
        raise ConfigError("expected family:NAME, got no name")
    if argument == "broken":
        raise RuntimeError("needs a GPU")
    return type(argument, (Mine,), {})
'''


@pytest.fixture
def family(register: Register, importable: Path) -> None:
    """Install a function ``family`` and a class ``mine``."""
    (importable / "family_plugin.py").write_text(FAMILY, encoding="utf-8")
    register(("family", "family_plugin:family"), ("mine", "family_plugin:Mine"))


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize("argument", ["One", "package.module:factory", "folder/file.py:Class"])
def test_a_function_makes_the_class_of_an_argument(argument: str) -> None:
    assert load("defenses", f"family:{argument}").__name__ == argument


@pytest.mark.usefixtures("family")
def test_a_function_without_an_argument_says_what_it_expects() -> None:
    for name in ("family", "family:"):
        with pytest.raises(ConfigError, match=r"^expected family:NAME, got no name$"):
            load("defenses", name)


@pytest.mark.usefixtures("family")
def test_a_function_that_fails_is_named() -> None:
    with pytest.raises(PluginError, match=r"^defence 'family:broken' cannot be loaded: RuntimeError: needs a GPU$"):
        load("defenses", "family:broken")


@pytest.mark.usefixtures("family")
def test_a_class_takes_no_argument() -> None:
    message = r"^defence 'mine' takes no argument, got 'file\.py:Mine'; write defenses mine$"
    with pytest.raises(ConfigError, match=message):
        load("defenses", "mine:file.py:Mine")


@pytest.mark.usefixtures("family")
def test_an_unknown_family() -> None:
    with pytest.raises(UnknownNameError, match=r"^no defence named 'famly'\. Did you mean 'family'\? Installed: fam"):
        load("defenses", "famly:One")


@pytest.mark.usefixtures("family")
def test_only_defenses_come_in_families() -> None:
    """A dataset's loader is a function too, and is handed over as it is."""
    assert load("datasets", "family").__name__ == "family"
    with pytest.raises(UnknownNameError, match=r"^no dataset named 'family:One'\."):
        load("datasets", "family:One")


@pytest.mark.usefixtures("family")
def test_a_function_is_listed_by_its_docstring() -> None:
    assert [each.summary for each in summaries("defenses")] == ["Make a defence of its argument.", "My defence."]
    assert "family_plugin" not in sys.modules


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from dkd_bench.plugins.registry import GROUPS, summaries\n"
        "assert all(each.summary for kind in GROUPS for each in summaries(kind))\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def plugin_file(tmp_path: Path) -> Path:
    path = tmp_path / "folder with space" / "mine.py"
    path.parent.mkdir()
    path.write_text("import os\n\nclass Mine:\n    pass\n\nclass Other(Mine):\n    pass\n", encoding="utf-8")
    return path


def test_a_class_in_a_file(plugin_file: Path) -> None:
    found = load("defenses", f"{plugin_file}:Mine")
    assert found.__name__ == "Mine"
    assert load("defenses", f"{plugin_file}:Mine") is found
    assert issubclass(load("attacks", f"{plugin_file}:Other"), found)


def test_one_file_by_two_paths_is_one_module(plugin_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load("defenses", f"{plugin_file}:Mine")
    monkeypatch.chdir(plugin_file.parent)
    assert load("defenses", "mine.py:Mine") is found
    assert load("defenses", "./mine.py:Mine") is found


def test_files_of_one_name_are_apart(plugin_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "mine.py"
    other.write_text("class Mine:\n    other = True\n", encoding="utf-8")
    assert load("defenses", f"{plugin_file}:Mine") is not load("defenses", f"{other}:Mine")


def test_missing_file() -> None:
    with pytest.raises(ConfigError, match=r"^no file 'no/where\.py'; expected path/to/file\.py:Class for a defence$"):
        load("defenses", "no/where.py:Mine")


@pytest.mark.parametrize(("name", "hint"), [("Mnie", r" Did you mean 'Mine'\?"), ("", ""), ("os.path", "")])
def test_missing_class(plugin_file: Path, name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"mine\.py named '{name}'\.{hint} Defined there: Mine, Other$"):
        load("defenses", f"{plugin_file}:{name}")


def test_a_file_that_cannot_be_imported_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "fails.py"
    path.write_text("raise RuntimeError('not yet')", encoding="utf-8")
    message = r"^attack file '.*fails\.py' cannot be imported: RuntimeError: not yet; repair the file and run again$"
    with pytest.raises(PluginError, match=message):
        load("attacks", f"{path}:Mine")
    path.write_text("class Mine:\n    repaired = 'with more text'\n", encoding="utf-8")
    assert load("attacks", f"{path}:Mine").__name__ == "Mine"
