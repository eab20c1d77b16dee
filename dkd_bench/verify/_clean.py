"""Answers of defences to the clean images, compared with the record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isclose
from typing import final

import numpy as np
from numpy.typing import NDArray

from dkd_bench.defense import ABSTAIN
from dkd_bench.records import DefenseRecord, Interval
from dkd_bench.steps.prepare import Prepared
from dkd_bench.verify._answers import Answers, answers_of
from dkd_bench.verify._intervals import wilson

_EQUAL = 1e-8


@final
class CleanAnswers:
    """Answers of each defence to the clean images, chunk by chunk, asked for once."""

    def __init__(self, prepared: Prepared) -> None:
        """Ask the defences of ``prepared``."""
        self._prepared = prepared
        self._answers: dict[str, list[dict[str, Answers]]] = {}

    def of(self, name: str) -> list[dict[str, Answers]]:
        """Return the answers of defence ``name`` by decision rule, for each chunk."""
        if name not in self._answers:
            defense, seed = self._prepared.subjects.defenses[name].defense, self._prepared.request.seed
            self._answers[name] = [
                answers_of(defense, chunk.images, seed=seed) for chunk in self._prepared.images.chunks()
            ]
        return self._answers[name]

    def rules(self, name: str) -> tuple[str, ...]:
        """Return the decision rules of defence ``name``."""
        return tuple(self.of(name)[0])

    def problems(self, name: str, recorded: DefenseRecord) -> Iterator[str]:
        """Yield a sentence for each share of clean images that is not as recorded."""
        meta = self._prepared.subjects.defenses[name].defense.meta
        truth = np.concatenate([chunk.labels.cpu().numpy() for chunk in self._prepared.images.chunks()])
        by_rule = {rule: np.concatenate([each[rule] for each in self.of(name)], axis=1) for rule in self.rules(name)}
        right = {rule: (answers == truth).mean(axis=0) for rule, answers in by_rule.items()}
        rejected = {rule: (answers == ABSTAIN).mean(axis=0) for rule, answers in by_rule.items() if meta.abstains}
        both = (
            (f"clean accuracy of {name!r}", recorded.clean_accuracy, right),
            (f"share of clean images that {name!r} rejects", recorded.clean_rejected, rejected),
        )
        for what, said, found in both:
            yield from _shares_differ(what, said, found, randomized=meta.randomized)


def _shares_differ(
    what: str, recorded: Mapping[str, Interval], shares: Mapping[str, NDArray[np.float64]], *, randomized: bool
) -> Iterator[str]:
    if recorded.keys() != shares.keys():
        yield f"{what}: expected the rules {', '.join(shares) or 'none'}, got {', '.join(recorded) or 'none'}"
        return
    for rule, said in recorded.items():
        n, found = len(shares[rule]), float(shares[rule].mean())
        low, high = wilson(min(max(said.value, 0.0), 1.0) * n, n)
        if not np.allclose(said.ci95, (low, high), rtol=0, atol=_EQUAL):
            yield f"{what} ({rule}): the interval of {said.value:.6g} is not that of {n} images"
        if not (low <= found <= high if randomized else isclose(said.value, found, rel_tol=0, abs_tol=_EQUAL)):
            yield f"{what} ({rule}) is recorded as {said.value:.6g}, here it is {found:.6g}"
