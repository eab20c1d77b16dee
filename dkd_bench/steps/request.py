"""Requests of a user, in words; every default of a run stands here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from dkd_bench.budget import Norm
from dkd_bench.errors import ConfigError, FieldName
from dkd_bench.steps.words import in_words

KeepEvidence = Literal["all", "broken", "none"]
DeviceName = Literal["auto", "cpu", "cuda"]

ALPHA, TOLERANCE = 0.05, 0.02
"""Defaults of ``check``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """Request to train: which defences, on what, and how."""

    defenses: tuple[str, ...] = field(
        metadata=in_words(
            "A defence, torch:package.module:factory, robustbench:NAME, or path/to/file.py:Class. Repeats.",
            option="defense",
            metavar="NAME",
        )
    )
    dataset: str = field(
        default="digits",
        metadata=in_words("digits, mnist, fashion-mnist, cifar10, npz:FILE, imagefolder:DIR.", metavar="NAME"),
    )
    data_root: Path | None = field(
        default=None, metadata=in_words("Where the datasets are; else DKD_BENCH_DATA, else downloaded.", metavar="DIR")
    )
    recipe: str = field(default="fast", metadata=in_words("How networks are trained.", choices=("fast", "paper")))
    seed: int = field(default=0, metadata=in_words("Of training, images and attacks.", metavar="S"))
    training_seed: int | None = field(
        default=None,
        metadata=in_words("Of the training alone; the images and attacks stay --seed's.", metavar="S"),
    )
    """Seed of the training alone, to train again for the same images and attacks; ``None`` for ``seed``."""
    settings: tuple[str, ...] = field(
        default=(),
        metadata=in_words(
            "A setting of the defences or attacks, such as zeta=0.7 or pgd.steps=100. Repeats.",
            option="set",
            metavar="NAME=VALUE",
        ),
    )
    """Settings ``NAME=VALUE`` for every defence and attack that has the setting, or ``PLUGIN.NAME=VALUE`` for one."""
    device: DeviceName = field(default="auto", metadata=in_words("Where to compute."))

    def __post_init__(self) -> None:
        if not self.defenses:
            raise ConfigError(
                "no defence is named; name one with ", FieldName("defenses"), ", or see 'dkd-bench list defenses'"
            )
        if not 0 <= self.seed < 2**31:
            raise ConfigError(FieldName("seed"), f" must be from 0 to {2**31 - 1}, got {self.seed}")
        if self.training_seed is not None and not 0 <= self.training_seed < 2**31:
            raise ConfigError(FieldName("training_seed"), f" must be from 0 to {2**31 - 1}, got {self.training_seed}")
        if self.device not in get_args(DeviceName):
            raise ConfigError(FieldName("device"), f" must be {', '.join(get_args(DeviceName))}, got {self.device!r}")


_SETTINGS = FieldName("settings")
RequestT = TypeVar("RequestT", bound=TrainRequest)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest(TrainRequest):
    """Request of a run: which defences to attack, how, and where the record goes."""

    attacks: tuple[str, ...] = field(
        default=("all",),
        metadata=in_words(
            "An attack, path/to/file.py:Class, or the standard suite. Repeats.", option="attack", metavar="NAME|all"
        ),
    )
    threat_models: tuple[str, ...] = field(
        default=("all",),
        metadata=in_words(
            "black-box, standalone, aggregated or joint; or another one that is installed, or path/to/file.py:Class. "
            "Repeats.",
            option="threat-model",
            metavar="NAME|all",
        ),
    )
    norm: Norm = field(default="linf", metadata=in_words("The norm of the budgets."))
    eps: tuple[float, ...] = field(
        default=(),
        metadata=in_words(
            "A budget in [0, 1] pixel units; in l0, how many values may change. Repeats.",
            metavar="E",
            shown_default="the dataset's own",
        ),
    )
    """Budgets in [0, 1] pixel units, in l0 numbers of values; empty for the dataset's own."""
    eot_draws: int = field(
        default=16,
        metadata=in_words(
            "Evaluations averaged in each answer of a randomised target, for attacks (EOT).", metavar="N"
        ),
    )
    """Number of evaluations averaged in each answer of a randomised target (EOT), unless the attack averages by
    itself."""
    n_examples: int | None = field(
        default=None, metadata=in_words("Test images to attack; else the dataset's own number.", metavar="N")
    )
    """Number of test images attacked; ``None`` for the dataset's own number."""
    batch_size: int | None = field(
        default=None,
        metadata=in_words("Images in one model evaluation; changes no result.", metavar="N|auto", none="auto"),
    )
    """Number of images in one model evaluation; ``None`` lets the target choose. Changes no result."""
    out: Path | None = field(default=None, metadata=in_words("The run's folder; else runs/<name>.", metavar="DIR"))
    evidence: KeepEvidence = field(default="all", metadata=in_words("Which adversarial images the run keeps."))

    def __post_init__(self) -> None:
        TrainRequest.__post_init__(self)
        if self.evidence not in get_args(KeepEvidence):
            raise ConfigError(
                FieldName("evidence"), f" must be {', '.join(get_args(KeepEvidence))}, got {self.evidence!r}"
            )
        if self.n_examples is not None and self.n_examples < 1:
            raise ConfigError(FieldName("n_examples"), f" must be at least 1, got {self.n_examples}")
        if self.eot_draws < 1:
            raise ConfigError(FieldName("eot_draws"), f" must be at least 1, got {self.eot_draws}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(FieldName("batch_size"), f" must be auto or at least 1, got {self.batch_size}")

    def as_json(self) -> dict[str, Any]:
        """Return the parts that determine the results, as plain values."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """Request of a check: which run, against what, and when a difference counts."""

    run: Path = field(metadata=in_words("The folder of a run, or its results.json.", metavar="RUN", positional=True))
    against: Path = field(metadata=in_words("A reference, as 'dkd-bench reference' writes it.", metavar="FILE"))
    alpha: float = field(
        default=ALPHA, metadata=in_words("How likely a false alarm may be, over all cells together.", metavar="P")
    )
    tolerance: float = field(
        default=TOLERANCE, metadata=in_words("A drop of accuracy, a fraction, that is no regression.", metavar="T")
    )
    strict_environment: bool = field(
        default=False,
        metadata=in_words("Compare nothing that another torch, numpy, processor or device computed."),
    )
    """Whether a run that was computed elsewhere, by another torch or processor for instance, is not compared."""
    evidence: tuple[Path, ...] = field(
        default=(),
        metadata=in_words("Where old evidence is, to replay where the attack changed. Repeats.", metavar="DIR"),
    )
    """Folders of runs or of evidence, in which old evidence is looked for first."""
    device: DeviceName = field(default="auto", metadata=in_words("Where to compute."))
    data_root: Path | None = field(
        default=None, metadata=in_words("Where the datasets are; else DKD_BENCH_DATA, else downloaded.", metavar="DIR")
    )


def parse_settings(words: tuple[str, ...]) -> dict[tuple[str | None, str], str]:
    """Return ``NAME=VALUE`` and ``PLUGIN.NAME=VALUE`` words as a mapping from (plugin, name) to value.

    Raises:
        ConfigError: if a word has no ``=``, or a setting is given twice.
    """
    parsed: dict[tuple[str | None, str], str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(_SETTINGS, f" takes NAME=VALUE or PLUGIN.NAME=VALUE, got {word!r}")
        plugin, dot, setting = name.rpartition(".")
        key = (plugin if dot else None, setting)
        if key in parsed:
            raise ConfigError(_SETTINGS, f" gives {name!r} twice; give it once")
        parsed[key] = value
    return parsed


def settings_for(plugin: str, known: list[str], parsed: Mapping[tuple[str | None, str], str]) -> dict[str, str]:
    """Return the words that concern ``plugin``: those that name it, and those without a plugin that it knows."""
    shared = {name: value for (owner, name), value in parsed.items() if owner is None and name in known}
    own = {name: value for (owner, name), value in parsed.items() if owner == plugin}
    return shared | own
