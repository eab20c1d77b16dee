"""How often ``dkd-bench check`` alarms: for nothing, and for a defence that lost five points.

    python benchmarks/check_rates.py [--repetitions N] [--seed S]

Outcomes are made up, the decision is the one of ``check``. A defence is trained again: of the images, a share stands
the attack no more, another share of equal size stands it now, and 60 % survived before. In 16 cells an image's fate
hangs together (a Gaussian copula, correlation 0.8 between cells), as it does under attacks of one kind. No change: how
often any of 16 cells is called regressed. A drop: one cell loses five points more than it wins, alone or among 15
that do not; how often it is found. Images are drawn anew each time, so that two trainings are equal in the mean only.

Trainings that differ as a whole, all images together, are not in here: for these are several runs in a reference.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from dkd_bench.check import Rule, Sample, decide

CELLS = 16
ACCURACY = 0.6
CORRELATION = 0.8
DROP = 0.05
SIZES = (200, 1000)
FLIPS = (0.05, 0.1)
"""Share of images that go each way between two trainings of one defence."""
RULES = {"tolerance 0": Rule(tolerance=0.0), "tolerance 0.02": Rule()}

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def fates(generator: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Return a number in [0, 1] for each cell and image, correlated between cells, shape ``(CELLS, n)``."""
    image, cell = generator.standard_normal(n), generator.standard_normal((CELLS, n))
    mixed = np.sqrt(CORRELATION) * image + np.sqrt(1 - CORRELATION) * cell
    return np.asarray(norm.cdf(mixed))


def outcomes(fate: NDArray[np.float64], *, lost: float, won: float) -> Pair:
    """Return outcomes after and before: ``lost`` of the images no longer survive, ``won`` of them now do."""
    before = (fate < lost) | ((fate >= lost + won) & (fate < ACCURACY + won))
    after = (fate >= lost) & (fate < ACCURACY + won)
    return after.astype(float), before.astype(float)


def sample(pair: Pair) -> Sample:
    """Return the outcomes as ``check`` has them."""
    return Sample(pairs=[(pair[0].tolist(), pair[1].tolist())])


def regressed(samples: Sequence[Sample], rule: Rule) -> list[bool]:
    """Return which cells are called regressed."""
    return [decision.verdict == "regressed" for decision in decide(samples, rule)]


def rates(n: int, flips: float, *, repetitions: int, seed: int) -> dict[str, dict[str, float]]:
    """Return the shares of alarms by situation and rule."""
    generator = np.random.default_rng([seed, n, round(1000 * flips)])
    alarms = {what: dict.fromkeys(RULES, 0) for what in ("no change, 16 cells", "drop, 1 cell", "drop, 1 of 16 cells")}
    for _ in range(repetitions):
        drawn = fates(generator, n)
        unchanged = [sample(outcomes(fate, lost=flips, won=flips)) for fate in drawn]
        dropped = sample(outcomes(drawn[0], lost=flips + DROP, won=flips))
        for name, rule in RULES.items():
            alarms["no change, 16 cells"][name] += any(regressed(unchanged, rule))
            alarms["drop, 1 cell"][name] += regressed([dropped], rule)[0]
            alarms["drop, 1 of 16 cells"][name] += regressed([dropped, *unchanged[1:]], rule)[0]
    return {what: {name: count / repetitions for name, count in found.items()} for what, found in alarms.items()}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    start = perf_counter()
    print(f"alpha {Rule().alpha:g}, {words.repetitions} repetitions, seed {words.seed}\n")
    print(f"| {'situation':<20} | {'n':>4} | {'flips each way':>14} | {' | '.join(f'{name:>14}' for name in RULES)} |")
    print(f"| {'-' * 20} | {'-' * 3}: | {'-' * 13}: | {' | '.join('-' * 13 + ':' for _ in RULES)} |")
    for n in SIZES:
        for flips in FLIPS:
            for what, found in rates(n, flips, repetitions=words.repetitions, seed=words.seed).items():
                numbers = " | ".join(f"{100 * found[name]:>12.1f} %" for name in RULES)
                print(f"| {what:<20} | {n:>4} | {100 * flips:>12.0f} % | {numbers} |", flush=True)
    print(f"\n{perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
