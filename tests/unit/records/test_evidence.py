"""The file of one craft's adversarial images: whole, or the rows that broke something."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dkd_bench.errors import EvidenceError, StoreError
from dkd_bench.records import EvidenceRecord
from dkd_bench.records.evidence import (
    CraftCost,
    KeptEvidence,
    find_evidence,
    read_evidence,
    write_evidence,
    write_part,
)
from dkd_bench.store.digests import digest_tensors
from dkd_bench.store.files import TensorStore

IMAGES = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(1))
CLEAN = torch.zeros(4, 1, 2, 2)
DIGEST = digest_tensors({"adversarial": IMAGES})
COST = CraftCost(forward_passes=12, backward_passes=8, wall_time_s=0.5, broken=3)


@pytest.fixture
def store(tmp_path: Path) -> TensorStore:
    return TensorStore(tmp_path / "evidence")


@pytest.fixture
def crafted(store: TensorStore) -> TensorStore:
    write_evidence(store, "key", IMAGES, attack="pgd", cost=COST)
    return store


def read(store: TensorStore) -> KeptEvidence:
    kept = read_evidence(store, "key")
    assert kept is not None
    return kept


def recorded(sha256: str) -> EvidenceRecord:
    return EvidenceRecord(sha256=sha256, target="net", attack="pgd", norm="linf", eps=0.1, chunk=0, n=4)


class TestWhole:
    def test_what_was_written_is_read(self, crafted: TensorStore) -> None:
        kept = read(crafted)
        assert torch.equal(kept.images, IMAGES)
        assert (kept.rows, kept.sha256, kept.cost) == (None, DIGEST, COST)

    def test_the_file_is_as_in_older_versions(self, crafted: TensorStore) -> None:
        found = crafted.get_with_metadata("key")
        assert found is not None
        assert list(found[0]) == ["adversarial"]
        assert found[1] == {
            "attack": "pgd",
            "broken": 3,
            "forward_passes": 12,
            "backward_passes": 8,
            "wall_time_s": 0.5,
            "sha256": DIGEST,
        }

    def test_it_covers_every_image(self, crafted: TensorStore) -> None:
        placed = read(crafted).placed(CLEAN, source="evidence")
        assert torch.equal(placed.images, IMAGES)
        assert placed.covered.all()

    def test_images_just_made_have_the_digest_of_the_file(self, crafted: TensorStore) -> None:
        assert KeptEvidence.whole(IMAGES).sha256 == read(crafted).sha256

    def test_another_tensor_beside_the_images_is_no_part_of_their_digest(self, store: TensorStore) -> None:
        store.put("key", {"adversarial": IMAGES, "more": CLEAN})
        assert (read(store).sha256, read(store).cost) == (DIGEST, None)


class TestPart:
    @pytest.fixture
    def part(self, crafted: TensorStore, tmp_path: Path) -> TensorStore:
        store = TensorStore(tmp_path / "part")
        write_part(store, "key", read(crafted), [1, 3])
        return store

    def test_it_has_its_rows_and_the_digest_of_the_whole(self, part: TensorStore) -> None:
        kept = read(part)
        assert kept.rows is not None
        assert kept.rows.tolist() == [1, 3]
        assert torch.equal(kept.images, IMAGES[[1, 3]])
        assert (kept.sha256, kept.cost) == (DIGEST, None)

    def test_clean_images_stand_where_none_is_kept(self, part: TensorStore) -> None:
        placed = read(part).placed(CLEAN, source="evidence")
        assert placed.covered.tolist() == [False, True, False, True]
        assert torch.equal(placed.images[[1, 3]], IMAGES[[1, 3]])
        assert torch.equal(placed.images[[0, 2]], CLEAN[[0, 2]])

    @pytest.mark.parametrize("rows", [[3, 1], [1, 1], [1, 4], [-1, 2], [1], [1.0, 3.0]])
    def test_rows_that_make_no_sense_are_refused(self, store: TensorStore, rows: list[float]) -> None:
        store.put("key", {"adversarial": IMAGES[:2], "rows": torch.tensor(rows)}, {"of_sha256": DIGEST})
        with pytest.raises(
            EvidenceError, match=r"evidence 7: expected as many torch\.float32 images as rows, in order"
        ):
            read(store).placed(CLEAN, source="evidence 7")

    def test_the_whole_is_preferred_wherever_it_is(self, part: TensorStore, crafted: TensorStore) -> None:
        for stores in ((part, crafted), (crafted, part)):
            kept = find_evidence(stores, "key")
            assert kept is not None
            assert kept.rows is None

    def test_a_part_is_better_than_nothing(self, part: TensorStore, tmp_path: Path) -> None:
        kept = find_evidence((TensorStore(tmp_path / "empty"), part), "key")
        assert kept is not None
        assert kept.rows is not None


def test_what_is_not_there_is_none(store: TensorStore) -> None:
    assert read_evidence(store, "key") is None
    assert find_evidence((store,), "key") is None


def test_a_file_without_adversarial_images_is_refused(store: TensorStore) -> None:
    store.put("key", {"clean": CLEAN})
    with pytest.raises(EvidenceError, match=r"key\.safetensors: expected a tensor 'adversarial', the file has clean"):
        read_evidence(store, "key")
    with pytest.raises(EvidenceError, match="evidence 7: expected a tensor 'adversarial'"):
        read_evidence(store, "key", source="evidence 7")


def test_a_changed_file_is_refused(crafted: TensorStore) -> None:
    data = bytearray(crafted.path("key").read_bytes())
    data[-1] ^= 1
    crafted.path("key").write_bytes(data)
    with pytest.raises(StoreError, match="should have digest"):
        read_evidence(crafted, "key")


def test_the_difference_from_a_record_is_told(crafted: TensorStore) -> None:
    assert read(crafted).difference_from(recorded(DIGEST)) is None
    assert read(crafted).difference_from(recorded("0" * 64)) == f"expected digest {'0' * 64}, got {DIGEST}"
