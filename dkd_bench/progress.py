"""Progress reporting for long tasks; the command line decides what a person sees."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Protocol, final


class Task(Protocol):
    """Task under way."""

    def advance(self, steps: int = 1, note: str = "", seconds_left: float | None = None) -> None:
        """Report ``steps`` more done, a short note on how it stands, and how long the rest takes if that is known."""


class Progress(Protocol):
    """Receiver of progress reports from long tasks."""

    def start(self, description: str, total: int) -> Task:
        """Begin a task of ``total`` steps and return what its steps are reported to."""


@final
class SilentTask:
    """Task that nobody watches."""

    def advance(self, steps: int = 1, note: str = "", seconds_left: float | None = None) -> None:
        """Do nothing."""


@final
class SilentProgress:
    """Progress that nobody watches: the default of every library call."""

    def start(self, description: str, total: int) -> SilentTask:
        """Return a task that reports to nobody."""
        return SilentTask()


@final
class EstimatedProgress:
    """Progress that adds how long a task will still take, if its steps take about as long as one another."""

    def __init__(self, progress: Progress, clock: Callable[[], float] = monotonic) -> None:
        """Report to ``progress``; ``clock`` returns seconds."""
        self._progress = progress
        self._clock = clock

    def start(self, description: str, total: int) -> Task:
        """Begin a task."""
        return _EstimatedTask(self._progress.start(description, total), total, self._clock)


@final
class _EstimatedTask:
    """Task with an estimate, counted from the first report on: what comes before also holds what is done only once."""

    def __init__(self, task: Task, total: int, clock: Callable[[], float]) -> None:
        self._task = task
        self._left = total
        self._clock = clock
        self._first: float | None = None
        self._since_first = 0

    def advance(self, steps: int = 1, note: str = "", seconds_left: float | None = None) -> None:
        self._left -= steps
        if self._first is None:
            self._first = self._clock()
        else:
            self._since_first += steps
            if seconds_left is None and self._since_first > 0:
                seconds_a_step = (self._clock() - self._first) / self._since_first
                seconds_left = seconds_a_step * max(0, self._left)
        self._task.advance(steps, note, seconds_left)
