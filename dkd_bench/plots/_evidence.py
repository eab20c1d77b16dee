"""Evidence of a run as its folder or the cache kept it, with the run's networks: what several figures read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from dkd_bench.budget import Budget
from dkd_bench.data import Chunk
from dkd_bench.errors import EvidenceError
from dkd_bench.records import CellRecord, RunRecord
from dkd_bench.records.evidence import find_evidence
from dkd_bench.records.rundir import evidence_store
from dkd_bench.steps.crafter import crafts_store
from dkd_bench.steps.plan import Trial
from dkd_bench.steps.prepare import Prepared


class LeftOutError(Exception):
    """A picture that cannot be drawn, with the reason; the run's other pictures can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptChunk:
    """Evidence of one chunk under one trial."""

    chunk: Chunk
    images: Mapping[str, Tensor]
    """Target to adversarial images, shape ``(n, C, H, W)``; rows not covered hold the clean image."""
    covered: Tensor
    """Rows whose adversarial image is kept: bool, shape ``(n,)``."""


@final
class RunEvidence:
    """Evidence that is left of a run's crafts, found by the keys in its record."""

    def __init__(self, record: RunRecord, folder: Path, prepared: Prepared) -> None:
        """Look in ``folder``, then in the cache.

        Raises:
            EvidenceError: if images or weights of ``prepared`` are not those of the record.
        """
        self.record = record
        self.folder = folder
        self.prepared = prepared
        self._stores = (evidence_store(folder), crafts_store())
        self._check_ground()

    def trials(self, defense: str) -> list[Trial]:
        """Return the trials of a defence that have a number in the budget they were crafted under."""
        return [
            trial for trial in self.prepared.plan.trials if trial.defense == defense and self._cell(trial) is not None
        ]

    def fixed_first(self, trials: Iterable[Trial]) -> list[Trial]:
        """Return the trials within a budget, then those of minimum-norm attacks."""
        return sorted(trials, key=lambda trial: self.prepared.attacks[trial.attack].meta.kind != "fixed")

    def ground(self) -> str:
        """Return the dataset and the number of images, as titles name them."""
        dataset = self.record.manifest.dataset
        return f"{dataset.name}, n = {dataset.n}"

    def unkept(self, what: str, trial: Trial) -> LeftOutError:
        """Return the error that says of which trial ``what`` would need the evidence, and how to get it."""
        return LeftOutError(
            f"no picture of {what}: {self.folder} did not keep the evidence of {trial.attack} "
            f"({trial.threat_model}), nor did the cache; make it again with --evidence all: "
            f"{self.record.manifest.command}"
        )

    def _cell(self, trial: Trial) -> CellRecord | None:
        """Return a cell of the trial, of whichever rule, in the budget that it was crafted under."""
        wanted = (trial.defense, trial.threat_model, trial.attack, crafted_under(trial))
        for cell in self.record.cells:
            here = (cell.defense, cell.threat_model, cell.attack, Budget(norm=cell.norm, eps=cell.eps))
            if here == wanted and cell.status == "ok":
                return cell
        return None

    def chunks(self, trial: Trial) -> Iterator[KeptChunk]:
        """Yield the kept evidence of a trial, chunk by chunk; raise EvidenceError if it is not the run's."""
        cell = self._cell(trial)
        assert cell is not None, "only trials with a number are drawn"
        chunks = len(cell.evidence) // len(trial.crafts)
        for chunk in self.prepared.images.chunks():
            images: dict[str, Tensor] = {}
            covered = torch.ones(len(chunk.labels), dtype=torch.bool)
            for position, target in enumerate(trial.crafts):
                images[target], rows = self._chunk_evidence(cell.evidence[position * chunks + chunk.number], chunk)
                covered &= rows
            yield KeptChunk(chunk=chunk, images=images, covered=covered)

    def _chunk_evidence(self, key: str, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Return the images kept under ``key`` in the places of their clean ones, and which places those are."""
        kept = find_evidence(self._stores, key)
        if kept is None:
            return chunk.images, torch.zeros(len(chunk.labels), dtype=torch.bool)
        recorded = self.record.evidence.get(key)
        self._expect(f"images of evidence {key}", recorded.sha256 if recorded else "nothing of them", kept.sha256)
        placed = kept.placed(chunk.images, source=f"evidence {key}")
        return placed.images, placed.covered

    def _check_ground(self) -> None:
        """Raise EvidenceError unless images and weights are those of the record."""
        manifest, trained = self.record.manifest, self.prepared.subjects
        self._expect("images", manifest.dataset.digest, trained.dataset_digest)
        self._expect("positions of the images", manifest.dataset.indices, tuple(self.prepared.images.indices.tolist()))
        for name, defense in manifest.defenses.items():
            here = trained.defenses.get(name)
            found = here.sha256 if here else trained.failures.get(name, "there are none")
            self._expect(f"weights of {name!r}", defense.weights_sha256, found)

    def _expect(self, what: str, recorded: object, here: object) -> None:
        if recorded != here:
            raise EvidenceError(
                f"the {what} are not those of {self.folder}: the record says {_short(recorded)}, here it is "
                f"{_short(here)}; draw it where it was made, or make the run again"
            )


def crafted_under(trial: Trial) -> Budget:
    """Return the budget that the trial was crafted under."""
    return next(iter(trial.crafts.values())).budget if trial.crafts else trial.budgets[0]


def attack_and_budget(trial: Trial) -> str:
    """Return the attack of a trial with the budget it was crafted under, as titles name them."""
    return f"{trial.attack} {crafted_under(trial)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
