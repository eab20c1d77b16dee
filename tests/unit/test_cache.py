from pathlib import Path

import pytest

from dkd_bench.store.cache import cache_root


def test_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DKD_BENCH_CACHE", str(tmp_path))
    assert cache_root() == tmp_path


@pytest.mark.parametrize("value", [None, ""])
def test_else_the_platform_has_one(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("DKD_BENCH_CACHE", raising=False)
    if value is not None:
        monkeypatch.setenv("DKD_BENCH_CACHE", value)
    assert cache_root().is_absolute()
    assert "dkd-bench" in cache_root().parts
