"""Commands that ask for requests: a field is an option, and a command is short."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import pytest
import typer
from typer.testing import CliRunner

from dkd_bench.cli.app import app
from dkd_bench.cli.asking import asking
from dkd_bench.errors import ConfigError
from dkd_bench.steps.request import CheckRequest, RunRequest, TrainRequest
from dkd_bench.steps.words import Word, in_words, words_of

MOST_LINES = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    place: Path = field(metadata=in_words("Where.", positional=True, metavar="PLACE"))
    names: tuple[str, ...] = field(metadata=in_words("Who.", option="name"))
    sizes: tuple[int, ...] = field(default=(), metadata=in_words("How large.", shown_default="what there is"))
    mode: Literal["a", "b"] = field(default="a", metadata=in_words("How."))
    flag_of_two: bool = field(default=False, metadata=in_words("Whether."))
    limit: int | None = field(default=None, metadata=in_words("At most.", none="auto", metavar="N|auto"))
    hidden: int = 7


def invoked(command, *words):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def asked_with(*words, **options):
    found = []

    @asking(Request, **options)
    def command(request: Request, own: bool = False) -> None:
        """Find out."""
        found.append((request, own))

    result = invoked(command, *words)
    assert result.exit_code == 0, result.output
    return found[0]


def test_words_become_a_request():
    request, own = asked_with(
        "p", "--name", "x", "--name", "y", "--sizes", 3, "--mode", "b", "--flag-of-two", "--limit", 5, "--own"
    )
    assert own
    assert request == Request(
        place=Path("p"), names=("x", "y"), sizes=(3,), mode="b", flag_of_two=True, limit=5, hidden=7
    )


def test_defaults_are_those_of_the_fields():
    request, own = asked_with("p", "--name", "x")
    assert (request, own) == (Request(place=Path("p"), names=("x",)), False)
    assert asked_with("p", "--name", "x", "--limit", "auto")[0].limit is None


def test_a_command_may_ask_otherwise():
    instead = {"names": Word(help="Whom.", option="whom", once=True, default="z"), "sizes": Word(help="S.", once=True)}
    request, _ = asked_with("p", instead=instead, without=("mode",), fixed={"flag_of_two": True})
    assert (request.names, request.sizes, request.mode, request.flag_of_two) == (("z",), (), "a", True)
    assert asked_with("p", "--sizes", 4, instead=instead)[0].sizes == (4,)


def test_a_word_that_is_no_number():
    with pytest.raises(ConfigError, match="--limit must be a number or auto, got 'lots'"):
        asked_with("p", "--name", "x", "--limit", "lots")


def test_help_says_what_the_fields_say():
    @asking(Request, first=("names",))
    def command(request: Request) -> None:
        """Find out."""

    shown = invoked(command, "--help").output
    for said in (
        "PLACE",
        "--name",
        "[required]",
        "what there is",
        "<a|b>",
        "--flag-of-two",
        "N|auto",
        "[default: auto]",
    ):
        assert said in shown, shown
    assert "hidden" not in shown
    assert "no-flag" not in shown
    assert shown.index("--name") < shown.index("--sizes")


def options_of(command):
    (found,) = (each for each in typer.main.get_command(app).commands.items() if each[0] == command)
    return {option for parameter in found[1].params for option in parameter.opts}


@pytest.mark.parametrize(("command", "request_type"), [("run", RunRequest), ("check", CheckRequest)])
def test_every_field_is_an_option(command, request_type):
    words = {
        name if word.positional else f"--{word.option or name.replace('_', '-')}"
        for name, (_, word) in words_of(request_type).items()
    }
    assert set(words_of(request_type)) == {each.name for each in fields(request_type)}
    assert words <= options_of(command)


def test_training_asks_for_all_but_its_second_seed():
    assert {f"--{name}" for name in ("defense", "dataset", "recipe", "set", "device")} <= options_of("train")
    assert "--training-seed" not in options_of("train")
    assert {each.name for each in fields(TrainRequest)} <= {each.name for each in fields(RunRequest)}


def test_commands_are_short():
    lengths = {}
    for command in app.registered_commands:
        assert command.callback is not None
        file, name = sys.modules[command.callback.__module__].__file__, command.callback.__name__
        tree = ast.parse(Path(str(file)).read_text(encoding="utf-8"))
        (node,) = (each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == name)
        lengths[name] = int(node.end_lineno or 0) - node.lineno + 1
    assert max(lengths.values()) <= MOST_LINES, lengths
