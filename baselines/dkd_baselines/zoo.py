"""RobustBench's zoo: its architectures and its weights as defences, its files read without running what is in them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from dkd_baselines.pretrained import Pretrained, found_instead, load_state, read_state
from dkd_bench.api import ConfigError, Defense, DefenseMeta, ImageSpec, PluginError, UnknownNameError, cache_root

THREAT_MODELS = ("Linf", "L2", "corruptions")
"""Threat models with a list in the zoo, in the order in which a model is looked for."""

_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
_CIFAR_PIXELS = 32
_CONSTANTS = frozenset({"mean", "std", "mu", "sigma", "normalize", "scores", "model_preact_hl1"})
"""Names of tensors that robustbench's own loader overlooks: preprocessing left out, scores and a head left in."""

Lists = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]
"""Architecture and place of the weights, by dataset, threat model and name of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooSettings:
    """Settings of a model of the zoo."""

    threat_model: str = "auto"
    """Threat that the model was trained to stand: Linf, L2 or corruptions; ``auto`` is the first that has one of its
    name."""
    zoo_root: str = field(default="", repr=False)
    """Folder of ``DATASET/THREAT/NAME.pt``, as robustbench keeps them, and of downloads; empty for the cache folder."""

    def __post_init__(self) -> None:
        if self.threat_model not in ("auto", *THREAT_MODELS):
            raise ConfigError(f"threat_model must be auto, {', '.join(THREAT_MODELS)}, got {self.threat_model!r}")
        if self.zoo_root and not Path(self.zoo_root).expanduser().is_dir():
            raise ConfigError(f"no folder {self.zoo_root!r}; --zoo-root takes the one with DATASET/THREAT/NAME.pt")


class ZooModel(Pretrained):
    """A model of RobustBench's zoo."""

    Settings: ClassVar[type[Any]] = ZooSettings
    settings: ZooSettings
    model_name: ClassVar[str]

    def __init__(self, images: ImageSpec, settings: ZooSettings | None = None) -> None:
        """Make the network and load its weights, from the files if they are there."""
        super().__init__(images, settings)
        dataset, threat_model = self._place()
        entry = zoo_lists()[dataset][threat_model][self.model_name]
        ids = entry["gdrive_id"]
        if not ids:
            raise PluginError(
                f"the zoo has no weights of robustbench:{self.model_name}, which another package downloads by itself; "
                "write a function that makes it, and use --defense torch:package.module:factory"
            )
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            network = entry["model"]()
        root = Path(self.settings.zoo_root).expanduser() if self.settings.zoo_root else cache_root() / "robustbench"
        path = root / dataset / threat_model / f"{self.model_name}.pt"
        for part, file, file_id in self._files(network, path, ids):
            load_state(part, self._weights(file, file_id), source=file, constants=_CONSTANTS)
        self.adopt(network)

    def _place(self) -> tuple[str, str]:
        """Return the dataset and the threat model of the one list that is meant."""
        lists = zoo_lists()
        dataset = next((name for name in _CLASSES if _fits(name, self.images)), "")
        having = [
            name for name, threats in lists.items() if any(self.model_name in models for models in threats.values())
        ]
        if dataset not in having:
            images = self.images
            raise ConfigError(
                f"robustbench:{self.model_name} is for {' and '.join(having)}; the dataset has images of "
                f"{images.channels} x {images.height} x {images.width} in {images.n_classes} classes; choose another "
                "--dataset or model"
            )
        offered = [name for name in THREAT_MODELS if self.model_name in lists[dataset].get(name, {})]
        wanted = self.settings.threat_model
        if wanted not in ("auto", *offered):
            raise ConfigError(
                f"robustbench has no {dataset} model {self.model_name} for threat_model={wanted}; "
                f"it has one for {' and '.join(offered)}"
            )
        return dataset, offered[0] if wanted == "auto" else wanted

    def _files(self, network: nn.Module, path: Path, ids: str | list[str]) -> Iterator[tuple[nn.Module, Path, str]]:
        """Yield each part of the network with the file of its weights, and the number of that file."""
        if isinstance(ids, str):
            yield network, path, ids
            return
        parts = getattr(network, "models", None)
        if not isinstance(parts, nn.ModuleList) or len(parts) != len(ids):
            raise PluginError(
                f"robustbench:{self.model_name} is put together from {len(ids)} files in a way of its own, which is "
                "not supported; write a function that makes it, and use --defense torch:package.module:factory"
            )
        for number, (part, file_id) in enumerate(zip(parts, ids, strict=True)):
            yield part, path.with_name(f"{path.name}_m{number}.pt"), file_id

    def _weights(self, path: Path, file_id: str) -> dict[str, Tensor]:
        if not path.is_file():
            download(path, file_id, owner=f"robustbench:{self.model_name}")
        return read_state(path)


def zoo_model(argument: str) -> type[Defense]:
    """RobustBench zoo model, by its name there: robustbench:Carmon2019Unlabeled.

    Raises:
        UnknownNameError: if the zoo has no model of that name.
        ConfigError: if robustbench is not installed, or no name is given.
    """
    if not argument:
        raise ConfigError("expected robustbench:NAME, a model of its zoo such as Carmon2019Unlabeled; got no name")
    names = {name for threats in zoo_lists().values() for models in threats.values() for name in models}
    if argument not in names:
        near = get_close_matches(argument, sorted(names), n=8, cutoff=0.4)
        raise UnknownNameError("model in RobustBench's zoo", argument, near or names, known_as="Of those there")
    members = {
        "__doc__": ZooModel.__doc__,
        "__module__": __name__,
        "meta": DefenseMeta(name=f"robustbench-{argument}", title=f"RobustBench {argument}"),
        "model_name": argument,
    }
    return type("NamedZooModel", (ZooModel,), members)


def zoo_lists() -> Lists:
    """Return the models of the installed robustbench.

    Raises:
        ConfigError: if it is not installed, or does not import.
    """
    try:
        with _autoattack(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lists = import_module("robustbench.model_zoo").model_dicts
    except ImportError as error:
        raise ConfigError(
            f"robustbench:NAME needs the package robustbench with all that it imports ({error}); "
            "pip install 'dkd-bench[zoo]'"
        ) from error
    return {
        dataset.value: {threat_model.value: models for threat_model, models in threats.items()}
        for dataset, threats in lists.items()
    }


def download(path: Path, file_id: str, *, owner: str) -> None:
    """Fetch a file of the zoo as robustbench does, to ``path`` whole or not at all.

    Raises:
        PluginError: if it does not come, or is a page instead; says where to put it by hand.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with redirect_stdout(sys.stderr):
            import_module("robustbench.utils").download_gdrive_new(file_id, partial)
        found = found_instead(partial)
        if found:
            raise OSError(f"what came is {found}")
        partial.replace(path)
    except Exception as error:
        cause = f"{error}".strip().partition("\n")[0] or type(error).__name__
        raise PluginError(
            f"the weights of {owner} cannot be downloaded: {cause}; fetch Google Drive's file {file_id} in a browser, "
            f"and put it at {path}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _autoattack() -> Iterator[None]:
    """Let ``import autoattack`` find pyautoattack, the same code under the name that it has on PyPI."""
    added = []
    for name in ("", ".state"):
        if f"autoattack{name}" not in sys.modules:
            sys.modules[f"autoattack{name}"] = import_module(f"pyautoattack{name}")
            added.append(f"autoattack{name}")
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _fits(dataset: str, images: ImageSpec) -> bool:
    """Return whether images could be those of a dataset of the zoo; its ImageNet comes in several sizes."""
    is_small = (images.height, images.width) == (_CIFAR_PIXELS, _CIFAR_PIXELS)
    return images.channels == 3 and images.n_classes == _CLASSES[dataset] and is_small == (dataset != "imagenet")
