"""Checks of parameters that several attacks have."""

from __future__ import annotations

from typing import Any

from dkd_bench.errors import ConfigError


def require_positive(settings: Any, *names: str) -> None:
    """Raise ConfigError for the first of the fields ``names`` that is not over 0."""
    for name in names:
        value = getattr(settings, name)
        if not value > 0:
            raise ConfigError(f"{name} must be over 0, got {value}")
