"""What Python users import from ``dkd_bench`` itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dkd_bench


def test_the_door_has_what_it_names():
    for name in dkd_bench.__all__:
        assert getattr(dkd_bench, name).__name__ == name
        assert name in dir(dkd_bench)


def test_what_is_not_there_is_named():
    with pytest.raises(AttributeError, match="module 'dkd_bench' has no attribute 'walk'"):
        dkd_bench.walk  # noqa: B018


@pytest.mark.parametrize("module", ["dkd_bench", "dkd_paper.cli"])
def test_importing_it_waits_for_nothing(module):
    code = f"import sys, {module}; print(*({{'torch', 'numpy', 'pydantic', 'matplotlib'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
