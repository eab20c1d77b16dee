"""What is varied, and under what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dkd_bench.errors import ConfigError
from dkd_bench.request import RunRequest
from dkd_bench.suites import resolve_attacks


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """What is varied, and under what.

    Raises:
        ConfigError: if there is not exactly one defence, attack and budget, or a value is missing or repeated.
    """

    run: RunRequest
    """The one defence that is varied, the one attack, the images; ``out`` is the folder of the sweep."""
    setting: str
    values: tuple[str, ...]
    levels: tuple[str, ...] = ()
    """Defences that stand beside it as they are."""

    def __post_init__(self) -> None:
        if len(self.run.defenses) != 1:
            raise ConfigError(f"a sweep varies one defence, got {len(self.run.defenses)}; name others with --level")
        if self.defense in self.levels:
            raise ConfigError(f"{self.defense!r} is varied and cannot be a level too; leave it out of --level")
        attacks = resolve_attacks(self.run.attacks)
        if len(attacks) != 1:
            raise ConfigError(f"a sweep draws one attack, got {', '.join(attacks)}; name one with --attack")
        if len(self.run.eps) > 1:
            raise ConfigError(f"a sweep draws one budget, got {len(self.run.eps)} --eps; give one")
        if not self.setting or not self.values or not all(self.values):
            raise ConfigError("--vary takes NAME=VALUE,VALUE,..., such as zeta=0,0.5,0.9")
        if len(set(self.values)) < len(self.values):
            raise ConfigError(f"--vary {self.setting} gives a value twice in {', '.join(self.values)}; give it once")

    @property
    def defense(self) -> str:
        """The defence that is varied."""
        return self.run.defenses[0]

    @property
    def folder(self) -> Path:
        """Where the sweep and its runs are written."""
        return self.run.out or Path("runs") / f"sweep-{self.defense}-{self.setting}-{self.run.dataset}".replace(
            ":", "-"
        )

    def point_runs(self) -> Iterator[tuple[str, RunRequest]]:
        """Yield each value with the run that measures it."""
        for value in self.values:
            word = f"{self.defense}.{self.setting}={value}"
            folder = self.folder / "runs" / f"{self.setting}={value}"
            yield value, replace(self.run, settings=(*self.run.settings, word), out=folder)

    def level_runs(self) -> Iterator[tuple[str, RunRequest]]:
        """Yield each level's defence with its run, without the settings that name the varied defence."""
        settings = tuple(word for word in self.run.settings if not word.startswith(f"{self.defense}."))
        for level in self.levels:
            yield level, replace(self.run, defenses=(level,), settings=settings, out=self.folder / "runs" / level)
