"""Detection performance of an abstaining defence: rates and ROC curves on adversarial images and clean ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
from torch import Tensor

from dkd_bench.defense import Defense
from dkd_bench.records import DetectorRecord
from dkd_bench.target.randomness import isolated_randomness

ROC_POINTS = 50
"""Number of points of a ROC curve that are kept in a record."""


@dataclass(slots=True)
class _Excesses:
    """Excess of one detector over its threshold, image by image."""

    clean: list[float] = field(default_factory=list)
    adversarial: dict[str, list[float]] = field(default_factory=dict)
    """Excesses on adversarial images, by candidate."""


@final
class DetectorTallies:
    """Collector of what the detectors of a defence say of clean images and of those of each candidate."""

    def __init__(self, defense: Defense, *, seed: int) -> None:
        """Ask ``defense``, if it abstains; a random choice inside it is seeded by ``seed``."""
        self._defense = defense
        self._seed = seed
        self._excesses: dict[str, _Excesses] = {}

    def add_clean(self, images: Tensor) -> None:
        """Add the clean images of one chunk, shape ``(N, C, H, W)``: once for all candidates."""
        for detector, excesses in self._rejections(images).items():
            self._excesses.setdefault(detector, _Excesses()).clean.extend(excesses)

    def add(self, candidate: str, images: Tensor) -> None:
        """Add the adversarial images of one candidate and chunk, shape ``(M, C, H, W)``."""
        for detector, excesses in self._rejections(images).items():
            known = self._excesses.setdefault(detector, _Excesses())
            known.adversarial.setdefault(candidate, []).extend(excesses)

    @torch.no_grad()
    def _rejections(self, images: Tensor) -> dict[str, list[float]]:
        if not len(images) or not self._defense.meta.abstains:
            return {}
        with isolated_randomness(self._seed):
            found = self._defense.rejections(images)
        return {detector: excess.double().tolist() for detector, excess in found.items()}

    def records(self) -> tuple[DetectorRecord, ...]:
        """Return one record for each candidate and detector that saw images of both kinds."""
        return tuple(
            _record(candidate, detector, excesses.clean, adversarial)
            for detector, excesses in self._excesses.items()
            for candidate, adversarial in excesses.adversarial.items()
            if excesses.clean
        )


def _record(candidate: str, detector: str, passed: list[float], attacked: list[float]) -> DetectorRecord:
    from sklearn.metrics import auc, roc_curve  # a second of import that no other run waits for

    clean, adversarial = np.array(passed), np.array(attacked)
    truth = np.concatenate([np.zeros(len(clean)), np.ones(len(adversarial))])
    false_positives, true_positives, _ = roc_curve(truth, np.concatenate([clean, adversarial]))
    kept = np.unique(np.linspace(0, len(false_positives) - 1, ROC_POINTS).round().astype(int))
    return DetectorRecord(
        detector=detector,
        candidate=candidate,
        n_clean=len(clean),
        n_adversarial=len(adversarial),
        false_positive_rate=float((clean > 0).mean()),
        true_positive_rate=float((adversarial > 0).mean()),
        auc=float(auc(false_positives, true_positives)),
        roc=tuple((float(false_positives[place]), float(true_positives[place])) for place in kept),
    )
