"""What flags cost: wall time of probes, challenges and diagnosis beside that of a run's attacks and scoring.

    python benchmarks/flags.py [--defense NAME ...] [--attack NAME ...] [--n-examples N ...] [--dataset NAME]

Each run goes through all threat models, with trained weights from the cache and every craft made anew.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest import mock

from dkd_bench import pipeline
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.crafter import Crafter
from dkd_bench.steps.prepare import Prepared, prepare
from dkd_bench.steps.record import Findings, record
from dkd_bench.steps.request import RunRequest
from dkd_bench.steps.score import ask_clean, score_clean
from dkd_bench.store.cache import cache_root
from dkd_bench.store.files import TensorStore


class Clock:
    """Adds up the seconds that functions take."""

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, its seconds counted here."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += perf_counter() - start

        return wrapped


def seconds_of(prepared: Prepared) -> tuple[float, float]:
    """Return the seconds of a whole run, and those of them that flags took."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(pipeline, "doubt", clock.timed(pipeline.doubt)):
        crafter = Crafter(TensorStore(Path(folder)))
        start = perf_counter()
        answers = ask_clean(prepared)
        findings = Findings(clean=score_clean(prepared, answers))
        record(prepared, findings, pipeline.measure(prepared, findings, answers, crafter, SilentProgress()))
        return perf_counter() - start, clock.seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--defense", action="append", help="repeats; dkd and none unless given")
    parser.add_argument("--attack", action="append", help="repeats; all unless given")
    parser.add_argument("--n-examples", action="append", type=int, help="repeats; 100 and 300 unless given")
    parser.add_argument("--dataset", default="digits")
    words = parser.parse_args()
    print(f"{words.dataset}, {os.cpu_count()} cores, weights in {cache_root()}\n")
    print("| defence | attacks | n | whole run (s) | flags (s) | share of the rest |")
    print("| - | - | -: | -: | -: | -: |")
    for defense in words.defense or ("none", "dkd"):
        for n_examples in words.n_examples or (100, 300):
            attacks = tuple(words.attack or ("all",))
            request = RunRequest(
                defenses=(defense,), attacks=attacks, dataset=words.dataset, n_examples=n_examples, device="cpu"
            )
            whole, flags = seconds_of(prepare(request, SilentProgress()))
            share = 100 * flags / (whole - flags)
            print(
                f"| {defense} | {', '.join(attacks)} | {n_examples} | {whole:.1f} | {flags:.2f} | {share:.1f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
