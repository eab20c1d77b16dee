"""Latent space separation: our hard margins against scikit-learn's SVM on all points, side by side.

    python benchmarks/separation.py [--images N] [--dimension D] [--members M] [--rounds R] [--penalty C]

Both solve the same one-against-the-others problems on latents made up to resemble those of trained networks:
rectified clusters, one for each class, whose means differ from member to member. The SVM gets the points centred and
of RMS radius 1, as ours does, and a penalty above every multiplier. Prints the seconds of all members' problems in
each round, their ratio, the margins and how far they are apart, and the time of one draw of the permutation null.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from dkd_bench.separation.lss import ensemble_separation, permutation_null

Latents = NDArray[np.float32]


def made_up_latents(images: int, dimension: int, members: int) -> list[Latents]:
    """Return the latents of each member, float32, shape ``(images, dimension)``; separable, by not very much."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, images)
    shared = generator.normal(size=(images, 20))
    made = []
    for _ in range(members):
        means = 2 * generator.normal(size=(10, dimension)) + generator.normal(size=dimension)
        spread = 0.6 * shared @ generator.normal(size=(20, dimension))
        noise = 0.7 * generator.normal(size=(images, dimension))
        made.append(np.maximum(means[labels] + spread + noise, 0).astype(np.float32))
    return made


def plain_svm(latents: list[Latents], penalty: float) -> list[float]:
    """Return the margin of each member against the others, by an SVM on all points."""
    margins = []
    for position, member in enumerate(latents):
        others = np.concatenate(latents[:position] + latents[position + 1 :])
        points = np.concatenate([member, others]).astype(np.float64)
        points -= points.mean(axis=0)
        radius = np.sqrt((points**2).sum(axis=1).mean())
        model = SVC(kernel="linear", C=penalty, tol=1e-4, cache_size=1000)
        model.fit(points / radius, np.arange(len(points)) < len(member))
        margins.append(float(2 / np.linalg.norm(model.coef_) * radius))
    return margins


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--dimension", type=int, default=200)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--penalty", type=float, default=1e4)
    words = parser.parse_args()
    latents = made_up_latents(words.images, words.dimension, words.members)
    print(f"{words.members} members, {words.members * words.images} points in {words.dimension} dimensions")
    ratios = []
    for number in range(1, words.rounds + 1):
        start = perf_counter()
        found = ensemble_separation(latents)
        ours = perf_counter() - start
        start = perf_counter()
        plain = plain_svm(latents, words.penalty)
        theirs = perf_counter() - start
        ratios.append(theirs / ours)
        print(f"round {number}: ours {ours:.2f} s, SVM on all points {theirs:.2f} s, ratio {ratios[-1]:.1f}")
    print(f"median ratio {median(ratios):.1f}")
    for number, (member, expected) in enumerate(zip(found.members, plain, strict=True), start=1):
        if member.margin is None or member.certificate is None:
            print(f"member {number}: no margin, {member.reason}; SVM {expected:.6g}")
            continue
        print(
            f"member {number}: margin {member.margin:.6g}, SVM {expected:.6g}, "
            f"apart {abs(member.margin / expected - 1):.0e}, duality gap {member.certificate.duality_gap:.0e}"
        )
    start = perf_counter()
    null = permutation_null(latents[0], np.concatenate(latents[1:]))
    draws = len(null.margins)
    print(f"null: {(perf_counter() - start) / draws:.3f} s a draw, {null.share_separable:.0%} of {draws} separate")


if __name__ == "__main__":
    main()
