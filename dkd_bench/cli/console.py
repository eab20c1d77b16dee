"""What a person sees of long work: bars on a terminal, quiet lines elsewhere; all on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import final

from dkd_bench.progress import Progress, Task


def report_error(sentence: str) -> None:
    """Print one error sentence on stderr."""
    print(f"dkd-bench: error: {sentence}", file=sys.stderr)


def show(text: str) -> None:
    """Print the product of a command on stdout."""
    print(text.rstrip("\n"))


def note(text: str) -> None:
    """Print what is not the product on stderr."""
    print(text, file=sys.stderr)


@contextmanager
def reported_progress() -> Iterator[Progress]:
    """Give progress that people can watch, and let warnings and errors of the harness through."""
    if sys.stderr.isatty():
        with _bars() as bars:
            yield bars
    else:
        with _logging_to_stderr():
            yield PlainProgress()


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("dkd-bench: %(message)s"))
    with _logging_through(handler):
        yield


@contextmanager
def _logging_through(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger("dkd_bench")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichBars

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    handler = RichHandler(console=console, show_time=False, show_path=False, show_level=False)
    with RichBars(*columns, console=console) as bars, _logging_through(handler):
        yield BarProgress(bars)


@final
class BarProgress:
    """A bar for each task; a finished one stays as a line."""

    def __init__(self, bars: object) -> None:
        """Draw on rich's ``bars``."""
        self._bars = bars

    def start(self, description: str, total: int) -> Task:
        """Begin a bar."""
        task = self._bars.add_task(description, total=total, note="")  # type: ignore[attr-defined]
        return _Bar(self._bars, task)


@final
class _Bar:
    def __init__(self, bars: object, task: object) -> None:
        self._bars = bars
        self._task = task

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._bars.update(self._task, advance=steps, note=note)  # type: ignore[attr-defined]


@final
class PlainProgress:
    """One line when a task is done, and for a long one a line now and then."""

    def start(self, description: str, total: int) -> Task:
        """Begin a task."""
        return _Lines(description, total)


@final
class _Lines:
    seconds_between = 30.0

    def __init__(self, description: str, total: int) -> None:
        self._description = description
        self._total = total
        self._done = 0
        self._started = self._last = monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        now = monotonic()
        if self._done >= self._total or now - self._last >= self.seconds_between:
            self._last, seconds = now, now - self._started
            took = f" in {seconds:.1f} s" if seconds >= 0.05 else ""
            print(f"{self._description}: {self._done}/{self._total}{took}; {note}", file=sys.stderr, flush=True)
