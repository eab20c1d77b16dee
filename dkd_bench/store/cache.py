"""Folder of what is kept between runs."""

from __future__ import annotations

from os import environ
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """Return ``DKD_BENCH_CACHE``, else the user cache folder of the platform; it may not exist yet."""
    named = environ.get("DKD_BENCH_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("dkd-bench")
