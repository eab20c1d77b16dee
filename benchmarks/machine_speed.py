"""How fast this machine computes, beside the machine whose times the README states (``dkd_bench.training.speed``).

    python benchmarks/machine_speed.py [--rounds N]

Prints the gradients a second of each round, and the best of them: the number for ``README_GRADIENTS_PER_SECOND``,
taken where and when the README's times are taken, while the machine has nothing else to do.
"""

from __future__ import annotations

import argparse

from dkd_bench.training.speed import gradients_per_second, slowness


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    words = parser.parse_args()
    rates = []
    for number in range(1, words.rounds + 1):
        rates.append(gradients_per_second())
        print(f"round {number}: {rates[-1]:.0f} gradients a second")
    print(f"best {max(rates):.0f}; {slowness(max(rates)) or 'no note: as fast as the machine of the README'}")


if __name__ == "__main__":
    main()
