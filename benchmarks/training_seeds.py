"""What the tests say of networks that they train, under ten training seeds, and by how much it holds.

    python benchmarks/training_seeds.py [--seeds N] [--group NAME ...]

Other kernels round otherwise and train other weights, as another training seed does. So a test that trains may only say
what holds for every seed; what does not works on the committed weights of ``tests/tiny_task.py``. Each row is what a
test asserts: the value that must be over the bound (or under it), the seed that comes nearest to breaking it, and how
far it is from there. The flags of honest defences are counted by name.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch

from dkd_bench.api import ABSTAIN
from dkd_bench.cli import app
from dkd_bench.data import load_dataset
from dkd_bench.pipeline import run
from dkd_bench.progress import SilentProgress
from dkd_bench.records import RunRecord
from dkd_bench.steps.prepare import prepare
from dkd_bench.steps.request import RunRequest, TrainRequest
from dkd_bench.steps.resolve import resolve
from dkd_bench.steps.train import train
from dkd_bench.testing import DefenseContract, checks_of
from dkd_bench.training import outputs_on

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from tiny_task import write_dataset  # noqa: E402


@dataclass(frozen=True)
class Told:
    """What a test asserts of one training: ``value`` is over ``bound``, or under it."""

    value: float
    bound: float
    over: bool = True

    @property
    def margin(self) -> float:
        """How far the value is on the right side; negative on the wrong one."""
        return self.value - self.bound if self.over else self.bound - self.value


Statements = Mapping[str, Told]


@cache
def tests(name: str) -> ModuleType:
    """Return a module of tests, whose helpers make what its tests assert about."""
    spec = spec_from_file_location(Path(name).stem, TESTS / f"{name}.py")
    assert spec is not None, name
    assert spec.loader is not None, name
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def tiny() -> str:
    """Return the tiny task's dataset, beside the cache."""
    path = Path(os.environ["DKD_BENCH_CACHE"]).parent / "tiny.npz"
    if not path.exists():
        write_dataset(path)
    return f"npz:{path}"


def learns(seed: int) -> Statements:
    """``tests/integration/test_real_training.py``."""
    module = tests("integration/test_real_training")
    told = {}
    for defense, settings in module.TRAININGS:
        asked = TrainRequest(defenses=(defense,), dataset=tiny(), settings=settings, training_seed=seed, device="cpu")
        (trained,) = train(resolve(asked), SilentProgress()).defenses.values()
        told[f"clean accuracy of {trained.name}"] = Told(max(trained.clean_accuracy.values()), module.LEARNT)
    words: dict[str, Any] = {"attacks": ("fgsm",), "threat_models": ("black-box",), "eps": (0.1,), "n_examples": 20}
    asked = RunRequest(defenses=("none",), dataset=tiny(), seed=seed, device="cpu", **words)
    made = prepare(asked, SilentProgress()).targets.networks.values()
    (reference,) = (network.module for network in made if network.called == "reference")
    test = load_dataset(tiny(), root=None).test
    right = (outputs_on(reference, test).argmax(dim=1) == test.labels).double().mean()
    return told | {"clean accuracy of the reference": Told(float(right), module.LEARNT)}


def flags(seed: int) -> Statements:
    """``tests/integration/test_known_answers.py``, which holds committed weights to no flag."""
    module = tests("integration/test_known_answers")

    def bench(**words: Any) -> RunRecord:
        with TemporaryDirectory() as out:
            asked = {"n_examples": 60, "training_seed": seed, "dataset": tiny(), "device": "cpu"} | words
            return run(RunRequest(out=Path(out) / "run", **asked))[0]

    told = {}
    for defense, words in module.HONEST.items():
        rows = module.attacked(bench, defense if defense.islower() else module.known(defense), **words)
        raised = {flag.name: flag.detail for _, row in rows for flag in row.flags}
        told[f"no flag: {defense}"] = Told(len(raised), 0.5, over=False)
        for name, detail in raised.items():
            told[f"flag {name!r} raised: {defense}"] = Told(1, 0.5)
            print(f"seed {seed}, {defense}: {name}: {detail}", flush=True)
    return told


def separates(seed: int) -> Statements:
    """``tests/integration/test_lss_command.py``."""
    module = tests("integration/test_lss_command")
    path = Path(os.environ["DKD_BENCH_CACHE"]).parent / "more.npz"
    module.write_more_images(path)
    words = ["lss", "--device", "cpu", "--defense", "dkd", "--dataset", f"npz:{path}", *module.SEPARABLE]
    words += ["--seed", str(seed), "--format", "json"]
    printed = io.StringIO()
    with redirect_stdout(printed), patch.object(sys, "argv", ["dkd-bench", *words]), suppress(SystemExit):
        app.main()
    (found,) = json.loads(printed.getvalue())
    return {"LSS of two members of dkd": Told(found["lss"] or 0.0, 0.0)}


def sweeps(seed: int) -> Statements:
    """``tests/integration/test_sweep_command.py``."""
    told = {}
    for defense, *settings in (("dkd", "zeta=0.5"), ("dkd", "zeta=0.9"), ("none",)):
        with TemporaryDirectory() as out:
            request = RunRequest(
                defenses=(defense,),
                settings=tuple(settings),
                attacks=("fgsm",),
                threat_models=("joint",),
                dataset=tiny(),
                eps=(0.1,),
                n_examples=20,
                device="cpu",
                training_seed=seed,
                out=Path(out) / "run",
            )
            cell = run(request)[0].cells[-1]
        assert cell.robust_accuracy is not None
        assert cell.clean_accuracy is not None
        name = " ".join((defense, *settings))
        told[f"joint FGSM under clean accuracy, {name}"] = Told(cell.clean_accuracy - cell.robust_accuracy, 0.0)
    return told


def small_networks(seed: int) -> Statements:
    """``tests/unit/test_training.py``, ``test_objectives.py`` and ``baselines/test_pixelcnn.py``."""
    module = tests("unit/test_training")
    split = module.a_split()
    data = module.TrainingSet(split=split, digest="images")
    recipe = module.Recipe(name="longer", epochs=200, batch_size=16, learning_rate=1e-2, schedule="constant")
    network = module.trained(data, seed=seed, network=module.a_network(seed), recipe=recipe)
    right = (outputs_on(network, split).argmax(dim=1) == split.labels).double().mean()
    told = {"training learns which half is brighter": Told(float(right), 0.9)}
    module = tests("unit/test_objectives")
    digits = load_dataset("digits", root=None)
    few = module.few_digits(digits)
    dkd, ri = (
        module.mean_similarity(module.fitted(cls, digits, few, module.TEN_EPOCHS, seed=seed).members, digits.test)
        for cls in (module.DKD, module.RI)
    )
    told["latents of RI are more alike than those of DKD by"] = Told(ri - dkd, 0.1)
    module = tests("unit/baselines/test_pixelcnn")
    seen, shuffled = module.bits_of_shades(seed)
    return told | {
        "bits of images of one shade": Told(seen, 6.5, over=False),
        "bits of their pixels shuffled": Told(shuffled, 8.0),
    }


def magnet(seed: int) -> Statements:
    """``tests/unit/baselines/test_magnet.py``."""
    module = tests("unit/baselines/test_magnet")
    told = {}
    for name, made in (("gray", module.a_magnet(seed)), ("in colour", module.a_magnet_in_colour(seed))):
        x = module.mixtures().repeat(1, made.images.channels, 1, 1)
        rejected = float((module.answers(made, x) == ABSTAIN).double().mean())
        told[f"MagNet {name} rejects some"] = Told(rejected, 0.0)
        told[f"MagNet {name} does not reject some"] = Told(rejected, 1.0, over=False)
    images, labels = module.DIGITS.test.batch(torch.arange(200))
    decided = module.answers(module.a_magnet(seed), images)
    accepted = decided != ABSTAIN
    told["MagNet accepts"] = Told(float(accepted.double().mean()), 0.5)
    told["of those right"] = Told(float((decided == labels)[accepted].double().mean()), 0.7)
    alike, apart = (module.distance_between(diversity, seed) for diversity in (0.0, 0.8))
    told["diversity puts autoencoders apart, times"] = Told(apart / alike, 1.5)
    diverse = module.a_diverse_magnet(seed)
    x = module.mixtures()
    draws = {tuple(module.answers(diverse, x, seed=draw).tolist()) for draw in range(12)}
    told["grey box: autoencoders that answer otherwise"] = Told(len(draws), 2.5)
    return told


def pixel_defend(seed: int) -> Statements:
    """``tests/unit/baselines/test_pixel_defend.py``."""
    module = tests("unit/baselines/test_pixel_defend")
    made = module.trained(module.PixelDefend, module.SETTINGS, seed=seed)
    images, labels = module.DIGITS.test.batch(torch.arange(100))
    attacked = module.attacked_by_fgsm(made, images, labels)
    purified = made.purifier(attacked)
    clean, harmed, mended = (float(made.bits_per_dimension(each).mean()) for each in (images, attacked, purified))
    right = [float((module.answers(made, each) == labels).double().mean()) for each in (images, attacked)]
    bare = float((made.network(attacked).argmax(dim=1) == labels).double().mean())
    known = module.training_split().batch(torch.arange(module.N_TRAINING))[0]
    ours = float(made.p_values(known).mean())
    unlikely = int((made.p_values(torch.cat([images[:20], attacked[:20]])) <= 0.1).sum())
    return {
        "bits of attacked images over clean ones": Told(harmed - clean, 1.0),
        "bits of purified images under clean ones": Told(clean - mended, 0.0),
        "clean accuracy of PixelDefend": Told(right[0], 0.7),
        "attacked, PixelDefend over its bare network": Told(right[1] - bare, 0.0),
        "p-values of training images, over": Told(ours, 0.4),
        "p-values of training images, under": Told(ours, 0.6, over=False),
        "median p-value of clean images": Told(float(made.p_values(images).median()), 0.2),
        "median p-value of attacked images": Told(float(made.p_values(attacked).median()), 0.05, over=False),
        "of 40 images unlikely, over": Told(unlikely, 0),
        "of 40 images unlikely, under": Told(unlikely, 40, over=False),
    }


def defense_gan(seed: int) -> Statements:
    """``tests/unit/baselines/test_defense_gan.py``."""
    module = tests("unit/baselines/test_defense_gan")
    made = module.trained_by(seed)
    x, labels = module.quick_dataset().test.batch(torch.arange(100))
    with torch.no_grad():
        defended = (made.predict(x, generator=module.seeded(0)) == labels).double().mean()
        bare = (made.classifier(x).argmax(dim=1) == labels).double().mean()
    projected = made.projection(x[:40], module.seeded(0))
    errors = (projected.unsqueeze(1) - x[:40].unsqueeze(0)).square().mean(dim=(2, 3, 4))
    nearest = (errors.argmin(dim=1) == torch.arange(40)).double().mean()
    return {
        "Defense-GAN's bare classifier": Told(float(bare), 0.8),
        "Defense-GAN over its bare classifier": Told(float(defended - bare), -0.3),
        "projected images nearest to their own": Told(float(nearest), 0.8),
    }


def failed_checks(contract: type[Any]) -> Iterator[str]:
    """Yield the name of each check of a contract that fails."""
    import pytest

    for check in checks_of(contract):
        try:
            getattr(contract(), check)()
        except pytest.skip.Exception:
            continue
        except Exception as error:
            print(f"{contract.__name__}, {check}: {error}", flush=True)
            yield check


def contracts(seed: int) -> Statements:
    """``tests/contract/test_registered_plugins.py`` and ``test_contract_catches.py``."""
    registered, broken = tests("contract/test_registered_plugins"), tests("contract/test_contract_catches")
    told = {}
    with patch("dkd_bench.testing._defense._SEED", 3 + 100 * seed):
        for name in registered.registry.without_argument("defenses"):
            members = {"defense": registered.registry.load("defenses", name), "settings": registered.SETTINGS.get(name)}
            failed = len(list(failed_checks(type(f"Test_{name}_{seed}", (DefenseContract,), members))))
            told[f"checks that {name} fails"] = Told(failed, 0.5, over=False)
        wrong = [cls.__name__ for cls in (broken.Sound, broken.Noisy) if broken.defense_failures(cls)]
        for cls, expected in broken.BROKEN_DEFENSES.items():
            try:
                broken.expect_only(broken.defense_failures(cls), expected)
            except AssertionError as error:
                print(f"seed {seed}, {cls.__name__}: {error}", flush=True)
                wrong.append(cls.__name__)
        told["broken defences that fail otherwise"] = Told(len(wrong), 0.5, over=False)
    return told


GROUPS: Mapping[str, Callable[[int], Statements]] = {
    each.__name__: each
    for each in (
        learns,
        flags,
        separates,
        sweeps,
        small_networks,
        magnet,
        pixel_defend,
        defense_gan,
        contracts,
    )
}


def table(name: str, seeds: int) -> None:
    """Measure one group under all seeds, and print it."""
    start = perf_counter()
    found: defaultdict[str, dict[int, Told]] = defaultdict(dict)
    for seed in range(seeds):
        with TemporaryDirectory() as folder, patch.dict("os.environ", {"DKD_BENCH_CACHE": f"{folder}/cache"}):
            for statement, told in GROUPS[name](seed).items():
                found[statement][seed] = told
    print(f"\n{name}: {(GROUPS[name].__doc__ or '').strip()} {perf_counter() - start:.0f} s\n")
    print("| statement | bound | mean | nearest | at seed | margin | holds |")
    print("| - | -: | -: | -: | -: | -: | -: |")
    for statement, by_seed in found.items():
        nearest = min(by_seed, key=lambda seed: by_seed[seed].margin)
        told, values = by_seed[nearest], [each.value for each in by_seed.values()]
        holds = Counter(each.margin > 0 for each in by_seed.values())[True]
        sign = ">" if told.over else "<"
        print(
            f"| {statement} | {sign} {told.bound:g} | {statistics.mean(values):.3g} | {told.value:.3g} | {nearest} | "
            f"{told.margin:.3g} | {holds} of {len(by_seed)} |",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--group", action="append", choices=sorted(GROUPS), help="repeats; all unless given")
    words = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {words.seeds} training seeds")
    for name in words.group or GROUPS:
        table(name, words.seeds)


if __name__ == "__main__":
    main()
