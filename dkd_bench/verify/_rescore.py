"""Re-scoring of the images that a threat model derives from evidence; these are checked, not trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkd_bench.budget import Budget
from dkd_bench.data import Chunk
from dkd_bench.errors import EvidenceError
from dkd_bench.steps.plan import Trial
from dkd_bench.steps.prepare import Prepared
from dkd_bench.verify._answers import CandidateAnswers, Rescored, candidate_answers
from dkd_bench.verify._clean import CleanAnswers
from dkd_bench.verify._evidence import EvidenceReader
from dkd_bench.verify._images import fault_of


@final
class Rescorer:
    """Scorer of a defence's answers to candidates, as they are and rounded to 8 bits."""

    def __init__(self, prepared: Prepared, reader: EvidenceReader, clean: CleanAnswers) -> None:
        """Take evidence from ``reader``."""
        self._prepared = prepared
        self._reader = reader
        self._clean = clean

    def rescored(self, trial: Trial, budget: Budget) -> list[dict[str, Rescored]]:
        """Return the answers by decision rule chunk by chunk; none if some evidence is refused.

        Raises:
            EvidenceError: if an image that the threat model derives from the evidence is not inside ``budget``.
        """
        parts: list[dict[str, Rescored]] = []
        for chunk in self._prepared.images.chunks():
            kept = {name: self._reader.kept(craft, chunk) for name, craft in trial.crafts.items()}
            whole = {name: each for name, each in kept.items() if each is not None}
            if len(whole) < len(kept):
                return []
            covered = torch.stack([each.covered for each in whole.values()]).all(dim=0).numpy()
            crafted = {name: each.images.to(chunk.images.device) for name, each in whole.items()}
            parts.append(self._chunk_rescored(trial, budget, chunk, crafted, covered))
            first, last = (
                {rule: list(each.candidates) for rule, each in part.items()} for part in (parts[0], parts[-1])
            )
            if first != last:
                raise EvidenceError(f"chunk {chunk.number} has other candidates than the first: {last} beside {first}")
        return parts

    def _chunk_rescored(
        self, trial: Trial, budget: Budget, chunk: Chunk, crafted: Mapping[str, Tensor], covered: NDArray[np.bool_]
    ) -> dict[str, Rescored]:
        defense = self._prepared.subjects.defenses[trial.defense].defense
        threat_model = self._prepared.threat_models[trial.threat_model]
        clean = self._clean.of(trial.defense)[chunk.number]
        answers: dict[str, dict[str, CandidateAnswers]] = {rule: {} for rule in clean}
        for name, images in threat_model.candidates(chunk.images, crafted, budget):
            fault = fault_of(chunk.images, images, budget)
            if fault is not None:
                raise EvidenceError(f"candidate {name!r}, chunk {chunk.number}: {fault}")
            seed, norm = self._prepared.request.seed, budget.norm
            for rule, each in candidate_answers(defense, chunk, clean, images, norm=norm, seed=seed).items():
                answers[rule][name] = each
        return {rule: Rescored(candidates=each, covered=covered) for rule, each in answers.items()}
