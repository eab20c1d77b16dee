"""Terminal output of long tasks: bars on a terminal, quiet lines elsewhere; all on stderr.

Nothing here imports anything slow: the first word must come before torch is imported.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import final

from dkd_bench.progress import Progress, Task

LOADING = "loading torch"
LOADING_NOTE = "seconds; the first time after an installation up to half a minute"


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
    """Give progress that people can watch, and let warnings and errors of the harness through.

    A command imports what imports torch in here, and not before: the first thing this says is that torch is loaded.
    """
    if sys.stderr.isatty():
        from dkd_bench.cli.bars import bars_on_stderr

        with bars_on_stderr(LOADING, LOADING_NOTE) as (bars, handler), _logging_through(handler):
            yield bars
    else:
        if "torch" not in sys.modules:
            note(f"dkd-bench: {LOADING} ({LOADING_NOTE})")
        with _logging_to_stderr():
            yield PlainProgress()


def duration(seconds: float) -> str:
    """Return about how long ``seconds`` are, in words that are read at a glance."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.0f} h"


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


@final
class PlainProgress:
    """Progress as lines for logs: one for each task done, and for a long one an early estimate and later ones."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Tell the time by ``clock``, which returns seconds."""
        self._clock = clock

    def start(self, description: str, total: int) -> Task:
        """Begin a task."""
        return _Lines(description, total, self._clock)


@final
class _Lines:
    seconds_between = 30.0
    seconds_before_estimate = 1.0
    """Seconds before the first estimate: the first steps of a task say too little of the others."""
    shortest_estimate = 5.0
    """Seconds left that are worth a line, at least."""

    def __init__(self, description: str, total: int, clock: Callable[[], float]) -> None:
        self._description = description
        self._total = total
        self._clock = clock
        self._done = 0
        self._estimated = False
        self._started = self._last = clock()

    def advance(self, steps: int = 1, note: str = "", seconds_left: float | None = None) -> None:
        self._done += steps
        now = self._clock()
        finished = self._done >= self._total
        if finished or now - self._last >= self.seconds_between or self._estimate_is_news(now, seconds_left):
            self._last = now
            self._estimated = self._estimated or seconds_left is not None
            self._print(now - self._started, note, None if finished else seconds_left)

    def _estimate_is_news(self, now: float, seconds_left: float | None) -> bool:
        if self._estimated or seconds_left is None:
            return False
        return now - self._started >= self.seconds_before_estimate and seconds_left >= self.shortest_estimate

    def _print(self, seconds: float, note: str, seconds_left: float | None) -> None:
        took = f" in {seconds:.1f} s" if seconds >= 0.05 else ""
        left = "" if seconds_left is None else f", about {duration(seconds_left)} left"
        print(f"{self._description}: {self._done}/{self._total}{took}{left}; {note}", file=sys.stderr, flush=True)
