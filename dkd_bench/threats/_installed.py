"""Threat models by name: loaded for a run, and their facts for a board that knows records only.

Nothing here imports torch, unless a threat model of another package does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dkd_bench.errors import PluginError
from dkd_bench.plugins import registry
from dkd_bench.threats._base import ThreatModel, ThreatModelMeta
from dkd_bench.threats.aggregated import Aggregated
from dkd_bench.threats.black_box import BlackBox
from dkd_bench.threats.joint import Joint
from dkd_bench.threats.standalone import Standalone

ALL = "all"
"""Word that stands for the standard threat models."""

_OURS = {cls.meta.name: cls.meta for cls in (BlackBox, Standalone, Aggregated, Joint)}

STANDARD = tuple(sorted(_OURS, key=lambda name: _OURS[name].place))
"""Names that ``all`` stands for, in reading order; those of other packages are asked for by name."""


def load_threat_models(words: Sequence[str]) -> dict[str, ThreatModel]:
    """Return the threat models asked for by the names of their metas, each once, in the order of ``words``.

    Args:
        words: names, ``path/to/file.py:Class``, or ``all``.

    Raises:
        UnknownNameError: if nothing of a name is installed.
        PluginError: if one cannot be loaded, is no threat model, or has the name of another.
    """
    asked = dict.fromkeys(each for word in words for each in (STANDARD if word == ALL else (word,)))
    found: dict[str, ThreatModel] = {}
    for word in asked:
        loaded = _loaded(word)
        name = loaded.meta.name
        if name in found or (word != name and name in registry.installed("threat-models")):
            raise PluginError(f"threat model {word!r} is called {name!r}, the name of another one; rename it")
        found[name] = loaded
    return found


def facts_of(name: str) -> ThreatModelMeta | None:
    """Return the facts of a threat model that is installed and can be loaded, else ``None``."""
    if name in _OURS:
        return _OURS[name]
    if name not in registry.installed("threat-models"):
        return None
    try:
        return _loaded(name).meta
    except PluginError:
        return None  # a board of records needs no plugin to be whole


def sees_whole(name: str) -> bool:
    """Return whether the threat model called ``name`` sees the whole defence; one that is not installed does not."""
    facts = facts_of(name)
    return facts is not None and facts.sees_whole


def in_reading_order(names: Collection[str]) -> tuple[str, ...]:
    """Return threat models from the least sight of the defence to the most; those not installed follow by name."""
    places = {name: facts.place for name in names if (facts := facts_of(name)) is not None}
    return (*sorted(places, key=lambda name: (places[name], name)), *sorted({*names} - places.keys()))


def _loaded(word: str) -> ThreatModel:
    cls = registry.load("threat-models", word)
    if not (isinstance(cls, type) and issubclass(cls, ThreatModel)) or not isinstance(
        getattr(cls, "meta", None), ThreatModelMeta
    ):
        raise PluginError(f"{word!r} must be a subclass of dkd_bench.api.ThreatModel with a meta, got {cls!r}")
    try:
        return cls()
    except Exception as error:
        raise PluginError(f"threat model {word!r} cannot be made: {type(error).__name__}: {error}") from error
