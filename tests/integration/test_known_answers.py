"""Defences whose fault is known, attacked as any other: each raises its flag, and honest ones raise none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from dkd_bench.leaderboard import Row, rank_runs
from dkd_bench.records import RunRecord
from dkd_bench.records.flags import (
    ATTACK_ERROR,
    BAD_GRADIENTS,
    BLACK_BOX,
    INTERRUPTED,
    MISLEADING,
    MORE_STEPS,
    NOISE,
    NOT_ADMITTED,
    PROBABILITIES,
    RANDOM,
    TRANSFER,
    UNBOUNDED,
    ZERO_GRADIENTS,
)
from dkd_bench.records.rundir import load_run

DEFENSES = """
    import torch
    from torch import nn
    from dkd_bench.api import ABSTAIN, Defense, DefenseMeta, Detecting, build_network, train_network


    class Plain(Defense):
        meta = DefenseMeta(name="plain", title="Plain")

        def __init__(self, images, settings=None):
            super().__init__(images, settings)
            self.network = self.build(images)

        def build(self, images):
            return build_network("auto", images)

        @property
        def members(self):
            return [self.network]

        def fit(self, data, *, recipe, generator, progress):
            train_network(self.network, data, recipe=recipe, generator=generator, progress=progress)

        def predict(self, x, *, generator):
            return self.surrogates()["whole"](x).argmax(dim=1)


    class Linear(Plain):
        meta = DefenseMeta(name="linear", title="Honest and linear")

        def build(self, images):
            return nn.Sequential(
                nn.Flatten(), nn.Linear(images.channels * images.height * images.width, images.n_classes)
            )


    class Hot(Plain):
        meta = DefenseMeta(name="hot", title="Logits scaled until the softmax saturates")

        def surrogates(self):
            return {"whole": nn.Sequential(self.network, Scaled(1e4))}


    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, logits):
            return self.factor * logits


    class Quantised(Plain):
        meta = DefenseMeta(name="quantised", title="Gradients shattered by rounding")

        def surrogates(self):
            return {"whole": nn.Sequential(Rounded(), self.network)}


    class Rounded(nn.Module):
        def forward(self, x):
            return (x * 4).round() / 4


    class Sleeper(Plain):
        meta = DefenseMeta(name="sleeper", title="Asleep behind an argmax")

        def surrogates(self):
            return {"whole": nn.Sequential(self.network, Certain())}


    class Certain(nn.Module):
        def forward(self, logits):
            return nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]) + 0 * logits


    class LabelNoise(Plain):
        meta = DefenseMeta(name="label-noise", title="One answer in five is another label")

        def predict(self, x, *, generator):
            labels = self.network(x).argmax(dim=1)
            other = torch.randint(10, labels.shape, generator=generator)
            return torch.where(torch.rand(len(x), generator=generator) < 0.2, other, labels)


    class Counting(Plain):
        meta = DefenseMeta(name="counting", title="Every other answer is another network's")

        def __init__(self, images, settings=None):
            super().__init__(images, settings)
            self.shift = Shift()

        def surrogates(self):
            return {"whole": nn.Sequential(self.shift, self.network)}

        def predict(self, x, *, generator):
            return self.network(x).argmax(dim=1)


    class Shift(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x + 0.01 * (self.calls % 2)


    class RejectsAll(Plain):
        meta = DefenseMeta(name="rejects-all", title="Rejects every image", abstains=True)

        def predict(self, x, *, generator):
            return torch.full((len(x),), ABSTAIN)


    class NotANumber(Plain):
        meta = DefenseMeta(name="nan", title="Logits that are no numbers")

        def surrogates(self):
            return {"whole": self.network}

        @property
        def members(self):
            return [nn.Sequential(self.network, Scaled(float("nan")))]


    class Listed(Plain):
        meta = DefenseMeta(name="listed", title="Members in a list")

        def __init__(self, images, settings=None):
            super().__init__(images, settings)
            self.networks = [build_network("auto", images)]

        @property
        def members(self):
            return self.networks


    class Preprocessed(Plain):
        meta = DefenseMeta(name="preprocessed", title="A step that no surrogate has")

        def fit(self, data, *, recipe, generator, progress):
            whole = nn.Sequential(Inverted(), self.network)
            train_network(whole, data, recipe=recipe, generator=generator, progress=progress)

        def predict(self, x, *, generator):
            return self.network(1 - x).argmax(dim=1)


    class Inverted(nn.Module):
        def forward(self, x):
            return 1 - x


    class Junked(Plain):
        meta = DefenseMeta(name="junked", title="Shattered, with a gradient of something else")

        def __init__(self, images, settings=None):
            super().__init__(images, settings)
            self.whole = Junk(self.network, images.channels * images.height * images.width, images.n_classes)

        def surrogates(self):
            return {"whole": self.whole}


    class Junk(nn.Module):
        def __init__(self, network, dimension, n_classes):
            super().__init__()
            self.network = network
            self.register_buffer("junk", torch.randn(dimension, n_classes, generator=torch.Generator().manual_seed(3)))

        def forward(self, x):
            return self.network((x * 4).round() / 4) + 1e-4 * (x.flatten(1) @ self.junk)


    class Learning(Plain):
        meta = DefenseMeta(name="learning", title="Answers near what it has seen as it did then")
        seen = None

        def predict(self, x, *, generator):
            labels = self.network(x).argmax(dim=1)
            if self.seen is None:
                self.seen, self.said = x[:1], (labels[:1] + 1) % 10
                return labels
            near = (x - self.seen).abs().flatten(1).amax(dim=1) < 1e-3
            return torch.where(near & (x.shape[0] < 100), self.said, labels)


    class Smooth(Plain):
        meta = DefenseMeta(name="smooth", title="Honest and random", randomized=True)

        def build(self, images):
            return nn.Sequential(Noisy(), build_network("auto", images))

        def predict(self, x, *, generator):
            noise = torch.randn(x.shape, generator=generator)
            return self.network[1](x + 0.3 * noise).argmax(dim=1)


    class Noisy(nn.Module):
        def forward(self, x):
            return x + 0.3 * torch.randn_like(x)


    class Reject(Plain):
        meta = DefenseMeta(name="reject", title="Honest, rejects what it is not sure of", abstains=True)

        def surrogates(self):
            return {"whole": Unsure(self.network)}

        def predict(self, x, *, generator):
            return torch.where(self.rejections(x)["margin"] > 0, ABSTAIN, self.network(x).argmax(dim=1))

        def rejections(self, x):
            return {"margin": Unsure(self.network).rejections(x)[:, 0]}


    class Unsure(Detecting):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x)

        def rejections(self, x):
            first, second = self.network(x).topk(2, dim=1).values.unbind(1)
            return (1.0 - (first - second)).unsqueeze(1)


    class Fragile(Plain):
        meta = DefenseMeta(name="fragile", title="Fails far from the data")

        def predict(self, x, *, generator):
            if x.flatten(1).std(dim=1).max() > 0.47:
                raise ValueError("too far from the data")
            return self.network(x).argmax(dim=1)


    class Backward(Plain):
        meta = DefenseMeta(name="backward", title="No way back")

        def surrogates(self):
            return {"whole": nn.Sequential(OneWay(), self.network)}


    class OneWay(nn.Module):
        def forward(self, x):
            return Refusing.apply(x)


    class Refusing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("no backward here")


    class Steep(Plain):
        meta = DefenseMeta(name="steep", title="The root of what is zero")

        def surrogates(self):
            return {"whole": nn.Sequential(Root(), self.network)}


    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()
"""


@pytest.fixture
def flags(bench: Callable[..., RunRecord], cache: Path, tmp_path: Path) -> Callable[..., set[str]]:
    path = tmp_path / "known.py"
    path.write_text(dedent(DEFENSES))

    def raised(defense: str, **words: object) -> set[str]:
        rows = attacked(bench, defense if defense.islower() else f"{path}:{defense}", **words)
        for eps, row in rows:
            assert (row.trust == "accepted" and eps is not None) == (row.rank is not None)
        return {flag.name for _, row in rows for flag in row.flags}

    return raised


def attacked(bench: Callable[..., RunRecord], defense: str, **words: object) -> list[tuple[float | None, Row]]:
    """Return every row of the defence, each with the budget of its group."""
    defaults: dict[str, object] = {"attacks": ("fgsm", "pgd", "deepfool"), "eps": (0.05, 0.2), "n_examples": 60}
    record = bench(defenses=(defense,), **(defaults | words))
    return [(group.eps, row) for group in rank_runs([("run", record)]).groups for row in group.rows]


@pytest.mark.parametrize("name", ["Linear", "Plain", "none", "dkd"])
def test_an_honest_defence_raises_none(flags: Callable[..., set[str]], name: str) -> None:
    assert flags(name) == set()


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_random_defence_raises_none(flags: Callable[..., set[str]], seed: int) -> None:
    words: dict[str, object] = {
        "threat_models": ("joint",),
        "eot_draws": 4,
        "settings": ("pgd.steps=10", "pgd.rel_stepsize=0.25"),
    }
    assert flags("Smooth", seed=seed, **words) == set()


def test_an_honest_reject_option_raises_none(flags: Callable[..., set[str]]) -> None:
    words: dict[str, object] = {"attacks": ("fgsm", "pgd", "detector-pgd"), "threat_models": ("joint",)}
    assert flags("Reject", **words) == set()


def test_an_honest_adversarially_trained_network_raises_none(flags: Callable[..., set[str]]) -> None:
    assert flags("at") == set()


def test_an_attack_that_has_not_converged_is_told_of(flags: Callable[..., set[str]]) -> None:
    words: dict[str, object] = {"attacks": ("pgd",), "threat_models": ("joint",), "eps": (0.1,)}
    assert flags("none", settings=("pgd.steps=1", "pgd.random_start=false", "pgd.rel_stepsize=0.3"), **words) == {
        MORE_STEPS
    }
    assert flags("none", name="converged", **words) == set()


def test_an_attack_that_searches_less_than_chance_is_told_of(flags: Callable[..., set[str]]) -> None:
    """Without a gradient no attack moves an image, and random points of a wide budget fool the network."""
    words: dict[str, object] = {"attacks": ("fgsm",), "threat_models": ("joint",), "eps": (0.3,)}
    assert NOISE in flags("Quantised", **words)
    assert flags("Plain", name="honest", **words) == set()


def test_what_was_crafted_for_a_challenge_is_found_again(
    bench: Callable[..., RunRecord], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: dict[str, object] = {"defenses": ("none",), "attacks": ("pgd",), "threat_models": ("joint",)}
    first = bench("first", **words)
    monkeypatch.setattr("dkd_bench.attacks.foolbox.table.PGD._perturb", lambda *_: pytest.fail("attacked again"))
    assert bench("second", **words).cells == first.cells


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("Hot", {ZERO_GRADIENTS}, id="temperature"),
        pytest.param("Quantised", {ZERO_GRADIENTS, UNBOUNDED, BLACK_BOX}, id="quantisation"),
        pytest.param("Sleeper", {ZERO_GRADIENTS, PROBABILITIES, UNBOUNDED, BLACK_BOX}, id="argmax sleeper"),
        pytest.param("LabelNoise", {RANDOM}, id="label noise"),
        pytest.param("Counting", {RANDOM}, id="state"),
        pytest.param("RejectsAll", {NOT_ADMITTED}, id="rejects all"),
        pytest.param("NotANumber", {NOT_ADMITTED}, id="not a number"),
        pytest.param("Listed", {NOT_ADMITTED}, id="members in a list"),
        pytest.param("Preprocessed", {TRANSFER}, id="undeclared preprocessing"),
        pytest.param("Steep", {BAD_GRADIENTS}, id="infinite gradients"),
        pytest.param("Junked", {MISLEADING}, id="gradients of something else"),
        pytest.param("Learning", {RANDOM}, id="learns from what it is asked"),
        pytest.param("Backward", {NOT_ADMITTED, ATTACK_ERROR}, id="no way back"),
    ],
)
def test_each_fault_raises_its_flag(flags: Callable[..., set[str]], name: str, expected: set[str]) -> None:
    assert expected <= flags(name)


@pytest.mark.parametrize("evidence", ["all", "none"])
def test_a_run_interrupted_while_it_is_challenged_is_not_through(
    bench: Callable[..., RunRecord], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evidence: str
) -> None:
    words: dict[str, object] = {"defenses": ("none",), "attacks": ("pgd",), "threat_models": ("joint",)}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dkd_bench.doubts.challenges.Challenger.challenge", stop)
        with pytest.raises(KeyboardInterrupt):
            bench("run", evidence=evidence, **words)
    record = load_run(tmp_path / "run")
    (row,) = rank_runs([("run", record)]).groups[0].rows
    assert not record.complete
    assert (row.rank, row.trust, [flag.name for flag in row.flags]) == (None, "invalid", [INTERRUPTED])
    again = bench("run", evidence=evidence, **words)
    assert again.complete
    assert again.manifest.defenses["none"].flags == ()
    left = list((cache / "crafts").glob("*.safetensors"))
    assert bool(left) == (evidence == "all")


def test_a_challenge_that_fails_leaves_the_run_incomplete_and_the_rest_in_place(
    bench: Callable[..., RunRecord], cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "known.py"
    path.write_text(dedent(DEFENSES))
    words: dict[str, object] = {"attacks": ("pgd",), "threat_models": ("joint",), "eps": (0.05,)}
    record = bench(defenses=(f"{path}:Fragile", "none"), **words)
    assert not record.complete
    assert {cell.status for cell in record.cells} == {"ok"}
    (flag,) = record.manifest.defenses["fragile"].flags
    assert flag.name == ATTACK_ERROR
    assert "when it was challenged: defence 'fragile' fails on images: ValueError: too far" in flag.detail
    assert record.manifest.defenses["none"].flags == ()
