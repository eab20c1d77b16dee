"""Files are written whole or not at all, and what is read is what was written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from dkd_bench.errors import StoreError
from dkd_bench.store import files as store
from dkd_bench.store.files import (
    TensorStore,
    append_file,
    link_file,
    load_checked,
    load_tensors,
    read_file,
    read_json,
    save_tensors,
    write_file,
    write_json,
)


def failing(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_arguments: Any, **_options: Any) -> NoReturn:
        raise error

    return fail


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
DENIED = PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize("content", ["text, ü", b"\x00\xff"])
def test_write_and_read(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "deep" / "down" / "file"
    write_file(path, content)
    assert read_file(path) == (content.encode() if isinstance(content, str) else content)
    assert names(path.parent) == ["file"]
    write_file(path, "again")
    assert read_file(path) == b"again"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FULL, r"^no space left to write .*file; free some, or choose another out or DKD_BENCH_CACHE$"),
        (DENIED, r"^cannot write .*file: Permission denied$"),
    ],
)
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    path = tmp_path / "file"
    write_file(path, "old")
    monkeypatch.setattr(os, "fsync", failing(error))
    with pytest.raises(StoreError, match=message) as caught:
        write_file(path, "new")
    assert caught.value.__cause__ is error
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["file"]


def test_a_failed_first_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", failing(FULL))
    with pytest.raises(StoreError, match="no space left"):
        write_file(tmp_path / "file", "new")
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), RuntimeError("odd")])
def test_an_interruption_leaves_nothing_and_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "file"
    write_file(path, "old")
    monkeypatch.setattr(os, "fsync", failing(error))
    with pytest.raises(type(error), match="odd" if isinstance(error, RuntimeError) else None) as caught:
        write_file(path, "new")
    assert caught.value is error
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["file"]


def test_an_interruption_as_the_file_is_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Path.open

    def interrupted(path: Path, *arguments: Any, **options: Any) -> NoReturn:
        made(path, *arguments, **options).close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "file", "new")
    assert names(tmp_path) == []


def test_a_name_too_long_for_the_file_system_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^cannot write .*: File name too long$"):
        write_file(tmp_path / ("n" * 255), "new")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    write_file(tmp_path / "file", "old")
    with pytest.raises(StoreError, match=r"^cannot write .*new: "):
        write_file(tmp_path / "file" / "new", "new")


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "file")
    for content in ("first", "again"):
        write_file(link, content)
        assert link.is_symlink()
        assert (tmp_path / "there" / "file").read_text(encoding="utf-8") == content
    assert names(tmp_path / "there") == ["file"]


def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "null").symlink_to("/dev/null")
    before = {name: (tmp_path / name).lstat() for name in names(tmp_path)}
    for name in before:
        for write in (write_file, append_file):
            with pytest.raises(StoreError, match=rf"^cannot write .*{name}: it is there and no regular file; name a"):
                write(tmp_path / name, "new")
    for name, found in before.items():
        assert os.path.samestat((tmp_path / name).lstat(), found)


@pytest.mark.parametrize("piped", [True, False])
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/stderr"])
def test_what_is_printed_to_is_never_replaced(tmp_path: Path, name: str, piped: bool) -> None:
    """A pipe is no regular file; a file that the output is redirected to is one, and would lose what was printed."""
    code = (
        "import sys; from pathlib import Path; from dkd_bench.store.files import write_file, StoreError\n"
        "print('before', flush=True)\n"
        f"try: write_file(Path({name!r}), 'new')\n"
        "except StoreError as error: print(error, flush=True)\n"
    )
    with (tmp_path / "out").open("w+b") as stream:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE if piped else stream,
            stderr=subprocess.STDOUT,
            check=True,
        )
        stream.seek(0)
        printed = (done.stdout if piped else stream.read()).decode()
    why = "it is there and no regular file; name a file" if piped else "what this command prints goes there; name anoth"
    assert printed.startswith(f"before\ncannot write {name}: {why}")


def test_what_is_added_stands_after_an_empty_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    append_file(path, "one\n")
    append_file(path, "two\n")
    assert path.read_text(encoding="utf-8") == "one\n\ntwo\n"
    path.write_text("\n", encoding="utf-8")
    append_file(path, "one\n")
    assert path.read_text(encoding="utf-8") == "one\n"


def test_what_is_added_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_file(tmp_path / "file", "one")
    monkeypatch.setattr(os, "fsync", failing(FULL))
    with pytest.raises(StoreError, match="no space left"):
        append_file(tmp_path / "file", "two")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "one"


def test_a_place_that_may_not_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", failing(DENIED))
    for write in (write_file, append_file):
        with pytest.raises(StoreError, match=r"^cannot write .*file: Permission denied$"):
            write(tmp_path / "file", "new")


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^cannot read .*nowhere: No such file or directory"):
        read_file(tmp_path / "nowhere")


def test_json(tmp_path: Path) -> None:
    write_file(tmp_path / "good.json", '{"a": [1, null]}')
    assert read_json(tmp_path / "good.json") == {"a": [1, None]}
    for damaged in ('{"a": [1, ', "", b"\xff\xfe\x00", "[" * 100_000):
        write_file(tmp_path / "bad.json", damaged)
        with pytest.raises(StoreError, match=r"bad\.json is not JSON \(.*\); it is damaged, delete it and run again"):
            read_json(tmp_path / "bad.json")
    with pytest.raises(StoreError, match=r"cannot read .*none\.json"):
        read_json(tmp_path / "none.json")


TENSORS = {
    "images": torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)),
    "labels": torch.tensor([4, -1]),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 3),
}


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    metadata = {"text": "ü", "number": 0.1, "nothing": None, "nested": {"list": [1, 2]}}
    save_tensors(path, TENSORS, metadata)
    tensors, found = load_tensors(path)
    assert found == metadata
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_tensors_of_any_layout_and_shared_memory(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(2, 3, 2, 2)
    tensors = {"last": whole.to(memory_format=torch.channels_last), "view": whole[:, 1:], "same": whole}
    TensorStore(tmp_path).put("key", tensors)
    found = TensorStore(tmp_path).get("key")
    assert found is not None
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)


def test_metadata_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_tensors(tmp_path / "file", TENSORS, {"accuracy": float("nan")})
    assert names(tmp_path) == []


def test_store_finds_what_it_was_given(tmp_path: Path) -> None:
    kept = TensorStore(tmp_path / "kept")
    assert kept.get("key") is None
    assert kept.get_with_metadata("key") is None
    kept.put("key", TENSORS, {"broken": 3})
    tensors = kept.get("key")
    assert tensors is not None
    assert torch.equal(tensors["images"], TENSORS["images"])
    found = kept.get_with_metadata("key")
    assert found is not None
    assert found[1]["broken"] == 3
    assert names(tmp_path / "kept") == ["key.safetensors"]


@pytest.mark.parametrize("size", [0, 4, 60, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    kept = TensorStore(tmp_path)
    kept.put("key", TENSORS)
    path = kept.path("key")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        StoreError, match=r"key\.safetensors is not a whole safetensors file .*; delete it and run again"
    ):
        kept.get("key")


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    kept = TensorStore(tmp_path)
    kept.put("key", TENSORS)
    path = kept.path("key")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"key\.safetensors should have digest [0-9a-f]{64}, has [0-9a-f]{64}; it was"):
        kept.get("key")


def test_a_file_without_digest_is_refused(tmp_path: Path) -> None:
    save_tensors(tmp_path / "plain.safetensors", TENSORS, {})
    with pytest.raises(StoreError, match=r"plain\.safetensors should have digest None, has "):
        load_checked(tmp_path / "plain.safetensors")


def test_metadata_of_others_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {"format": "pt"})
    with pytest.raises(StoreError, match=r"other\.safetensors is not a whole safetensors file"):
        load_tensors(tmp_path / "other.safetensors")


def test_no_tensors_to_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^no file .*nowhere\.safetensors"):
        load_tensors(tmp_path / "nowhere.safetensors")


def test_link_is_the_same_file(tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "folder" / "destination"
    write_file(source, "content")
    for _ in range(2):
        link_file(source, destination)
        assert destination.samefile(source)
    assert names(tmp_path / "folder") == ["destination"]


def test_link_replaces_another_file(tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    write_file(source, "new")
    write_file(destination, "old")
    link_file(source, destination)
    assert destination.samefile(source)


def test_where_links_do_not_reach_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    write_file(source, "content")
    monkeypatch.setattr(store.os, "link", failing(OSError(errno.EXDEV, os.strerror(errno.EXDEV))))
    link_file(source, destination)
    assert destination.read_bytes() == b"content"
    assert not destination.samefile(source)


def test_a_copy_without_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    write_file(source, "content")
    monkeypatch.setattr(store.os, "link", failing(OSError(errno.EXDEV, os.strerror(errno.EXDEV))))
    monkeypatch.setattr(store.os, "fsync", failing(FULL))
    with pytest.raises(StoreError, match=r"no space left to write .*destination"):
        link_file(source, destination)
    assert names(tmp_path) == ["source"]


def test_a_link_to_nothing_leaves_what_was_there(tmp_path: Path) -> None:
    destination = tmp_path / "destination"
    write_file(destination, "old")
    with pytest.raises(StoreError, match=r"cannot read .*nowhere"):
        link_file(tmp_path / "nowhere", destination)
    assert destination.read_bytes() == b"old"


@pytest.mark.parametrize(
    "value",
    [{}, [], {"a": [1, 2.5, None, "b|ü"], "c": {"d": [[1], [2, 3]], "e": {}}}, [{"g": 1}, {}], [[], {}], "word", 0.1],
)
def test_legible_json_is_json(tmp_path, value):
    write_json(tmp_path / "value.json", value)

    assert read_json(tmp_path / "value.json") == value


def test_legible_json_puts_plain_lists_on_one_line(tmp_path):
    write_json(tmp_path / "value.json", {"outcomes": ["robust"] * 3, "cells": [{"n": 1}]})

    assert (tmp_path / "value.json").read_text() == (
        '{\n "outcomes": ["robust", "robust", "robust"],\n "cells": [\n  {\n   "n": 1\n  }\n ]\n}\n'
    )


def test_legible_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "value.json", {"accuracy": float("nan")})

    assert not (tmp_path / "value.json").exists()
