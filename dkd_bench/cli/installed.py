"""Commands of installed plugins: named and described from their metadata and source, imported when one is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from importlib.metadata import EntryPoint
from inspect import iscoroutinefunction, isfunction
from typing import Any, final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from dkd_bench.cli.console import note
from dkd_bench.errors import DkdBenchError, PluginError
from dkd_bench.plugins import registry


@final
class CommandGroup(TyperGroup):
    """The harness's own commands, and after them those of installed plugins.

    A plugin cannot take the name of one of the harness's own: it is left out, and whoever calls that name is told.
    """

    def __init__(self, **attributes: Any) -> None:
        """Begin with the harness's own commands, as typer hands them over."""
        super().__init__(**attributes)
        self._left_out: dict[str, Sequence[EntryPoint]] = {}
        for name, entries in registry.registered("commands").items():
            if name in self.commands:
                self._left_out[name] = entries
            else:
                self.commands[name] = InstalledCommand(name, entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, or ``None``; a note on stderr names a plugin that wanted the same name."""
        for entry in self._left_out.get(cmd_name, ()):
            note(
                f"dkd-bench: {registry.described('commands', entry)} is left out, since dkd-bench has a command of "
                "that name; register it under another name, or uninstall that plugin"
            )
        return super().get_command(ctx, cmd_name)


@final
class InstalledCommand(TyperCommand):
    """A command that a plugin registers; stands for the real one until it is called."""

    def __init__(self, name: str, entries: Sequence[EntryPoint]) -> None:
        """Take what is registered under ``name``: one entry point, or several that contradict each other."""
        super().__init__(name)
        self._entries = entries

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first line of the function's docstring, or why the command cannot be called."""
        if len(self._entries) > 1:
            return "Cannot be called: it is registered twice."
        summary = registry.summary(self._entries[0])
        self.help = summary.summary or f"A command of {summary.distribution}."
        return super().get_short_help_str(limit)

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """Import the plugin, and let its command parse ``args``.

        Raises:
            PluginError: if the plugin cannot be imported, or is no function that typer makes a command of.
        """
        return self._loaded().make_context(info_name, args, parent=parent, **extra)

    def _loaded(self) -> Any:
        entry = registry.only("commands", self._entries)
        function = registry.load_entry("commands", entry)
        called = registry.described("commands", entry)
        if not isfunction(function) or iscoroutinefunction(function):
            raise PluginError(
                f"{called} should be a function with typer's annotations, got {_kind(function)}; register a function"
            )
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(self.name)(_named_failures(function, called))
        try:
            return get_command(app)
        except Exception as error:
            raise PluginError(
                f"{called} has parameters that typer does not take: {type(error).__name__}: {error}; "
                "repair their annotations"
            ) from error


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "a coroutine function" if iscoroutinefunction(value) else f"a {type(value).__name__}"


def _named_failures(function: Callable[..., Any], called: str) -> Callable[..., int | None]:
    """Return ``function`` with its failures named after the plugin: they are no bugs of the harness.

    Errors that users are meant to read, wrong words and the ways to leave a command pass as they are.
    """

    @wraps(function)
    def call(*args: Any, **options: Any) -> int | None:
        try:
            status = function(*args, **options)
        except (DkdBenchError, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if hasattr(error, "format_message"):  # a usage error of click; typer may bring its own copy of it
                raise
            raise PluginError(
                f"{called} failed: {type(error).__name__}: {error}; report it to its authors with --debug"
            ) from error
        if status is None or isinstance(status, int):
            return status
        raise PluginError(f"{called} should return nothing or an exit status, got {_kind(status)}; repair that plugin")

    return call
