"""Commands of plugins: beside the harness's own, each imported when it is called, and its faults nobody else's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from dkd_bench.cli import app
from dkd_bench.plugins import registry

SOURCE = '''
from __future__ import annotations

from typing import Annotated

import typer

from dkd_bench.errors import ConfigError


def greet(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of whom.")],
    times: Annotated[int, typer.Option(help="How often.")] = 1,
) -> int | None:
    """Greet somebody.

    More than once, if asked to.
    """
    print("hello", name, "times", times)
    return 1 if name == "nobody" else None


def fail(how: str) -> None:
    """Fail in one way or another."""
    if how == "wrong":
        raise ConfigError("expected a greeting, got none; give one")
    if how == "option":
        raise typer.BadParameter("expected another word")
    if how == "leave":
        raise typer.Exit(4)
    raise KeyError(how)


def words() -> str:
    """Return words where a status is expected."""
    return "done"


async def later() -> None:
    """Answer some other time."""


class Thing:
    """No function."""


def untypable(value: int | str) -> None:
    """Take what typer does not."""


def unknown(value: Annotated[Nowhere, typer.Argument()]) -> None:
    """Name a type that there is not."""


number = 3
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make ``command_plugin`` importable, and ``broken_plugin``, which cannot be imported."""
    (tmp_path / "command_plugin.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "broken_plugin.py").write_text('def f():\n    """Do much."""\nraise OSError("no")\n', encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("command_plugin", "broken_plugin"):
        sys.modules.pop(name, None)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs ``dkd-bench LINE`` where only these commands are installed."""

    def run(line: str, /, **commands: str | Sequence[str]) -> tuple[int, str, str]:
        listed = [(name, [value] if isinstance(value, str) else value) for name, value in commands.items()]

        def entry_points(*, group: str) -> list[EntryPoint]:
            return [EntryPoint(name, value, group) for name, values in listed for value in values]

        monkeypatch.setattr(registry, "entry_points", entry_points)
        monkeypatch.setattr(sys, "argv", ["dkd-bench", *line.split()])
        with pytest.raises(SystemExit) as leave:
            app.main()
        printed = capsys.readouterr()
        return int(leave.value.code or 0), printed.out, printed.err

    return run


def test_an_installed_command_is_called_with_its_own_arguments(call):
    assert call("greet you --times 2", greet="command_plugin:greet") == (0, "hello you times 2\n", "")
    assert call("greet nobody", greet="command_plugin:greet")[0] == 1


def test_help_lists_installed_commands_after_our_own_and_imports_none(call):
    status, out, err = call("--help", greet="command_plugin:greet", broken="broken_plugin:f", elsewhere="no_module:f")
    assert (status, err) == (0, "")
    listed = out.partition("Commands:\n")[2].splitlines()
    assert listed[0].split()[0] == "run"
    assert [line.split(maxsplit=1) for line in listed[-3:]] == [
        ["broken", "Do much."],
        ["elsewhere", "A command of an unknown distribution."],
        ["greet", "Greet somebody."],
    ]
    assert not {"command_plugin", "broken_plugin"} & set(sys.modules)


def test_help_of_an_installed_command(call):
    status, out, _ = call("greet --help", greet="command_plugin:greet")
    assert status == 0
    assert "dkd-bench greet [OPTIONS] {NAME}" in out
    assert "More than once, if asked to." in out
    assert "How often." in out


def test_wrong_words_of_an_installed_command(call):
    status, _, err = call("greet you --tims 2", greet="command_plugin:greet")
    assert status == 2
    assert err.startswith("dkd-bench: error: No such option: --tims")
    assert call("gret", greet="command_plugin:greet")[2].startswith(
        "dkd-bench: error: No such command 'gret'. Did you mean 'greet'"
    )


@pytest.mark.parametrize("words", ["mine", "mine --help"])
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            "broken_plugin:f",
            "command 'mine' of an unknown distribution cannot be loaded from broken_plugin:f: OSError: no; "
            "repair or uninstall that plugin",
        ),
        ("no_module:f", "cannot be loaded from no_module:f: ModuleNotFoundError: No module named 'no_module'"),
        ("command_plugin:nothing", "cannot be loaded from command_plugin:nothing: AttributeError"),
        (
            "command_plugin:Thing",
            "command 'mine' of an unknown distribution (command_plugin:Thing) should be a function with typer's "
            "annotations, got the class Thing; register a function",
        ),
        ("command_plugin:later", "got a coroutine function; register a function"),
        ("command_plugin:number", "got a int; register a function"),
        (
            "command_plugin:untypable",
            "(command_plugin:untypable) has parameters that typer does not take: AssertionError: ",
        ),
        ("command_plugin:unknown", "NameError: name 'Nowhere' is not defined; repair their annotations"),
        (
            ("command_plugin:greet", "command_plugin:fail"),
            "command 'mine' is registered twice, by an unknown distribution (command_plugin:greet) and an unknown "
            "distribution (command_plugin:fail); uninstall one of them",
        ),
    ],
)
def test_a_broken_command_costs_one_sentence_when_it_is_called(call, words, value, sentence):
    status, out, err = call(words, mine=value)
    assert (status, out) == (3, "")
    assert sentence in err
    assert err.startswith("dkd-bench: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("value", ["broken_plugin:f", "command_plugin:Thing", ("a:a", "b:b")])
def test_a_broken_command_costs_the_others_nothing(call, value):
    assert call("greet you", mine=value, greet="command_plugin:greet") == (0, "hello you times 1\n", "")
    status, out, err = call("explain", mine=value)
    assert (status, err) == (0, "")
    assert "What to do:" in out
    assert call("--help", mine=value)[::2] == (0, "")


def test_help_says_that_a_command_is_registered_twice(call):
    out = call("--help", mine=("a:a", "b:b"))[1]
    assert out.splitlines()[-1].split(maxsplit=1) == ["mine", "Cannot be called: it is registered twice."]


def test_our_own_commands_keep_their_names_and_say_so(call):
    sentence = (
        "dkd-bench: command 'explain' of an unknown distribution (command_plugin:greet) is left out, since dkd-bench "
        "has a command of that name; register it under another name, or uninstall that plugin\n"
    )
    for words in ("explain", "--help"):
        status, out, err = call(words, explain="command_plugin:greet")
        assert (status, err) == (0, sentence)
        assert "hello" not in out
    assert call("list commands", explain="command_plugin:greet")[2] == ""


@pytest.mark.parametrize(
    ("how", "status", "sentence"),
    [
        ("wrong", 2, "dkd-bench: error: expected a greeting, got none; give one\n"),
        ("option", 2, "dkd-bench: error: Invalid value: expected another word See 'dkd-bench --help'.\n"),
        ("leave", 4, ""),
        (
            "badly",
            3,
            "dkd-bench: error: command 'fail' of an unknown distribution (command_plugin:fail) failed: "
            "KeyError: 'badly'; report it to its authors with --debug\n",
        ),
    ],
)
def test_a_command_that_fails(call, how, status, sentence):
    assert call(f"fail {how}", fail="command_plugin:fail") == (status, "", sentence)


def test_a_command_answers_with_a_status(call):
    status, _, err = call("words", words="command_plugin:words")
    assert status == 3
    assert "(command_plugin:words) should return nothing or an exit status, got a str; repair that plugin" in err


def test_installed_commands_are_listed(call):
    assert call("list commands", greet="command_plugin:greet")[1] == (
        "greet  Greet somebody.  [an unknown distribution]\n"
    )
