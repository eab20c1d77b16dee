"""Which evidence a run keeps: of two crafts on five images in two chunks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dkd_bench.records import (
    CellRecord,
    DatasetRecord,
    EvidenceRecord,
    Manifest,
    Outcome,
    RunRecord,
)
from dkd_bench.steps.request import KeepEvidence
from dkd_bench.steps.retention import keep_evidence
from dkd_bench.store.digests import digest_tensors
from dkd_bench.store.files import TensorStore

R, F, M, A, C = Outcome.ROBUST, Outcome.FOOLED, Outcome.FAILED_MAJORITY, Outcome.ABSTAINED, Outcome.CLEAN_ERROR
SIZES = (3, 2)
KEYS = ("first-0", "first-1", "second-0", "second-1")


def a_cell(*outcomes: Outcome, evidence: tuple[str, ...], decision: str = "majority") -> CellRecord:
    survived = sum(outcome in (R, A) for outcome in outcomes) / 5
    return CellRecord(
        defense="dkd",
        decision=decision,
        dataset="digits",
        threat_model="standalone",
        attack="pgd",
        norm="linf",
        eps=0.1,
        n=5,
        clean_accuracy=1.0,
        robust_accuracy=survived,
        mean_robust_accuracy=survived,
        ci95=(0.0, 1.0),
        failed_majorities=0,
        abstained=0,
        status="ok",
        wall_time_s=0.0,
        forward_passes=0,
        evidence=evidence,
        fooling_norms=None,
        outcomes=outcomes,
        candidates=(),
    )


def an_error() -> CellRecord:
    numbers = ("clean_accuracy", "robust_accuracy", "mean_robust_accuracy", "ci95", "failed_majorities", "abstained")
    nothing: dict[str, object] = dict.fromkeys(numbers)
    return a_cell(evidence=()).model_copy(update={**nothing, "status": "error", "reason": "out of memory"})


def a_record(*cells: CellRecord, complete: bool = True) -> RunRecord:
    return RunRecord(
        complete=complete,
        suite={},
        suite_fingerprint="",
        manifest=Manifest(
            versions={},
            device="cpu",
            seed=0,
            recipe="fast",
            dataset=DatasetRecord(name="digits", digest="", n=5, indices=tuple(range(5))),
            defenses={},
            plan_digest="",
            request={},
            command="",
        ),
        evidence={
            key: EvidenceRecord(
                sha256="",
                target=key[:-2],
                attack="pgd",
                norm="linf",
                eps=0.1,
                chunk=int(key[-1]),
                n=SIZES[int(key[-1])],
            )
            for key in KEYS
        },
        cells=cells,
    )


ORDER = ("first-0", "first-1", "second-0", "second-1")
BOTH = a_cell(R, F, C, M, R, evidence=ORDER)
BOOSTED = a_cell(F, R, C, A, R, evidence=ORDER, decision="boosted")
FIRST_ALONE = a_cell(R, R, R, R, F, evidence=("first-0", "first-1"))


@pytest.fixture
def crafts(tmp_path: Path) -> TensorStore:
    made = TensorStore(tmp_path / "crafts")
    for number, key in enumerate(KEYS):
        made.put(key, {"adversarial": images(key, number)})
    return made


@pytest.fixture
def kept(tmp_path: Path) -> TensorStore:
    return TensorStore(tmp_path / "kept")


def images(key: str, number: int) -> Tensor:
    n = SIZES[int(key[-1])]
    return torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(number))


def present(store: TensorStore) -> set[str]:
    return {path.stem for path in store.folder.glob("*")}


def test_all_is_kept_without_copies(crafts: TensorStore, kept: TensorStore) -> None:
    keep_evidence(a_record(BOTH), crafts, kept, keep="all")
    assert present(kept) == present(crafts) == set(KEYS)
    for key in KEYS:
        assert kept.path(key).samefile(crafts.path(key))


def test_none_is_kept(crafts: TensorStore, kept: TensorStore) -> None:
    keep_evidence(a_record(BOTH), crafts, kept, keep="none")
    assert present(kept) == present(crafts) == set()


@pytest.mark.parametrize("keep", ["broken", "none"])
def test_an_incomplete_run_goes_on_from_its_crafts(crafts: TensorStore, kept: TensorStore, keep: KeepEvidence) -> None:
    keep_evidence(a_record(BOTH, an_error(), complete=False), crafts, kept, keep=keep)
    assert present(crafts) == set(KEYS)


@pytest.mark.parametrize(
    ("cells", "rows"),
    [
        pytest.param([BOTH], {"first-0": [1], "first-1": [0], "second-0": [1], "second-1": [0]}, id="one cell"),
        pytest.param([FIRST_ALONE], {"first-1": [1]}, id="one craft"),
        pytest.param(
            [BOTH, BOOSTED, FIRST_ALONE],
            {"first-0": [0, 1], "first-1": [0, 1], "second-0": [0, 1], "second-1": [0]},
            id="several cells",
        ),
        pytest.param([a_cell(R, A, C, R, C, evidence=ORDER)], {}, id="nothing broken"),
        pytest.param([an_error()], {}, id="error"),
    ],
)
def test_of_the_broken_their_rows_are_kept(
    crafts: TensorStore, kept: TensorStore, cells: list[CellRecord], rows: dict[str, list[int]]
) -> None:
    keep_evidence(a_record(*cells), crafts, kept, keep="broken")
    assert present(kept) == set(rows)
    assert present(crafts) == set()
    for key, wanted in rows.items():
        found = kept.get_with_metadata(key)
        assert found is not None
        tensors, metadata = found
        whole = images(key, KEYS.index(key))
        assert tensors["rows"].tolist() == wanted
        assert torch.equal(tensors["adversarial"], whole[wanted])
        assert metadata["of_sha256"] == digest_tensors({"adversarial": whole})
