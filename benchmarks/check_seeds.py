"""How often ``dkd-bench check`` alarms on a defence trained again, and finds a drop planted in it.

    for seed in $(seq 0 11); do
        dkd-bench run --defense none --defense dkd --defense ri --attack fgsm --attack pgd --threat-model joint \
            --threat-model black-box --n-examples 300 --training-seed $seed --out runs/seed-$seed
    done
    python benchmarks/check_seeds.py runs/seed-*

Runs that differ in ``--training-seed`` alone are drawn as reference and as new run, never one as both. Any cell called
regressed is a false alarm: the recipe is the same. The drop is planted in all cells: that share of all images is lost,
drawn by chance from those that survive, in one order for all cells.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from dkd_bench.check import Rule, Sample, decide
from dkd_bench.records.rundir import load_run

MOST_REFERENCES = 30
"""Choices of reference runs for each number of them, drawn at random."""
DROPS = (0.0, 0.05, 0.1, 0.2)
SIZES = (1, 2, 3, 5, 8)

Outcomes = dict[tuple[str, ...], tuple[float, ...]]


def outcomes(folder: Path) -> Outcomes:
    """Return what became of each image in each cell with a number."""
    cells = [cell for cell in load_run(folder).cells if cell.status == "ok"]
    return {(each.defense, each.decision, each.threat_model, each.attack): each.shares for each in cells}


def dropped(run: Outcomes, drop: float, generator: random.Random) -> Outcomes:
    """Return ``run`` with ``drop`` of its images lost in each cell, or all that survive if they are fewer."""
    order = list(range(len(next(iter(run.values())))))
    generator.shuffle(order)
    worse = {}
    for cell, shares in run.items():
        lost = set([image for image in order if shares[image] > 0.5][: round(drop * len(shares))])
        worse[cell] = tuple(0.0 if image in lost else share for image, share in enumerate(shares))
    return worse


def alarm(new: Outcomes, references: Sequence[Outcomes]) -> bool:
    """Return whether any cell of ``new`` is called regressed."""
    samples = [Sample(pairs=[(new[cell], run[cell]) for run in references], training=cell[0]) for cell in new]
    return any(decision.verdict == "regressed" for decision in decide(samples, Rule()))


def rate(runs: Sequence[Outcomes], size: int, drop: float, *, seed: int) -> tuple[int, int]:
    """Return in how many of how many comparisons there is an alarm."""
    generator = random.Random(seed)
    chosen = list(combinations(range(len(runs)), size))
    generator.shuffle(chosen)
    pairs = [(new, chosen_ones) for chosen_ones in chosen[:MOST_REFERENCES] for new in range(len(runs))]
    found = [
        alarm(dropped(runs[new], drop, generator), [runs[each] for each in references])
        for new, references in pairs
        if new not in references
    ]
    return sum(found), len(found)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs that differ in --training-seed alone")
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    runs = [outcomes(folder) for folder in words.runs]
    n, cells = len(next(iter(runs[0].values()))), len(runs[0])
    print(f"{len(runs)} runs, {cells} cells of {n} images, alpha {Rule().alpha:g}, tolerance {Rule().tolerance:g}\n")
    for cell in runs[0]:
        accuracies = sorted(sum(run[cell]) / n for run in runs)
        print(f"{' '.join(cell)}: {100 * accuracies[0]:.1f} to {100 * accuracies[-1]:.1f} %")
    print(f"\n| reference runs | {' | '.join(f'drop {100 * drop:.0f}' for drop in DROPS)} | comparisons |")
    print(f"| -: | {' | '.join('-:' for _ in DROPS)} | -: |")
    for size in (size for size in SIZES if size < len(runs)):
        found = [rate(runs, size, drop, seed=words.seed) for drop in DROPS]
        shares = " | ".join(f"{100 * alarms / total:.1f} %" for alarms, total in found)
        print(f"| {size} | {shares} | {found[0][1]} |", flush=True)


if __name__ == "__main__":
    main()
