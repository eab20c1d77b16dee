"""Request of a sweep: what is varied, and under what."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dkd_bench.errors import ConfigError, FieldName
from dkd_bench.plugins.suites import resolve_attacks
from dkd_bench.steps.request import RunRequest
from dkd_bench.store.digests import digest_json

_VALUES, _LEVELS = FieldName("values", option="vary"), FieldName("levels", option="level")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """Setting that is varied, its values, and the run that measures each.

    Raises:
        ConfigError: if there is not exactly one defence, attack and budget, or a value is missing or repeated.
    """

    run: RunRequest
    """Request with the one defence that is varied, the one attack, the images; ``out`` is the folder of the sweep."""
    setting: str
    values: tuple[str, ...]
    levels: tuple[str, ...] = ()
    """Other defences that stand beside it, with the settings they have."""

    def __post_init__(self) -> None:
        if len(self.run.defenses) != 1:
            raise ConfigError(f"a sweep varies one defence, got {len(self.run.defenses)}; name others with ", _LEVELS)
        if self.defense in self.levels:
            raise ConfigError(f"{self.defense!r} is varied and cannot be a level too; leave it out of ", _LEVELS)
        attacks = resolve_attacks(self.run.attacks)
        if len(attacks) != 1:
            raise ConfigError(
                f"a sweep draws one attack, got {', '.join(attacks)}; name one with ", FieldName("attacks")
            )
        if len(self.run.eps) > 1:
            raise ConfigError(f"a sweep draws one budget, got {len(self.run.eps)} ", FieldName("eps"), "; give one")
        if not self.setting or not self.values or not all(self.values):
            raise ConfigError(_VALUES, " takes NAME=VALUE,VALUE,..., such as zeta=0,0.5,0.9")
        for name, of, words in ((_VALUES, f" {self.setting}", self.values), (_LEVELS, "", self.levels)):
            if len(set(words)) < len(words):
                raise ConfigError(name, f"{of} gives a word twice in {', '.join(words)}; give it once")

    @property
    def defense(self) -> str:
        """Name of the defence that is varied."""
        return self.run.defenses[0]

    @property
    def folder(self) -> Path:
        """Folder to which the sweep and its runs are written."""
        named = f"sweep-{self.defense}-{self.setting}-{self.run.dataset}-{'+'.join(self.run.attacks)}"
        return self.run.out or Path("runs") / _in_a_path(named)

    def runs(self, defense_name: str) -> dict[str, RunRequest]:
        """Return the run of each value and then of each level, by the value and the level.

        Settings that name the varied defence, which its class calls ``defense_name``, do not go to the levels.
        """
        own = f"{defense_name}."
        asked = {
            value: self._in_folder(
                self.run, f"{self.setting}={value}", settings=(*self.run.settings, f"{own}{self.setting}={value}")
            )
            for value in self.values
        }
        others = tuple(word for word in self.run.settings if not word.startswith(own))
        return asked | {
            level: self._in_folder(self.run, level, settings=others, defenses=(level,)) for level in self.levels
        }

    def _in_folder(self, run: RunRequest, folder: str, **changes: Any) -> RunRequest:
        return in_folder_of_its_own(replace(run, **changes), self.folder / "runs", _in_a_path(folder))


def in_folder_of_its_own(run: RunRequest, parent: Path, name: str) -> RunRequest:
    """Return ``run`` with a folder inside ``parent`` that no other request shares, its name beginning with ``name``."""
    return replace(run, out=parent / f"{name}-{digest_json(run.as_json())[:8]}")


def _in_a_path(words: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", words).strip("-")
