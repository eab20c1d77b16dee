"""Digests of everything that determines a result: tensors, networks, code, plain values."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_code_digests: dict[type, str] = {}
_FRAMEWORKS = ("torch", "builtins", "abc", "typing")


def digest_json(value: Any) -> str:
    """Return the SHA-256 of ``value`` as canonical JSON (sorted keys, no white space, no NaN)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).hexdigest()


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes, in order of name."""
    hasher = sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        hasher.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        if tensor.numel():
            hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def digest_module(module: nn.Module) -> str:
    """Return a digest of what a network computes: structure, code, weights, buffers and plain attributes.

    Plain attributes are numbers, words, tuples of them and dataclasses, on any part of the network; names that
    begin with an underscore are left out, and so is what a module keeps in lists, dictionaries and closures.
    """
    return digest_json({**_content(module), "code": sorted({code_digest(type(part)) for part in module.modules()})})


def digest_content(module: nn.Module) -> str:
    """Return a digest of what ``digest_module`` looks at but for the code: it stays when code alone changes."""
    return digest_json(_content(module))


def seed_from(value: Any) -> int:
    """Return a seed, in [0, 2**60), that is the same for the same plain ``value`` and another for any other."""
    return int(digest_json(value)[:15], 16)


def _content(module: nn.Module) -> dict[str, Any]:
    return {
        "structure": repr(module),
        "weights": digest_tensors(module.state_dict()),
        "buffers": digest_tensors(dict(module.named_buffers())),
        "attributes": {name: _plain_attributes(part) for name, part in module.named_modules()},
    }


def _plain_attributes(part: nn.Module) -> dict[str, str]:
    plain = (bool, int, float, str, tuple, type(None))
    return {
        name: repr(value)
        for name, value in sorted(vars(part).items())
        if not name.startswith("_") and name != "training" and (isinstance(value, plain) or is_dataclass(value))
    }


def code_digest(cls: type) -> str:
    """Return a digest of the source files that define ``cls`` and its bases, frameworks excepted.

    A plugin whose code changed is another plugin: its cached weights and crafts must not be found again.
    """
    return _code_digests[cls] if cls in _code_digests else _code_digests.setdefault(cls, _digest_of_sources(cls))


def _digest_of_sources(cls: type) -> str:
    parts = {}
    for base in cls.__mro__:
        root = base.__module__.partition(".")[0]
        if root in _FRAMEWORKS:
            continue
        try:
            source_file = inspect.getsourcefile(base)
        except TypeError:
            source_file = None
        if source_file is not None and Path(source_file).is_file():
            parts[base.__qualname__] = sha256(Path(source_file).read_bytes()).hexdigest()
        else:
            parts[base.__qualname__] = base.__module__
    return digest_json(parts)


def library_versions(*distributions: str) -> dict[str, str]:
    """Return the installed versions of ``distributions`` by name."""
    return {name: version(name) for name in sorted(distributions)}


@cache
def package_digest() -> str:
    """Return a digest of the harness's own source: a record must not outlive the code that made it."""
    folder = Path(__file__).parent.parent
    files = sorted(folder.rglob("*.py"))
    return digest_json({str(file.relative_to(folder)): sha256(file.read_bytes()).hexdigest() for file in files})
