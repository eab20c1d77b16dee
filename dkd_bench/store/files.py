"""Reading and writing of files, nowhere else done: atomically, never pickles, always with a digest."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkd_bench.errors import FieldName, StoreError

if TYPE_CHECKING:
    from torch import Tensor


def write_file(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path`` whole or not at all: a temporary file in the same folder, then a rename.

    A link stays, and what it leads to is written.

    Raises:
        StoreError: if the file cannot be written, or ``path`` is a folder, a device or what this process prints to;
            what was there before is still there.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        target = _regular(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Named before it is there, so that an interruption at any point finds it.
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            # On disk before the rename: else a power failure could leave an empty file under the final name.
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from error
        raise


def append_file(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` after what is there, with an empty line between; the whole or nothing.

    Raises:
        StoreError: as ``write_file``, and if what is there cannot be read.
    """
    try:
        target = _regular(path)
        before = read_file(target).rstrip(b"\n") if target.exists() else b""
    except OSError as error:
        raise _cannot_write(path, error) from error
    write_file(path, (before + b"\n\n" if before else b"") + text.encode())


def link_file(source: Path, destination: Path) -> None:
    """Make ``destination`` the same file as ``source``: a hard link, or a copy where links cannot reach.

    Raises:
        StoreError: if ``source`` cannot be read or ``destination`` written; what was there before is still there.
    """
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    try:
        if destination.exists() and destination.samefile(source):
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, temporary)
        temporary.replace(destination)
    except OSError:
        write_file(destination, read_file(source))
    finally:
        temporary.unlink(missing_ok=True)


def delete_file(path: Path) -> None:
    """Delete ``path`` if it is there; raise StoreError if it cannot be deleted."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot delete {path}: {error.strerror}") from error


def read_file(path: Path) -> bytes:
    """Return the bytes of ``path``.

    Raises:
        StoreError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """Return the JSON value in ``path``.

    Raises:
        StoreError: if it cannot be read, or is not JSON.
    """
    try:
        return json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not JSON ({error}); it is damaged, delete it and run again") from error


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON for people too: indented, but a list of plain values on one line.

    Raises:
        StoreError: if the file cannot be written.
    """
    write_file(path, _legible(value, "\n") + "\n")


def _legible(value: Any, line_break: str) -> str:
    inside = line_break + " "
    if isinstance(value, dict) and value:
        parts = [f"{json.dumps(name)}: {_legible(each, inside)}" for name, each in value.items()]
        return "{" + inside + ("," + inside).join(parts) + line_break + "}"
    if isinstance(value, (list, tuple)) and any(isinstance(each, (dict, list, tuple)) for each in value):
        return "[" + inside + ("," + inside).join(_legible(each, inside) for each in value) + line_break + "]"
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors as safetensors, with ``metadata`` as JSON values in the header.

    Raises:
        StoreError: if the file cannot be written.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_file(path, save(plain, {name: json.dumps(value, allow_nan=False) for name, value in metadata.items()}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        StoreError: if it cannot be read, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise StoreError(f"no file {path}")
    try:
        with safe_open(path, framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            metadata = {name: json.loads(value) for name, value in (stream.metadata() or {}).items()}
    except (SafetensorError, ValueError, OSError) as error:
        raise StoreError(f"{path} is not a whole safetensors file ({error}); delete it and run again") from error
    return tensors, metadata


@dataclass(frozen=True, slots=True)
class TensorStore:
    """Folder of tensors under content keys, each with the digest of what it holds."""

    folder: Path

    def path(self, key: str) -> Path:
        """Return where the tensors of ``key`` are, or would be."""
        return self.folder / f"{key}.safetensors"

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return the tensors of ``key``, or ``None`` if there are none.

        Raises:
            StoreError: if the file is damaged or its digest is wrong.
        """
        found = self.get_with_metadata(key)
        return None if found is None else found[0]

    def get_with_metadata(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and metadata of ``key``, or ``None``; raise StoreError as ``get``."""
        if not self.path(key).is_file():
            return None
        return load_checked(self.path(key))

    def put(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
        """Keep ``tensors`` under ``key``; raise StoreError if they cannot be written."""
        from dkd_bench.store.digests import digest_tensors

        save_tensors(self.path(key), tensors, {**(metadata or {}), "sha256": digest_tensors(tensors)})


def load_checked(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and metadata of a file whose header states their digest.

    Raises:
        StoreError: if the file is damaged, or its digest is not the one it states.
    """
    from dkd_bench.store.digests import digest_tensors

    tensors, metadata = load_tensors(path)
    found = digest_tensors(tensors)
    if metadata.get("sha256") != found:
        raise StoreError(
            f"{path} should have digest {metadata.get('sha256')}, has {found}; it was changed, delete it and run again"
        )
    return tensors, metadata


def _regular(path: Path) -> Path:
    """Return the file that ``path`` leads to, which need not exist.

    Raises:
        StoreError: if something else is there than a file of its own.
        OSError: if that cannot be found out.
    """
    target = Path(os.path.realpath(path))
    if target.is_symlink() or (path.exists() and not path.is_file()):
        raise StoreError(f"cannot write {path}: it is there and no regular file; name a file")
    if path.exists() and any(_is_open_as(path, descriptor) for descriptor in (1, 2)):
        raise StoreError(f"cannot write {path}: what this command prints goes there; name another file")
    return target


def _is_open_as(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:  # it is closed
        return False


def _cannot_write(path: Path, error: OSError) -> StoreError:
    if error.errno == errno.ENOSPC:
        return StoreError(
            f"no space left to write {path}; free some, or choose another ", FieldName("out"), " or DKD_BENCH_CACHE"
        )
    return StoreError(f"cannot write {path}: {error.strerror}")
