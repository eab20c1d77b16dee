"""Pretrained networks: their weights are read from files that others made, and no code in them is run."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dkd_bench.api import ImageSpec, PluginError, Progress, Recipe, SingleNetwork, TrainingSet

_PREFERRED = ("state_dict", "last")
"""Names of a checkpoint's entry for the weights, if several of its entries are state dicts."""
_SNIFFED_BYTES = 512
_MOST_NAMES = 3


class Pretrained(SingleNetwork):
    """Network that comes trained; authors pass it to ``adopt`` when they build."""

    channels_last = True
    """Whether the network answers in channels-last order, in which defences are attacked: ``view`` may not."""

    def fit(self, data: TrainingSet, *, recipe: Recipe, generator: torch.Generator, progress: Progress) -> None:
        """Do nothing: the network comes trained."""

    def adopt(self, network: nn.Module) -> None:
        """Make ``network`` the defence's own.

        Raises:
            PluginError: if it does not answer the dataset's images with one logit for each class.
        """
        self.network = network.cpu().eval()
        check_network(self.network, self.images, owner=self.meta.name)
        try:
            self.network.to(memory_format=torch.channels_last)
            check_network(self.network, self.images, owner=self.meta.name)
        except (PluginError, RuntimeError):
            self.channels_last = False
            self.network.to(memory_format=torch.contiguous_format)

    def to(self, *args: Any, **kwargs: Any) -> Pretrained:
        """Move as every module does, except to an order in which the network does not answer."""
        if not self.channels_last:
            kwargs.pop("memory_format", None)
        return super().to(*args, **kwargs)


@torch.no_grad()
def check_network(network: nn.Module, images: ImageSpec, *, owner: str) -> None:
    """Ask a network about two gray images of the dataset's shape.

    Raises:
        PluginError: if it fails, changes the images, or gives anything but logits ``(2, K)``; names the owner.
    """
    shape = f"{images.channels} x {images.height} x {images.width}"
    shown = torch.full((2, images.channels, images.height, images.width), 0.5)
    try:
        logits = network(shown)
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise PluginError(
            f"the network of {owner!r} fails on the dataset's images, {shape} (channels x height x width): {cause}; "
            "choose the --dataset that it was made for"
        ) from error
    if not isinstance(logits, Tensor):
        raise PluginError(f"the network of {owner!r} must return logits as a tensor, got {type(logits).__name__}")
    if logits.ndim != 2 or len(logits) != len(shown):
        raise PluginError(
            f"the network of {owner!r} must return logits of shape {(len(shown), images.n_classes)} for {len(shown)} "
            f"images of {shape}, got {tuple(logits.shape)}"
        )
    if logits.shape[1] != images.n_classes:
        raise PluginError(
            f"the network of {owner!r} must return {images.n_classes} logits for each image, one for each class of "
            f"the dataset, got {logits.shape[1]}"
        )
    if not (shown == 0.5).all():
        raise PluginError(f"the network of {owner!r} changes the images that it is given; write x = x - mean, not x -=")


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict in ``path``, safetensors by its suffix, else as ``torch.save`` writes it; no code is run.

    A checkpoint that holds one state dict among other things stands for it.

    Raises:
        PluginError: if the file is not there, is something else, is damaged, or needs code to be run.
    """
    found = found_instead(path)
    if found:
        raise PluginError(f"{path} is {found}, not weights; fetch it again, in a browser if need be")
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else _without_code(path)
    except SafetensorError as error:
        raise PluginError(f"{path} is not a whole safetensors file: {error}; fetch it again") from error
    except UnpicklingError as error:
        culprit = re.search(r"GLOBAL (\S+)", str(error))
        raise PluginError(
            f"{path} {f'holds {culprit[1]}' if culprit else 'is a pickle'}, which takes running code to load, so it is "
            "refused; where you trust it, keep its tensors alone: torch.save(network.state_dict(), FILE)"
        ) from error
    except Exception as error:  # A damaged pickle raises whatever its reader stumbles over.
        cause = f"{error}".partition("\n")[0] or "it ends too soon"
        why = "a TorchScript archive" if "TorchScript" in cause else f"damaged or truncated ({cause})"
        raise PluginError(f"{path} is {why}; expected a state dict as torch.save writes it") from error
    return _state_dict_in(tensors, path)


def found_instead(path: Path) -> str:
    """Return the kind of a file that cannot hold weights, such as a web page; empty for one that may.

    Raises:
        PluginError: if it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_SNIFFED_BYTES)
    except OSError as error:
        raise PluginError(f"cannot read weights from {path}: {error.strerror}") from error
    if not head:
        return "an empty file"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS"
    is_known = path.suffix == ".safetensors" or head.startswith((b"PK", b"\x80"))
    return "" if is_known else "neither of torch.save nor of safetensors"


def load_state(
    network: nn.Module, tensors: Mapping[str, Tensor], *, source: Path, constants: Collection[str] = ()
) -> None:
    """Put ``tensors`` into ``network``, without the prefix that a wrapper around either of them left in the names.

    Args:
        network: what they belong to; not to be used if this raises.
        tensors: by name.
        source: where they come from, for the message.
        constants: parts of names. Tensors so named may be missing where they are buffers, which then keep what the
            network was built with, or be there in vain.

    Raises:
        PluginError: names what is missing, what is not expected, or what has another shape.
    """
    named = _in_the_names_of(network, tensors)
    try:
        kept = network.load_state_dict(named, strict=False)
    except RuntimeError as error:
        cause = re.sub(r"\s+", " ", str(error).partition("\n")[2] or str(error)).strip()
        raise PluginError(f"the weights in {source} are of another network: {cause}") from error
    parameters = {name for name, _ in network.named_parameters()}
    missing = [name for name in kept.missing_keys if name in parameters or not _among(name, constants)]
    unexpected = [name for name in kept.unexpected_keys if not _among(name, constants)]
    if missing or unexpected:
        told = [f"it lacks {_few(missing)}"] * bool(missing) + [f"it has {_few(unexpected)}"] * bool(unexpected)
        raise PluginError(
            f"the weights in {source} are of another network: {', and '.join(told)}; "
            "expected the names in the network's own state_dict()"
        )


def _without_code(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _state_dict_in(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Return the one state dict in a checkpoint, which may be a dictionary in a dictionary."""
    while isinstance(loaded, Mapping) and not _is_state_dict(loaded):
        inner = {name: value for name, value in loaded.items() if isinstance(value, Mapping)}
        states = [name for name, value in inner.items() if _is_state_dict(value)]
        chosen = [name for name in _PREFERRED if name in inner] or states
        if len(chosen) != 1 and not set(chosen) & set(_PREFERRED):
            raise PluginError(
                f"{path} holds {_few([str(name) for name in loaded])}; expected a state dict, or a checkpoint with "
                "one in it, at best under 'state_dict'"
            )
        loaded = inner[chosen[0]]
    if not isinstance(loaded, Mapping):
        raise PluginError(f"{path} holds an object of type {type(loaded).__name__}; expected a state dict")
    return dict(loaded)


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(each, Tensor) for name, each in value.items())
    )


def _in_the_names_of(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the spelling of their names that the network knows most of."""
    expected = network.state_dict().keys()
    spellings: tuple[Callable[[str], str], ...] = (
        lambda name: name,
        lambda name: name.removeprefix("module."),
        lambda name: name.removeprefix("module.").removeprefix("model."),
        lambda name: f"model.{name.removeprefix('module.')}",
    )
    respelt = [{spell(name): tensor for name, tensor in tensors.items()} for spell in spellings]
    return max(respelt, key=lambda named: len(named.keys() & expected))


def _among(name: str, constants: Collection[str]) -> bool:
    return any(part in constants for part in name.split("."))


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(repr(name) for name in names[:_MOST_NAMES]) + more
