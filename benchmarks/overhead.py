"""Harness overhead: the wall time of a run against the sum of its bare attack calls, side by side.

    python benchmarks/overhead.py [--defense NAME] [--attack NAME ...] [--n-examples N] [--rounds N]

Both sides start with trained weights and no crafts, attack the same targets on the same images under the same
seeds, and take turns. Prints the ratio of each round, and their median.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from dkd_bench.pipeline import run
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.prepare import Prepared, prepare
from dkd_bench.steps.request import RunRequest
from dkd_bench.store.cache import cache_root


def bare_attacks(prepared: Prepared) -> float:
    """Return the seconds that all attack calls of a plan take by themselves."""
    chunks = list(prepared.images.chunks())
    start = perf_counter()
    for craft in prepared.plan.crafts:
        target, attack = prepared.targets.target(craft), prepared.attacks[craft.attack]
        for chunk, seed in zip(chunks, craft.seeds, strict=True):
            attack.run(target, chunk.images, chunk.labels, craft.budget, seed=seed)
    return perf_counter() - start


def whole_run(request: RunRequest) -> float:
    """Return the seconds that the run takes, preparation, scoring and writing included, without any craft kept."""
    shutil.rmtree(cache_root() / "crafts", ignore_errors=True)
    assert request.out is not None
    shutil.rmtree(request.out, ignore_errors=True)
    start = perf_counter()
    run(request)
    return perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--defense", default="dkd")
    parser.add_argument("--attack", action="append")
    parser.add_argument("--n-examples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DKD_BENCH_CACHE"] = folder
        request = RunRequest(
            defenses=(words.defense,),
            attacks=tuple(words.attack or ("pgd", "deepfool", "cw")),
            n_examples=words.n_examples,
            out=Path(folder) / "run",
        )
        bench = prepare(request, SilentProgress())
        ratios = []
        for number in range(1, words.rounds + 1):
            bare, whole = bare_attacks(bench), whole_run(request)
            ratios.append(whole / bare)
            print(f"round {number}: run {whole:.2f} s, bare attacks {bare:.2f} s, ratio {whole / bare:.3f}")
        print(f"median ratio {median(ratios):.3f}")


if __name__ == "__main__":
    main()
