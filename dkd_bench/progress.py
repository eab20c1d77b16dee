"""How long work tells of itself; the command line decides what a person sees."""

from __future__ import annotations

from typing import Protocol, final


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Report ``steps`` more done, and a short note on how it stands."""


class Progress(Protocol):
    """Where long work reports to."""

    def start(self, description: str, total: int) -> Task:
        """Begin a task of ``total`` steps and return what its steps are reported to."""


@final
class SilentTask:
    """A task that nobody watches."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Do nothing."""


@final
class SilentProgress:
    """Progress that nobody watches: the default of every library call."""

    def start(self, description: str, total: int) -> SilentTask:
        """Return a task that reports to nobody."""
        return SilentTask()
