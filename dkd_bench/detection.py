"""How well the detectors of an abstaining defence tell adversarial images from clean ones: rates and ROC curves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
from torch import Tensor

from dkd_bench.defense import Defense
from dkd_bench.randomness import isolated_randomness
from dkd_bench.records import DetectorRecord

ROC_POINTS = 50
"""Points of a ROC curve that are kept in a record."""


@dataclass(slots=True)
class _Excesses:
    """By how much one detector rejects, image by image."""

    clean: list[float] = field(default_factory=list)
    adversarial: list[float] = field(default_factory=list)


@final
class DetectorTallies:
    """Collects what the detectors of a defence say of clean images and of those of each candidate."""

    def __init__(self, defense: Defense, *, seed: int) -> None:
        """Ask ``defense``, if it abstains; a random choice inside it is seeded by ``seed``."""
        self._defense = defense
        self._seed = seed
        self._excesses: dict[tuple[str, str], _Excesses] = {}

    def add(self, candidate: str, *, clean: Tensor, adversarial: Tensor) -> None:
        """Add the images of one chunk, shapes ``(N, C, H, W)`` and ``(M, C, H, W)``."""
        if not self._defense.meta.abstains:
            return
        for kind, images in (("clean", clean), ("adversarial", adversarial)):
            for detector, excess in self._rejections(images).items():
                excesses = self._excesses.setdefault((candidate, detector), _Excesses())
                getattr(excesses, kind).extend(excess.double().cpu().tolist())

    @torch.no_grad()
    def _rejections(self, images: Tensor) -> dict[str, Tensor]:
        if not len(images):
            return {}
        with isolated_randomness(self._seed):
            return dict(self._defense.rejections(images))

    def records(self) -> tuple[DetectorRecord, ...]:
        """Return one record for each candidate and detector that saw images of both kinds."""
        return tuple(
            _record(candidate, detector, excesses)
            for (candidate, detector), excesses in self._excesses.items()
            if excesses.clean and excesses.adversarial
        )


def _record(candidate: str, detector: str, excesses: _Excesses) -> DetectorRecord:
    from sklearn.metrics import auc, roc_curve  # a second of import that no other run waits for

    clean, adversarial = np.array(excesses.clean), np.array(excesses.adversarial)
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
