"""Replay of a reference's evidence on another run's weights, to tell a weaker defence from a stronger attack.

What it can show: images that the old defence stood and the new one falls for, though nobody made them for it. That is
a weaker defence. What it cannot: that the new one is as strong. Images made for old weights harm new ones less, so
surviving them says little; a defence that is weak only to attacks on itself goes unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import final

from torch import Tensor

from dkd_bench.check._records import Reference, ReferenceCell
from dkd_bench.data import Chunk
from dkd_bench.errors import ConfigError, DatasetError, EvidenceError, FieldName, PluginError, Sentence, StoreError
from dkd_bench.progress import Progress
from dkd_bench.records import CellKey, Fraction, RunRecord
from dkd_bench.records.evidence import read_evidence
from dkd_bench.records.rundir import evidence_store
from dkd_bench.steps.crafter import crafts_store
from dkd_bench.steps.prepare import Prepared, prepare
from dkd_bench.steps.request import DeviceName, RunRequest
from dkd_bench.steps.scoring import TrialScorer, decided
from dkd_bench.store.files import TensorStore


@final
class EvidenceReplay:
    """Finder of the old evidence by its keys, which scores it on a run's weights, loaded when first asked."""

    def __init__(
        self,
        reference: Reference,
        record: RunRecord,
        *,
        folders: Sequence[Path],
        device: DeviceName,
        data_root: Path | None,
        progress: Progress,
    ) -> None:
        """Look in ``folders``, those of runs or of evidence, then among the crafts in the cache.

        Raises:
            ConfigError: if one of ``folders`` is none.
        """
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(
                    FieldName("evidence"), f" {folder} is no folder; name the folder of a run, or one of evidence"
                )
        self._reference = reference
        self._record = record
        self._stores = [store for folder in folders for store in (evidence_store(folder), TensorStore(folder))]
        self._stores.append(crafts_store())
        self._device = device
        self._data_root = data_root
        self._progress = progress
        self._scored: dict[tuple[CellKey, int], Mapping[str, tuple[Fraction, ...]]] = {}

    def __call__(self, cell: ReferenceCell, run: int) -> tuple[Fraction, ...]:
        """Return for each image the share of draws that the new defence survives of what run ``run`` crafted.

        Raises:
            EvidenceError: if the evidence is not at hand whole, or is not the reference's, or the run's images and
                weights cannot be had.
            PluginError: if the defence fails.
        """
        key = (cell.key.model_copy(update={"decision": ""}), run)
        if key not in self._scored:
            self._scored[key] = self._score(cell, run)
        by_rule = self._scored[key]
        if cell.key.decision not in by_rule:
            raise EvidenceError(f"{cell.key.defense!r} has no decision rule {cell.key.decision!r} any more")
        return by_rule[cell.key.decision]

    def _score(self, cell: ReferenceCell, run: int) -> Mapping[str, tuple[Fraction, ...]]:
        """Return the shares under every decision rule."""
        crafts = [self._images(cell, run, places) for places in cell.runs[run].evidence]
        if not crafts:
            raise EvidenceError(f"the reference names no evidence of {cell.key}")
        defense = self._prepared.subjects.defenses[cell.key.defense].defense
        seed = self._prepared.request.seed
        scorer = TrialScorer(defense, self._prepared.threat_models[cell.key.threat_model], cell.key.budget, seed=seed)
        start = 0
        for number, images in enumerate(zip(*crafts, strict=True)):
            chunk = self._chunk(number, start, len(images[0]))
            crafted = {f"target {place}": each.to(chunk.images.device) for place, each in enumerate(images, start=1)}
            scorer.add(chunk, decided(defense, chunk.images, seed=seed), crafted)
            start += len(images[0])
        if start != len(self._prepared.images):
            raise EvidenceError(f"the evidence of {cell.key} is of {start} images, not of {len(self._prepared.images)}")
        return {rule: score.images.shares for rule, score in scorer.scores().items()}

    @cached_property
    def _preparation(self) -> Prepared | EvidenceError:
        """Networks and images of the run, or why they cannot be had: tried once for all cells."""
        manifest = self._record.manifest
        request = RunRequest.from_json(manifest.request, device=self._device, data_root=self._data_root)
        try:
            prepared = prepare(request, self._progress)
        except (DatasetError, PluginError, StoreError) as error:
            return EvidenceError("the run's weights cannot be had here: ", error.sentence)
        here = (prepared.subjects.dataset_digest, tuple(prepared.images.indices.tolist()))
        if here != (manifest.dataset.digest, manifest.dataset.indices):
            return EvidenceError("the images here are not those of the run; check where it was made")
        for name, defense in manifest.defenses.items():
            trained = prepared.subjects.defenses.get(name)
            if trained is None or trained.sha256 != defense.weights_sha256:
                return EvidenceError(f"the weights of {name!r} here are not those of the run; check where it was made")
        return prepared

    @property
    def _prepared(self) -> Prepared:
        if isinstance(self._preparation, EvidenceError):
            raise self._preparation
        return self._preparation

    def _chunk(self, number: int, start: int, n: int) -> Chunk:
        images, labels = self._prepared.subjects.dataset.test.batch(self._prepared.images.indices[start : start + n])
        device = self._prepared.subjects.device
        return Chunk(number=number, images=images.to(device), labels=labels.to(device))

    def _images(self, cell: ReferenceCell, run: int, places: Sequence[int]) -> list[Tensor]:
        """Return the adversarial images on one target, chunk by chunk."""
        evidence = self._reference.runs[run].evidence
        return [self._find(*evidence[place], of=cell.key) for place in places]

    def _find(self, key: str, sha256: str, *, of: CellKey) -> Tensor:
        problem = Sentence(
            f"the old evidence of {of} is not at hand; name the folder that has it with ", FieldName("evidence")
        )
        for store in self._stores:
            try:
                kept = read_evidence(store, key)
            except (EvidenceError, StoreError) as error:
                problem = error.sentence
                continue
            if kept is None:
                continue
            if kept.rows is not None:
                problem = Sentence(f"of the old evidence of {of} only the images that broke something were kept")
            elif kept.sha256 != sha256:
                told = f"{store.path(key)} should be the evidence with digest {sha256}, has {kept.sha256}"
                problem = Sentence(told)
            else:
                return kept.images
        raise EvidenceError(problem)
