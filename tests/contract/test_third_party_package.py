"""A package of somebody else's, built, installed and run as its users would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from dkd_bench.testing import quick_dataset

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "dkd-bench-example"
MODULES = ("bit_depth.py", "mi_fgsm.py", "averaged.py")
SCRIPTS = Path(sysconfig.get_path("scripts"))
COMMAND = SCRIPTS / "dkd-bench"
RUN = (COMMAND, "run", "--threat-model", "standalone", "--threat-model", "joint", "--n-examples", "20")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder that the example is installed in."""
    folder = tmp_path_factory.mktemp("site")
    words = ("install", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    done = called([sys.executable, "-m", "pip", *words, "--target", folder, EXAMPLE], environment(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Return a cache of weights and crafts that the tests of this module share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Return the option for a part of the digits, on which the fast recipe is done in two seconds."""
    digits = quick_dataset()
    arrays = {}
    for part, split in (("train", digits.train), ("test", digits.test)):
        arrays[f"x_{part}"] = (split.images.numpy() * (255 // split.white)).squeeze(1)
        arrays[f"y_{part}"] = split.labels.numpy()
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, **arrays)
    return "--dataset", f"npz:{path}"


def environment(cache, *, site=None):
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    kept |= {"DKD_BENCH_CACHE": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    return kept | ({"PYTHONPATH": str(site)} if site else {})


def called(words, env, *, cwd=None):
    return subprocess.run(
        [str(word) for word in words], env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [("defenses", "bit-depth"), ("attacks", "mi-fgsm"), ("threat-models", "averaged")]
)
def test_what_is_installed_is_listed(site, cache, kind, name):
    without, with_it = (called([COMMAND, "list", kind], environment(cache, site=path)) for path in (None, site))
    assert name not in without.stdout
    assert re.search(rf"^{name} .*\[dkd-bench-example 0.1.0\]$", with_it.stdout, re.MULTILINE)


@pytest.mark.slow
def test_an_installed_defense_is_attacked_by_an_installed_attack(site, cache, dataset, tmp_path):
    env = environment(cache, site=site)
    attacks = ("--attack", "mi-fgsm", "--attack", "fgsm", "--set", "bit-depth.bits=3", "--set", "mi-fgsm.steps=4")
    done = called([*RUN, *dataset, "--defense", "bit-depth", *attacks, "--out", tmp_path / "run"], env)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\|.*\| *bit-depth *\|", done.stdout, re.MULTILINE), done.stdout

    cells = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))["cells"]
    assert {(cell["attack"], cell["threat_model"], cell["status"]) for cell in cells} == {
        (attack, threat_model, "ok") for attack in ("mi-fgsm", "fgsm") for threat_model in ("standalone", "joint")
    }
    assert called([COMMAND, "verify", tmp_path / "run"], env).returncode == 0


@pytest.mark.slow
def test_an_installed_threat_model_is_run_and_verified(site, cache, dataset, tmp_path):
    env = environment(cache, site=site)
    words = ("--defense", "ri", "--attack", "fgsm", "--threat-model", "averaged", "--out", tmp_path / "run")
    done = called([*RUN, *dataset, *words], env)
    assert done.returncode == 0, done.stderr
    assert "| standalone | averaged | joint |" in done.stdout
    assert "- averaged: examples made on each member alone, and their perturbations averaged." in done.stdout
    assert called([COMMAND, "verify", tmp_path / "run"], env).returncode == 0

    elsewhere = called([COMMAND, "leaderboard", tmp_path / "run"], environment(cache))
    assert "| standalone | joint | averaged |" in elsewhere.stdout
    assert "- averaged: a threat model that is not installed here" in elsewhere.stdout


@pytest.mark.slow
def test_a_file_needs_no_installation(cache, dataset, tmp_path):
    defense = EXAMPLE / "dkd_bench_example" / "bit_depth.py"
    attack = EXAMPLE / "dkd_bench_example" / "mi_fgsm.py"
    threat_model = EXAMPLE / "dkd_bench_example" / "averaged.py"
    words = ("--defense", f"{defense}:BitDepth", "--attack", f"{attack}:MomentumFGSM", "--out", tmp_path / "run")
    words += ("--threat-model", f"{threat_model}:Averaged")
    done = called([*RUN, *dataset, *words, "--format", "json"], environment(cache), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r'"defense": "([^"]+)"', done.stdout)) == {"bit-depth"}
    assert "averaged" in re.findall(r'"threat_model": "([^"]+)"', done.stdout)


@pytest.mark.slow
def test_the_package_passes_its_own_contract_test(site, cache):
    # Not "python -m pytest", which would import the checkout; and nothing is written beside the sources.
    words = (SCRIPTS / "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark")
    done = called(words, environment(cache, site=site), cwd=EXAMPLE)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed, 1 skipped", done.stdout)


@pytest.mark.parametrize("module", MODULES)
def test_the_guide_shows_the_example_as_it_is(module):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8"), re.DOTALL)
    assert (EXAMPLE / "dkd_bench_example" / module).read_text(encoding="utf-8") in blocks


@pytest.mark.parametrize("module", MODULES)
def test_the_example_imports_only_the_api(module):
    source = (EXAMPLE / "dkd_bench_example" / module).read_text(encoding="utf-8")
    assert set(re.findall(r"(?:from|import) (dkd_\w+(?:\.\w+)*)", source)) == {"dkd_bench.api"}
