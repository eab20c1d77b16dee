"""Progress bars on a terminal; imported only where there is one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import final

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichBars
from rich.progress import Task as RichTask
from rich.table import Column
from rich.text import Text

from dkd_bench.cli.console import duration
from dkd_bench.progress import Task


@contextmanager
def bars_on_stderr(first: str, note: str) -> Iterator[tuple[BarProgress, logging.Handler]]:
    """Give bars on stderr and a log handler that prints above them; ``first`` is shown until a task begins."""
    console = Console(stderr=True)
    handler = RichHandler(console=console, show_time=False, show_path=False, show_level=False)
    with RichBars(*columns(), console=console) as bars:
        progress = BarProgress(bars)
        progress.show_before_tasks(first, note)
        try:
            yield progress, handler
        finally:
            progress.forget_first()


def columns(clock: Callable[[], float] = monotonic) -> tuple[ProgressColumn, ...]:
    """Return the columns shown of each task, from left to right."""
    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _TimeLeft(clock),
        TextColumn("{task.fields[note]}"),
    )


@final
class BarProgress:
    """Progress as a bar for each task; a finished one stays as a line."""

    def __init__(self, bars: RichBars, clock: Callable[[], float] = monotonic) -> None:
        """Draw on rich's ``bars``; ``clock`` is that of their columns."""
        self._bars = bars
        self._clock = clock
        self._first: TaskID | None = None

    def show_before_tasks(self, description: str, note: str) -> None:
        """Show a bar that moves by itself until the first task begins."""
        self._first = self._bars.add_task(description, total=None, note=note, ends=None)

    def forget_first(self) -> None:
        """Take away what was shown before the tasks, if it is still there."""
        if self._first is not None:
            self._bars.remove_task(self._first)
            self._first = None

    def start(self, description: str, total: int) -> Task:
        """Begin a bar."""
        self.forget_first()
        return _Bar(self._bars, self._bars.add_task(description, total=total, note="", ends=None), self._clock)


@final
class _Bar:
    def __init__(self, bars: RichBars, task: TaskID, clock: Callable[[], float]) -> None:
        self._bars = bars
        self._task = task
        self._clock = clock

    def advance(self, steps: int = 1, note: str = "", seconds_left: float | None = None) -> None:
        ends = None if seconds_left is None else self._clock() + seconds_left
        self._bars.update(self._task, advance=steps, note=note, ends=ends)


@final
class _TimeLeft(ProgressColumn):
    """Column with the time that a task will still take, counted down between its steps; blank if unknown or overdue."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(Column(no_wrap=True))
        self._clock = clock

    def render(self, task: RichTask) -> Text:
        ends = task.fields["ends"]
        left = 0.0 if task.finished or ends is None else ends - self._clock()
        return Text(f"{duration(left)} left" if left >= 0.5 else "")
