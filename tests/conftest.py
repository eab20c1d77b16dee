"""What every test stands on: a cache of its own, one thread (or DKD_BENCH_TEST_THREADS of them), no deadline."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("dkd-bench", deadline=None)
hypothesis.settings.load_profile("dkd-bench")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep weights and crafts of all tests in one temporary folder, and look for datasets nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DKD_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("DKD_BENCH_DATA", raising=False)
        torch.set_num_threads(int(os.environ.get("DKD_BENCH_TEST_THREADS", "1")))
        yield
