"""What a user asks for, in words; every default of a run stands here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from dkd_bench.budget import Norm
from dkd_bench.errors import ConfigError

KeepEvidence = Literal["all", "broken", "none"]
DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """Which defences to train, on what, and how."""

    defenses: tuple[str, ...]
    dataset: str = "digits"
    data_root: Path | None = None
    recipe: str = "fast"
    seed: int = 0
    training_seed: int | None = None
    """Of the training alone, to train again for the same images and attacks; ``None`` for ``seed``."""
    settings: tuple[str, ...] = ()
    """``NAME=VALUE`` for every defence and attack that has the setting, or ``PLUGIN.NAME=VALUE`` for one."""
    device: DeviceName = "auto"

    def __post_init__(self) -> None:
        if not self.defenses:
            raise ConfigError("no defence is named; name one with --defense, or see 'dkd-bench list defenses'")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"--seed must be from 0 to {2**31 - 1}, got {self.seed}")
        if self.training_seed is not None and not 0 <= self.training_seed < 2**31:
            raise ConfigError(f"--training-seed must be from 0 to {2**31 - 1}, got {self.training_seed}")
        if self.device not in get_args(DeviceName):
            raise ConfigError(f"--device must be {', '.join(get_args(DeviceName))}, got {self.device!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest(TrainRequest):
    """Which defences to attack, how, and where the record goes."""

    attacks: tuple[str, ...] = ("all",)
    threat_models: tuple[str, ...] = ("all",)
    norm: Norm = "linf"
    eps: tuple[float, ...] = ()
    """Budgets in [0, 1] pixel units, in l0 numbers of values; empty for the dataset's own."""
    eot_draws: int = 16
    """Evaluations averaged in each answer of a randomised target (EOT), unless the attack averages by itself."""
    n_examples: int | None = None
    """Test images attacked; ``None`` for the dataset's own number."""
    batch_size: int | None = None
    """Images in one model evaluation; ``None`` lets the target choose. Changes no result."""
    out: Path | None = None
    evidence: KeepEvidence = "all"

    def __post_init__(self) -> None:
        TrainRequest.__post_init__(self)
        if self.evidence not in get_args(KeepEvidence):
            raise ConfigError(f"--evidence must be {', '.join(get_args(KeepEvidence))}, got {self.evidence!r}")
        if self.n_examples is not None and self.n_examples < 1:
            raise ConfigError(f"--n-examples must be at least 1, got {self.n_examples}")
        if self.eot_draws < 1:
            raise ConfigError(f"--eot-draws must be at least 1, got {self.eot_draws}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"--batch-size must be auto or at least 1, got {self.batch_size}")

    def as_json(self) -> dict[str, Any]:
        """Return what determines the results, as plain values."""
        return {
            "defenses": list(self.defenses),
            "attacks": list(self.attacks),
            "threat_models": list(self.threat_models),
            "dataset": self.dataset,
            "recipe": self.recipe,
            "seed": self.seed,
            "training_seed": self.training_seed,
            "settings": list(self.settings),
            "norm": self.norm,
            "eps": list(self.eps),
            "eot_draws": self.eot_draws,
            "n_examples": self.n_examples,
        }

    @classmethod
    def from_json(cls, words: Mapping[str, Any], *, device: DeviceName, data_root: Path | None) -> RunRequest:
        """Return the request that ``as_json`` gave ``words``, to be carried out here.

        Raises:
            ConfigError: if a word is unknown or its value is refused.
        """
        values: dict[str, Any] = {name: tuple(word) if isinstance(word, list) else word for name, word in words.items()}
        try:
            return cls(**values, device=device, data_root=data_root)
        except TypeError as error:
            raise ConfigError(f"the request in the record is not one of this version: {error}") from error


def parse_settings(words: tuple[str, ...]) -> dict[tuple[str | None, str], str]:
    """Return ``NAME=VALUE`` and ``PLUGIN.NAME=VALUE`` words as a mapping from (plugin, name) to value.

    Raises:
        ConfigError: if a word has no ``=``, or a setting is given twice.
    """
    parsed: dict[tuple[str | None, str], str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set takes NAME=VALUE or PLUGIN.NAME=VALUE, got {word!r}")
        plugin, dot, setting = name.rpartition(".")
        key = (plugin if dot else None, setting)
        if key in parsed:
            raise ConfigError(f"--set gives {name!r} twice; give it once")
        parsed[key] = value
    return parsed


def settings_for(plugin: str, known: list[str], parsed: Mapping[tuple[str | None, str], str]) -> dict[str, str]:
    """Return the words that concern ``plugin``: those that name it, and those without a plugin that it knows."""
    shared = {name: value for (owner, name), value in parsed.items() if owner is None and name in known}
    own = {name: value for (owner, name), value in parsed.items() if owner == plugin}
    return shared | own
