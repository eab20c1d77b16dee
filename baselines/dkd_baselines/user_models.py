"""Networks of a user: a function that makes one, a file with its weights, the preprocessing it expects."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from importlib import import_module
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dkd_baselines.pretrained import Pretrained, load_state, read_state
from dkd_bench.api import ConfigError, Defense, DefenseMeta, ImageSpec, PluginError, UnknownNameError

_EXPECTED = "expected torch:package.module:factory, a function without arguments that returns a torch.nn.Module"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSettings:
    """Settings of a network of one's own."""

    weights: str = field(default="", repr=False)
    """File of a state dict, .pt or .safetensors; empty for a factory that loads its own. Digests see its tensors
    alone."""
    mean: str = ""
    """Mean that the network expects to be subtracted from [0, 1] images, by channel, as ``0.485,0.456,0.406``."""
    std: str = ""
    """Deviation by which it then expects them to be divided, by channel."""

    def __post_init__(self) -> None:
        if self.weights and not Path(self.weights).expanduser().is_file():
            raise ConfigError(f"no file {self.weights!r}; --weights takes a state dict, .pt or .safetensors")
        _numbers("mean", self.mean)
        if any(value <= 0 for value in _numbers("std", self.std)):
            raise ConfigError(f"std must be positive for every channel, got {self.std!r}")


class Standardize(nn.Module):
    """Standardisation by a mean and a deviation, channel by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        """Take the values of the channels, each of shape ``(C,)``."""
        super().__init__()
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(x - mean) / std``, shape ``(N, C, H, W)``."""
        standardized: Tensor = (x - self.mean) / self.std
        return standardized


class UserNetwork(nn.Module):
    """Network of a user behind its own preprocessing, so that attacks see pixels in [0, 1]."""

    def __init__(self, network: nn.Module, preprocessing: nn.Module) -> None:
        """Take both."""
        super().__init__()
        self.preprocessing = preprocessing
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's logits, shape ``(N, K)``."""
        logits: Tensor = self.network(self.preprocessing(x))
        return logits


class UserModel(Pretrained):
    """A network as its user's factory makes it."""

    Settings: ClassVar[type[Any]] = UserSettings
    settings: UserSettings
    make: ClassVar[Callable[[], Any]]
    Network: ClassVar[type[UserNetwork]]
    """Class in the factory's module, so that digests of the network see the code of the factory."""

    def __init__(self, images: ImageSpec, settings: UserSettings | None = None) -> None:
        """Make the network and load its weights."""
        super().__init__(images, settings)
        network = type(self).make()
        if not isinstance(network, nn.Module):
            raise PluginError(f"the factory of {self.meta.name!r} must return a torch.nn.Module, got {network!r}")
        if self.settings.weights:
            path = Path(self.settings.weights).expanduser()
            load_state(network, read_state(path), source=path)
        self.adopt(self.Network(network, self._preprocessing()))

    def _preprocessing(self) -> nn.Module:
        if not self.settings.mean and not self.settings.std:
            return nn.Identity()
        return Standardize(
            self._for_channels("mean", self.settings.mean or "0"), self._for_channels("std", self.settings.std or "1")
        )

    def _for_channels(self, name: str, words: str) -> Tensor:
        values, channels = _numbers(name, words), self.images.channels
        if len(values) not in {1, channels}:
            raise ConfigError(f"{name} must have 1 or {channels} values, the images' channels, got {len(values)}")
        return torch.tensor(values).expand(channels).clone()


def torch_model(argument: str) -> type[Defense]:
    """Your own network, by the function that makes it: torch:package.module:factory.

    Raises:
        UnknownNameError: if the module has no such function.
        ConfigError: if there is no such module, or ``argument`` is not ``package.module:factory``.
    """
    module_name, _, factory_name = argument.partition(":")
    if not factory_name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"{_EXPECTED}; got {f'torch:{argument}' if argument else 'torch alone'}")
    module = _imported(module_name)
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        known = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        raise UnknownNameError(f"function in {module_name}", factory_name, known, known_as="Defined there")
    if isinstance(factory, nn.Module):
        raise ConfigError(f"{argument} is a network already; {_EXPECTED}")
    members = {
        "__doc__": UserModel.__doc__,
        "__module__": __name__,
        "meta": DefenseMeta(name=f"torch-{argument}".translate(str.maketrans(".:", "--")), title=f"Model {argument}"),
        "make": staticmethod(factory),
        "Network": _network_class(module, factory),
    }
    return type("NamedUserModel", (UserModel,), members)


def _imported(name: str) -> ModuleType:
    """Import a user's module, from the current folder first, as ``python -m`` does."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(f"no module {error.name!r}, neither installed nor in {here}; {_EXPECTED}") from error


def _network_class(module: ModuleType, factory: Callable[[], Any]) -> type[UserNetwork]:
    """Return a class of the module that the user names and, below it, of the one that defines the factory."""
    made = inspect.unwrap(factory)
    defined = made.__module__ if inspect.isfunction(made) or inspect.isclass(made) else module.__name__
    modules = dict.fromkeys((defined, module.__name__))
    return reduce(_standing_in, modules, UserNetwork)


def _standing_in(cls: type[UserNetwork], module: str) -> type[UserNetwork]:
    return type(cls.__name__, (cls,), {"__module__": module, "__doc__": cls.__doc__})


def _numbers(name: str, words: str) -> list[float]:
    """Return the comma-separated numbers in a setting; none for an empty one."""
    try:
        values = [float(word) for word in words.split(",")] if words else []
    except ValueError:
        values = [float("nan")]
    if not all(isfinite(value) for value in values):
        raise ConfigError(f"{name} must be numbers separated by commas, such as 0.485,0.456,0.406, got {words!r}")
    return values
