"""Digests of what determines a result: tensors, networks, plain values; of code, see ``code``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dkd_bench.store.code import code_digest

if TYPE_CHECKING:
    from torch import Tensor, nn


def digest_json(value: Any) -> str:
    """Return the SHA-256 of ``value`` as canonical JSON (sorted keys, no white space, no NaN)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).hexdigest()


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes, in order of name."""
    import torch  # here, since a plan takes digests of plain values without it

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


def library_versions(*distributions: str) -> dict[str, str]:
    """Return the installed versions of ``distributions`` by name."""
    return {name: version(name) for name in sorted(distributions)}
