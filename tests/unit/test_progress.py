"""Estimates of how long a task still takes: by a clock that the test moves."""

from __future__ import annotations

from dkd_bench.progress import EstimatedProgress


class Clock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def start(self, description: str, total: int) -> Recorder:
        self.told.append((description, total))
        return self

    def advance(self, steps: int = 1, note: str = "", seconds_left: float | None = None) -> None:
        self.told.append((steps, note, seconds_left))


def told(*advances: tuple[float, int], total: int = 10) -> list[object]:
    """Return the seconds left after each advance: of so many steps, after so many seconds more."""
    recorder, clock = Recorder(), Clock()
    task = EstimatedProgress(recorder, clock).start("task", total)
    for seconds, steps in advances:
        clock.now += seconds
        task.advance(steps)
    return [each[2] for each in recorder.told[1:]]


def test_a_task_is_passed_on_as_it_is() -> None:
    recorder = Recorder()
    task = EstimatedProgress(recorder, Clock()).start("dkd: main model", 40)
    task.advance(3, "loss 0.1")
    assert recorder.told == [("dkd: main model", 40), (3, "loss 0.1", None)]


def test_the_first_step_says_nothing_of_the_others() -> None:
    assert told((60, 1), (2, 1), (2, 1)) == [None, 16, 14]


def test_the_mean_of_all_steps_counts() -> None:
    assert told((1, 1), (1, 1), (3, 1)) == [None, 8, 14]


def test_several_steps_at_once() -> None:
    assert told((1, 2), (4, 4)) == [None, 4]


def test_all_at_once_has_no_estimate_and_a_finished_task_nothing_left() -> None:
    assert told((0, 10)) == [None]
    assert told((1, 1), (9, 9)) == [None, 0]
    assert told((1, 1), (10, 10)) == [None, 0]


def test_what_the_task_knows_better_is_passed_on() -> None:
    recorder = Recorder()
    task = EstimatedProgress(recorder, Clock()).start("task", 10)
    task.advance()
    task.advance(seconds_left=7.0)
    assert recorder.told[1:] == [(1, "", None), (1, "", 7.0)]
