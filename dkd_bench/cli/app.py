"""Command ``dkd-bench``: its subcommands, and how errors become sentences and exit statuses.

Commands of installed plugins come in through ``CommandGroup``.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from dkd_bench.cli.check import check
from dkd_bench.cli.console import report_error
from dkd_bench.cli.explain import explain
from dkd_bench.cli.installed import CommandGroup
from dkd_bench.cli.leaderboard import leaderboard
from dkd_bench.cli.list import list_plugins
from dkd_bench.cli.lss import lss
from dkd_bench.cli.options import as_option
from dkd_bench.cli.plot import plot
from dkd_bench.cli.probe import probe
from dkd_bench.cli.reference import reference
from dkd_bench.cli.run import run
from dkd_bench.cli.sweep import sweep
from dkd_bench.cli.train import train
from dkd_bench.cli.verify import verify
from dkd_bench.errors import DkdBenchError, ExitCode

app = typer.Typer(
    name="dkd-bench",
    cls=CommandGroup,
    help="Attack defences against adversarial examples, and rank what is left of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run)
app.command()(train)
app.command()(sweep)
app.command("list")(list_plugins)
app.command()(leaderboard)
app.command()(lss)
app.command()(plot)
app.command()(verify)
app.command()(reference)
app.command()(check)
app.command()(probe)
app.command()(explain)


def main() -> NoReturn:
    """Run the command line; every error a user can meet is one sentence on stderr, unless ``--debug``."""
    debug = "--debug" in sys.argv[1:]
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        status = app(args=arguments, standalone_mode=False)
    except DkdBenchError as error:
        if debug:
            raise
        report_error(error.sentence.spelled(as_option))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _leave_interrupted()
    except Exception as error:
        usage = _usage_message(error)
        if usage is None:
            if debug:
                raise
            report_error(f"{type(error).__name__}: {error}; this is a bug in dkd-bench, please report it with --debug")
            sys.exit(ExitCode.INCOMPLETE)
        report_error(usage)
        sys.exit(ExitCode.USAGE)
    if status == ExitCode.INTERRUPTED:  # what typer makes of an interruption
        _leave_interrupted()
    sys.exit(status or ExitCode.DONE)


def _usage_message(error: Exception) -> str | None:
    """Return click's words on wrong arguments; typer may bring its own copy of click."""
    formatted = getattr(error, "format_message", None)
    return None if formatted is None else f"{formatted()} See 'dkd-bench --help'."


def _leave_interrupted() -> NoReturn:
    """Leave without waiting for library threads, which do not answer to an interruption."""
    report_error("interrupted; what was done is kept, and the same command goes on from there")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ExitCode.INTERRUPTED)
