"""What stands on stderr while work goes on, line by line: by a clock that the test moves."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.progress import Progress as RichBars

from dkd_bench.cli.bars import BarProgress, columns
from dkd_bench.cli.console import PlainProgress, duration, reported_progress
from dkd_bench.progress import EstimatedProgress


class Clock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_short_task_is_one_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    task = PlainProgress(clock).start("fgsm", 2)
    task.advance(note="none broken")
    clock.now += 0.04
    task.advance(note="1 broken", seconds_left=0.0)
    assert capsys.readouterr().err == "fgsm: 2/2; 1 broken\n"


def test_training_of_ten_seconds_is_an_estimate_and_an_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    task = EstimatedProgress(PlainProgress(clock), clock).start("dkd: main model", 40)
    for epoch in range(40):
        clock.now += 0.25
        task.advance(note=f"loss {epoch}")
    assert capsys.readouterr().err.splitlines() == [
        "dkd: main model: 4/40 in 1.0 s, about 9 s left; loss 3",
        "dkd: main model: 40/40 in 10.0 s; loss 39",
    ]


def test_training_of_five_seconds_needs_no_estimate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    task = EstimatedProgress(PlainProgress(clock), clock).start("dkd: main model", 40)
    for _ in range(40):
        clock.now += 0.125
        task.advance(note="loss")
    assert capsys.readouterr().err == "dkd: main model: 40/40 in 5.0 s; loss\n"


def test_long_training_says_every_half_minute_how_long_it_takes(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    task = EstimatedProgress(PlainProgress(clock), clock).start("dkd: main model", 10)
    for _ in range(10):
        clock.now += 20
        task.advance(note="loss")
    assert capsys.readouterr().err.splitlines() == [
        "dkd: main model: 2/10 in 40.0 s, about 3 min left; loss",
        "dkd: main model: 4/10 in 80.0 s, about 2 min left; loss",
        "dkd: main model: 6/10 in 120.0 s, about 80 s left; loss",
        "dkd: main model: 8/10 in 160.0 s, about 40 s left; loss",
        "dkd: main model: 10/10 in 200.0 s; loss",
    ]


def test_estimate_that_comes_late_is_said_when_it_comes(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    task = PlainProgress(clock).start("crafts", 42)
    for seconds_left in (None, None, 50.0, 45.0):
        clock.now += 5
        task.advance(note="last: pgd", seconds_left=seconds_left)
    assert capsys.readouterr().err == "crafts: 3/42 in 15.0 s, about 50 s left; last: pgd\n"


def test_without_an_estimate_a_line_every_half_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    task = PlainProgress(clock).start("sweep", 5)
    for _ in range(4):
        clock.now += 16
        task.advance(note="zeta")
    assert capsys.readouterr().err.splitlines() == ["sweep: 2/5 in 32.0 s; zeta", "sweep: 4/5 in 64.0 s; zeta"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (9.6, "10 s"),
        (99.4, "99 s"),
        (99.5, "2 min"),
        (3600, "60 min"),
        (5969, "99 min"),
        (5970, "2 h"),
        (90000, "25 h"),
    ],
)
def test_durations_are_read_at_a_glance(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_nothing_is_said_of_torch_when_it_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "torch" in sys.modules
    with reported_progress():
        pass
    assert capsys.readouterr().err == ""


@pytest.fixture
def bars(clock: Clock) -> RichBars:
    """Bars that are drawn when they are asked for, onto nothing."""
    console = Console(file=io.StringIO(), width=120)
    return RichBars(*columns(clock), console=console, auto_refresh=False, get_time=clock)


def drawn(bars: RichBars) -> list[str]:
    """Return the words beside each bar; how a bar looks is up to rich."""
    console = Console(file=io.StringIO(), width=120)
    console.print(bars.get_renderable())
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return [" ".join(line.translate(dict.fromkeys(map(ord, "━╸╺"))).split()) for line in lines]


def test_bar_counts_down_what_is_left_and_a_finished_one_does_not(bars: RichBars, clock: Clock) -> None:
    task = BarProgress(bars, clock).start("crafts", 2)
    assert drawn(bars) == ["crafts 0/2 0:00:00"]
    task.advance(note="last: pgd", seconds_left=40.0)
    assert drawn(bars) == ["crafts 1/2 0:00:00 40 s left last: pgd"]
    clock.now += 15
    assert drawn(bars) == ["crafts 1/2 0:00:15 25 s left last: pgd"]
    clock.now += 60
    assert drawn(bars) == ["crafts 1/2 0:01:15 last: pgd"]
    task.advance(note="last: fgsm", seconds_left=40.0)
    assert drawn(bars) == ["crafts 2/2 0:01:15 last: fgsm"]


def test_what_loads_is_shown_until_the_first_task(bars: RichBars, clock: Clock) -> None:
    progress = BarProgress(bars, clock)
    progress.show_before_tasks("loading torch", "seconds")
    assert drawn(bars) == ["loading torch 0/? 0:00:00 seconds"]
    progress.start("crafts", 2)
    assert drawn(bars) == ["crafts 0/2 0:00:00"]
    progress.forget_first()
    assert drawn(bars) == ["crafts 0/2 0:00:00"]
