import gzip
import hashlib
import io
import os
import pickle
import re
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

from dkd_bench.data import Dataset
from dkd_bench.data.torchvision_sets import load_cifar10, load_fashion_mnist, load_mnist
from dkd_bench.errors import DatasetError
from dkd_bench.store.cache import cache_root

N_TRAIN, N_TEST = 12, 6
STORE = "cache/datasets"


def idx(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything under ``folder``, with its time and size: equal listings mean that nothing was written."""
    found = ((path, path.stat()) for path in folder.rglob("*"))
    return {str(path): (stat.st_mtime_ns, stat.st_size) for path, stat in found}


class Server:
    """Stands in for the internet: answers the addresses whose last part it has, and counts the questions."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []

    def open(self, request: Any) -> Any:
        url = request.full_url
        self.asked.append(url)
        content = self.files.get(url.rpartition("/")[2])
        if content is None:
            raise URLError("no connection")
        return type("Response", (io.BytesIO,), {"url": url, "length": len(content)})(content)


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr("urllib.request.urlopen", server.open)
    return server


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DKD_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def fake_idx_archives(
    monkeypatch: pytest.MonkeyPatch, family: type[MNIST], *, n_test_labels: int = N_TEST
) -> dict[str, bytes]:
    """Small archives in place of the family's own, by path under a root; torchvision is told their MD5s."""
    generator = np.random.default_rng(0)
    archives = {}
    for prefix, n_images, n_labels in (("train", N_TRAIN, N_TRAIN), ("t10k", N_TEST, n_test_labels)):
        images = generator.integers(0, 256, (n_images, 28, 28), dtype=np.uint8)
        archives[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(idx(images), mtime=0)
        labels = np.arange(n_labels, dtype=np.uint8) % 10
        archives[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels), mtime=0)
    monkeypatch.setattr(family, "resources", [(name, md5(content)) for name, content in archives.items()])
    return {f"{family.__name__}/raw/{name}": content for name, content in archives.items()}


@pytest.fixture
def mnist_archives(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    return fake_idx_archives(monkeypatch, MNIST)


def unpacked(archives: dict[str, bytes]) -> dict[str, bytes]:
    return {name.removesuffix(".gz"): gzip.decompress(content) for name, content in archives.items()}


def check_mnist(dataset: Dataset, archives: dict[str, bytes]) -> None:
    for split, prefix, n in ((dataset.train, "train", N_TRAIN), (dataset.test, "t10k", N_TEST)):
        raw = gzip.decompress(archives[f"MNIST/raw/{prefix}-images-idx3-ubyte.gz"])[16:]
        assert split.images.shape == (n, 1, 28, 28)
        assert split.images.numpy().tobytes() == raw
        assert split.labels.tolist() == [label % 10 for label in range(n)]


class TestIdx:
    def test_archives_in_a_data_root_are_used_and_nothing_is_written_there(
        self, root: Path, cache: Path, server: Server, mnist_archives: dict[str, bytes]
    ) -> None:
        write(root, mnist_archives)
        before = listing(root)
        check_mnist(load_mnist(argument=None, root=root), mnist_archives)
        assert listing(root) == before
        assert server.asked == []
        assert sorted(path.name for path in cache.iterdir()) == ["MNIST"], "a temporary folder was left"

    def test_unpacked_once(self, root: Path, cache: Path, mnist_archives: dict[str, bytes]) -> None:
        write(root, mnist_archives)
        first = load_mnist(argument=None, root=root)
        before = listing(cache)
        assert load_mnist(argument=None, root=root).digest() == first.digest()
        assert listing(cache) == before

    def test_unpacked_files_in_a_data_root_need_no_cache(
        self, root: Path, cache: Path, mnist_archives: dict[str, bytes]
    ) -> None:
        write(root, unpacked(mnist_archives))
        before = listing(root)
        check_mnist(load_mnist(argument=None, root=root), mnist_archives)
        assert listing(root) == before
        assert not cache.exists()

    def test_archives_in_the_cache_are_used(
        self, cache: Path, server: Server, mnist_archives: dict[str, bytes]
    ) -> None:
        write(cache, mnist_archives)
        check_mnist(load_mnist(argument=None, root=None), mnist_archives)
        assert server.asked == []

    def test_downloaded_into_the_cache_when_nowhere_to_be_found(
        self, root: Path, server: Server, mnist_archives: dict[str, bytes], capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.files = {Path(name).name: content for name, content in mnist_archives.items()}
        check_mnist(load_mnist(argument=None, root=root), mnist_archives)
        assert listing(root) == {}
        assert capsys.readouterr().out == ""
        server.asked.clear()
        check_mnist(load_mnist(argument=None, root=None), mnist_archives)
        assert server.asked == []

    def test_only_what_is_missing_is_downloaded(
        self, root: Path, server: Server, mnist_archives: dict[str, bytes]
    ) -> None:
        server.files = {Path(name).name: content for name, content in mnist_archives.items()}
        write(root, dict(list(mnist_archives.items())[1:]))
        check_mnist(load_mnist(argument=None, root=root), mnist_archives)
        assert {url.rpartition("/")[2] for url in server.asked} == {"train-images-idx3-ubyte.gz"}

    def test_missing_and_no_connection(self, root: Path, cache: Path, mnist_archives: dict[str, bytes]) -> None:
        expected = (
            r"^dataset 'mnist': expected MNIST/raw/train-images-idx3-ubyte\.gz, .*t10k-labels-idx1-ubyte.gz, "
            rf"or these unpacked, under {re.escape(str(root))}, found none .* into {re.escape(str(cache))} "
            r"\(.*no connection.*\); "
            r"connect and run again, or name the folder that has them with data_root or DKD_BENCH_DATA$"
        )
        with pytest.raises(DatasetError, match=expected):
            load_mnist(argument=None, root=root)
        assert list(cache.iterdir()) == []

    @pytest.mark.parametrize("already_unpacked", [False, True])
    def test_corrupt_archive(
        self, root: Path, server: Server, mnist_archives: dict[str, bytes], *, already_unpacked: bool
    ) -> None:
        name = "MNIST/raw/t10k-images-idx3-ubyte.gz"
        write(root, mnist_archives | {name: b"damaged"})
        if already_unpacked:
            write(cache_root() / "datasets", unpacked(mnist_archives))
        expected = (
            rf"^{re.escape(str(root / name))} is corrupt: "
            rf"expected MD5 {md5(mnist_archives[name])}, got {md5(b'damaged')}; "
            "delete it and run again to download it$"
        )
        with pytest.raises(DatasetError, match=expected):
            load_mnist(argument=None, root=root)
        assert server.asked == []

    def test_truncated_unpacked_file(self, root: Path, mnist_archives: dict[str, bytes]) -> None:
        name = "MNIST/raw/train-images-idx3-ubyte"
        files = unpacked(mnist_archives)
        write(root, files | {name: files[name][:-1]})
        with pytest.raises(
            DatasetError,
            match=rf"^{re.escape(str(root / name))} must be a whole IDX file.*delete it",
        ):
            load_mnist(argument=None, root=root)

    @pytest.mark.parametrize("content", [b"", b"not an IDX file at all", struct.pack(">II", 0xD01, 6) + bytes(24)])
    def test_unpacked_file_of_another_kind(self, root: Path, mnist_archives: dict[str, bytes], content: bytes) -> None:
        name = "MNIST/raw/t10k-labels-idx1-ubyte"
        write(root, unpacked(mnist_archives) | {name: content})
        with pytest.raises(DatasetError, match=rf"^{re.escape(str(root / name))} must be a whole IDX file of uint8"):
            load_mnist(argument=None, root=root)

    def test_labels_and_images_of_unlike_number(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(root, fake_idx_archives(monkeypatch, MNIST, n_test_labels=N_TEST - 1))
        with pytest.raises(DatasetError, match=r"t10k files in .* as labels, got 6 images and 5 labels; delete"):
            load_mnist(argument=None, root=root)

    def test_cache_that_cannot_be_written(self, root: Path, cache: Path, mnist_archives: dict[str, bytes]) -> None:
        write(root, mnist_archives)
        write(cache.parent, {"datasets": b"a file where the folder should be"})
        with pytest.raises(DatasetError, match=r"'mnist' could not be unpacked into .*; set DKD_BENCH_CACHE to a"):
            load_mnist(argument=None, root=root)

    def test_fashion_mnist_is_not_mistaken_for_mnist(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, mnist_archives: dict[str, bytes]
    ) -> None:
        write(root, mnist_archives)
        with pytest.raises(DatasetError, match=r"'fashion-mnist': expected FashionMNIST/raw/train-images"):
            load_fashion_mnist(argument=None, root=root)
        write(root, fake_idx_archives(monkeypatch, FashionMNIST))
        fashion = load_fashion_mnist(argument=None, root=root)
        assert fashion.name == "fashion-mnist"
        assert fashion.default_eps == {"linf": 0.1, "l2": 1.5}

    def test_defaults_fit_the_test_images(self, root: Path, mnist_archives: dict[str, bytes]) -> None:
        write(root, mnist_archives)
        mnist = load_mnist(argument=None, root=root)
        assert mnist.name == "mnist"
        assert mnist.n_classes == 10
        assert mnist.default_n_examples == N_TEST
        assert mnist.default_eps == {"linf": 0.3, "l2": 2.0}


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 2, 3, 32, 32), dtype=np.uint8)
BATCHES = [f"cifar-10-batches-py/{name}" for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)]


class OldDtype:
    """Pickles as NumPy before 1.20 pickled a dtype, with integers that NumPy 2.4.0 to 2.4.4 warn of."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, ("u1", 0, 1)


@pytest.fixture
def cifar10_archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small archive in place of CIFAR-10's own; torchvision is told its MD5s."""
    names = [Path(name).name for name in BATCHES]
    files = {
        name: pickle.dumps({"data": PIXELS[row].reshape(2, -1), "labels": [row, 9], "dtype": OldDtype()}, protocol=2)
        for row, name in enumerate(names)
    }
    files["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")}, protocol=2)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(stream.getvalue()))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(files[name])] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[names[5], md5(files[names[5]])]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(files["batches.meta"])})
    return stream.getvalue()


def check_cifar10(dataset: Dataset) -> None:
    assert dataset.train.images.is_contiguous()
    assert torch.equal(dataset.train.images, torch.from_numpy(PIXELS[:5].reshape(10, 3, 32, 32)))
    assert torch.equal(dataset.test.images, torch.from_numpy(PIXELS[5]))
    assert dataset.train.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert dataset.test.labels.tolist() == [5, 9]


def unpack(archive: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar.getmembers():
            stream = tar.extractfile(member)
            assert stream is not None
            write(folder, {member.name: stream.read()})


class TestCifar10:
    def test_archive_in_a_data_root_is_used_and_nothing_is_written_there(
        self, root: Path, cache: Path, server: Server, cifar10_archive: bytes
    ) -> None:
        write(root, {"cifar-10-python.tar.gz": cifar10_archive})
        before = listing(root)
        check_cifar10(load_cifar10(argument=None, root=root))
        assert listing(root) == before
        assert server.asked == []
        assert [path.name for path in cache.iterdir()] == ["cifar-10-batches-py"]

    def test_unpacked_files_in_a_data_root_need_no_cache(self, root: Path, cache: Path, cifar10_archive: bytes) -> None:
        unpack(cifar10_archive, root)
        check_cifar10(load_cifar10(argument=None, root=root))
        assert not cache.exists()

    def test_downloaded_when_nowhere_to_be_found(self, server: Server, cifar10_archive: bytes) -> None:
        server.files = {"cifar-10-python.tar.gz": cifar10_archive}
        check_cifar10(load_cifar10(argument=None, root=None))

    def test_corrupt_download(self, cache: Path, server: Server, cifar10_archive: bytes) -> None:
        server.files = {"cifar-10-python.tar.gz": cifar10_archive[:-1]}
        with pytest.raises(DatasetError, match=r"'cifar10': expected cifar-10-python\.tar\.gz.*corrupted.*connect"):
            load_cifar10(argument=None, root=None)
        assert list(cache.iterdir()) == []

    def test_corrupt_archive(self, root: Path, cifar10_archive: bytes) -> None:
        write(root, {"cifar-10-python.tar.gz": b"damaged"})
        with pytest.raises(DatasetError, match=rf"cifar-10-python\.tar\.gz is corrupt: .*got {md5(b'damaged')}; del"):
            load_cifar10(argument=None, root=root)

    @pytest.mark.parametrize("name", [*BATCHES, "cifar-10-batches-py/batches.meta"])
    def test_corrupt_batch_is_never_unpickled(self, root: Path, cifar10_archive: bytes, name: str) -> None:
        unpack(cifar10_archive, root)
        write(root, {name: b"cos\nabort\n(tR."})
        with pytest.raises(
            DatasetError,
            match=rf"^{re.escape(str(root / name))} is corrupt: expected MD5 .*; delete it and run",
        ):
            load_cifar10(argument=None, root=root)

    def test_defaults_fit_the_test_images(self, root: Path, cifar10_archive: bytes) -> None:
        unpack(cifar10_archive, root)
        cifar10 = load_cifar10(argument=None, root=root)
        assert cifar10.name == "cifar10"
        assert cifar10.default_n_examples == 2
        assert cifar10.default_eps == {"linf": 8 / 255, "l2": 0.5}


@pytest.mark.parametrize("load", [load_mnist, load_fashion_mnist, load_cifar10])
class TestEveryLoader:
    def test_data_root_that_is_no_folder(self, load: Callable[..., Dataset], tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"data_root \(or DKD_BENCH_DATA\) must be a folder, got .*typo; corr"):
            load(argument=None, root=tmp_path / "typo")

    def test_argument_is_refused(self, load: Callable[..., Dataset]) -> None:
        with pytest.raises(DatasetError, match=r"takes no argument, got 'x'; write dataset "):
            load(argument="x", root=None)


REAL = Path(os.environ["DKD_BENCH_DATA"]) if os.environ.get("DKD_BENCH_DATA") else None


@pytest.mark.skipif(REAL is None or not (REAL / "MNIST" / "raw").is_dir(), reason="needs MNIST in DKD_BENCH_DATA")
def test_real_mnist() -> None:
    mnist = load_mnist(argument=None, root=REAL)
    assert mnist.train.labels.bincount().tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
    assert len(mnist.test) == 10_000
    assert mnist.default_n_examples == 1000
    assert mnist.train.images.double().mean() / 255 == pytest.approx(0.1307, abs=1e-4)
