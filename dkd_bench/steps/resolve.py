"""Resolving of a request's words to its plugins with their settings; nothing is loaded or trained yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

from dkd_bench.attacks import Attack
from dkd_bench.budget import Budget
from dkd_bench.data import ImageSpec
from dkd_bench.defense import Defense
from dkd_bench.errors import ConfigError, FieldName, PluginError, UnknownNameError
from dkd_bench.plugins import registry
from dkd_bench.plugins.settings import setting_names, settings_from_words
from dkd_bench.plugins.suites import ALL, resolve_attacks
from dkd_bench.steps.request import RunRequest, TrainRequest, parse_settings, settings_for
from dkd_bench.threats import ThreatModel, load_threat_models

DefenseFactory = Callable[[ImageSpec], Defense]
"""Builder of an untrained defence for images of one shape."""

RequestT = TypeVar("RequestT", bound=TrainRequest)
RequestT_co = TypeVar("RequestT_co", bound=TrainRequest, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast(Generic[RequestT_co]):
    """Plugins of a request, ready to be built, and why others could not be imported."""

    request: RequestT_co
    device: torch.device
    defenses: Mapping[str, DefenseFactory]
    """Defences by the name that each calls itself."""
    failures: Mapping[str, str]
    """Reasons why a defence cannot be imported, by what the user called it."""
    attacks: Mapping[str, Attack]
    """Attacks by name; none where a request only trains."""
    threat_models: Mapping[str, ThreatModel]
    budgets: tuple[Budget, ...]
    """Budgets named by the request, each once; none where the dataset's own is meant."""


def resolve(request: RequestT, *, drop_settings_of_others: bool = False) -> Cast[RequestT]:
    """Return the plugins that ``request`` names; every wrong word in it is refused here.

    Args:
        request: to train, or to run.
        drop_settings_of_others: leave out a ``--set`` that concerns nothing in the request instead of refusing it,
            as where several requests share their settings.

    Raises:
        UnknownNameError: if a name or a setting is unknown.
        ConfigError: if a setting or a budget is wrong, or the device is not there.
        PluginError: if an attack or a threat model cannot be imported.
    """
    device = _device(request.device)
    attack_classes = _attack_classes(request) if isinstance(request, RunRequest) else {}
    threat_models = load_threat_models(request.threat_models) if isinstance(request, RunRequest) else {}
    budgets = _budgets(request) if isinstance(request, RunRequest) else ()
    classes, failures = _defense_classes(request)
    known = _known_settings(classes, attack_classes)
    if drop_settings_of_others:
        request = replace(request, settings=_concerning(request.settings, known))
    _check_settings(request.settings, known)
    parsed = parse_settings(request.settings)
    attacks = {
        name: cls(
            settings_from_words(cls.Settings, settings_for(name, setting_names(cls.Settings), parsed), owner=name)
        )
        for name, cls in attack_classes.items()
    }
    return Cast(
        request=request,
        device=device,
        defenses={name: _factory(cls, parsed) for name, cls in classes.items()},
        failures=failures,
        attacks=attacks,
        threat_models=threat_models,
        budgets=budgets,
    )


def _device(word: str) -> torch.device:
    if word == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            FieldName("device"), " cuda: torch finds no CUDA device here; use ", FieldName("device"), " cpu or auto"
        )
    return torch.device("cuda" if word != "cpu" and torch.cuda.is_available() else "cpu")


def _budgets(request: RunRequest) -> tuple[Budget, ...]:
    return tuple(Budget(norm=request.norm, eps=eps) for eps in dict.fromkeys(request.eps))


def _attack_classes(request: RunRequest) -> dict[str, type[Attack]]:
    classes: dict[str, type[Attack]] = {}
    for name in resolve_attacks(request.attacks):
        cls = registry.load("attacks", name)
        if not (isinstance(cls, type) and issubclass(cls, Attack)) or not hasattr(cls, "meta"):
            raise PluginError(f"{name!r} must be a subclass of dkd_bench.api.Attack with a meta, got {cls!r}")
        classes[cls.meta.name] = cls
    return classes


def _defense_classes(request: TrainRequest) -> tuple[dict[str, type[Defense]], dict[str, str]]:
    """Return the classes by the name that each calls itself, and why others cannot be had by what they were called."""
    classes: dict[str, type[Defense]] = {}
    failures: dict[str, str] = {}
    asked: list[str] = []
    for name in request.defenses:
        asked += registry.without_argument("defenses") if name == ALL else [name]
    for reference in dict.fromkeys(asked):
        try:
            cls = registry.load("defenses", reference)
            if not (isinstance(cls, type) and issubclass(cls, Defense)) or not hasattr(cls, "meta"):
                raise PluginError(f"{reference!r} must be a subclass of dkd_bench.api.Defense with a meta, got {cls!r}")
        except PluginError as error:
            failures[reference] = str(error)
            continue
        if cls.meta.name in classes:
            raise ConfigError(f"two of the defences are named {cls.meta.name!r}; rename one in its meta")
        classes[cls.meta.name] = cls
    return classes, failures


def _factory(cls: type[Defense], parsed: Mapping[tuple[str | None, str], str]) -> DefenseFactory:
    words = settings_for(cls.meta.name, setting_names(cls.Settings), parsed)
    settings = settings_from_words(cls.Settings, words, owner=cls.meta.name)
    return lambda images: cls(images, settings)


def _known_settings(
    classes: Mapping[str, type[Defense]], attacks: Mapping[str, type[Attack]]
) -> dict[str, Sequence[str]]:
    """Return the names of the settings of each defence and attack, by the plugin's name."""
    known: dict[str, Sequence[str]] = {name: setting_names(attack.Settings) for name, attack in attacks.items()}
    return known | {name: setting_names(cls.Settings) for name, cls in classes.items()}


def _concerning(words: Sequence[str], known: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the words of ``--set`` that concern a plugin in ``known``."""
    return tuple(
        word
        for word in words
        for plugin, setting in parse_settings((word,))
        if (plugin in known if plugin is not None else any(setting in names for names in known.values()))
    )


def _check_settings(words: tuple[str, ...], known: Mapping[str, Sequence[str]]) -> None:
    """Refuse a ``--set`` that concerns nothing in the request."""
    for plugin, setting in parse_settings(words):
        if plugin is not None and plugin not in known:
            raise UnknownNameError("defence or attack in this run", plugin, known, known_as="In this run")
        if plugin is None and not any(setting in names for names in known.values()):
            everything = {name for names in known.values() for name in names}
            raise UnknownNameError("setting", setting, everything, known_as="Settings in this run")
