"""Broken plugins: each fails the checks that are about its fault, and no others."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from dkd_bench.api import (
    ABSTAIN,
    Attack,
    AttackMeta,
    Defense,
    DefenseMeta,
    EachTarget,
    Recipe,
    ThreatModelMeta,
    project,
    train_network,
)
from dkd_bench.testing import AttackContract, DefenseContract, ThreatModelContract, checks_of
from dkd_bench.threats import ThreatModel

RECIPE = Recipe(name="two-epochs", epochs=2, batch_size=10, learning_rate=1e-2, schedule="constant")


def failures(contract):
    """Return the message of each check that fails, by the check's name."""
    found = {}
    for check in checks_of(contract):
        try:
            getattr(contract(), check)()
        except pytest.skip.Exception:
            continue
        except Exception as error:
            found[check.removeprefix("test_")] = str(error)
    return found


def expect_only(found, expected):
    assert set(found) == set(expected), found
    for check, phrase in expected.items():
        assert re.search(phrase, found[check]), found[check]


def linear(images):
    return nn.Sequential(nn.Flatten(), nn.Linear(images.channels * images.height * images.width, images.n_classes))


class Sound(Defense):
    meta = DefenseMeta(name="sound", title="Sound")

    def __init__(self, images, settings=None):
        super().__init__(images, settings)
        self.network = self.build(images)

    def build(self, images):
        return linear(images)

    @property
    def members(self):
        return [self.network]

    def fit(self, data, *, recipe, generator, progress):
        for member in self.members:
            train_network(member, data, recipe=recipe, generator=generator, progress=progress)

    def logits(self, x):
        return self.members[0](x)

    def predict(self, x, *, generator):
        return self.logits(x).argmax(dim=1)


class Noisy(Sound):
    meta = DefenseMeta(name="noisy", title="Noisy", randomized=True)

    def predict(self, x, *, generator):
        return self.logits(x + 0.3 * torch.randn(x.shape, generator=generator)).argmax(dim=1)


class MembersInAList(Sound):
    def build(self, images):
        return [linear(images)]

    @property
    def members(self):
        return self.network


class NaNLogits(Sound):
    class Broken(nn.Linear):
        def forward(self, x):
            return super().forward(x) * float("nan")

    def build(self, images):
        return nn.Sequential(nn.Flatten(), self.Broken(images.height * images.width, images.n_classes))


class ConstantClass(Sound):
    def predict(self, x, *, generator):
        return torch.zeros(len(x), dtype=torch.int64)


class UndeclaredRandomness(Noisy):
    meta = DefenseMeta(name="sly", title="Sly")


class GlobalRandomness(Noisy):
    def predict(self, x, *, generator):
        return self.logits(x + 0.3 * torch.randn(x.shape)).argmax(dim=1)


class Reseeding(Sound):
    def predict(self, x, *, generator):
        torch.manual_seed(0)
        return super().predict(x, generator=generator)


class OnlyCalledRandomized(Sound):
    meta = DefenseMeta(name="calm", title="Calm", randomized=True)


class ColumnOfLabels(Sound):
    def predict(self, x, *, generator):
        return self.logits(x).argmax(dim=1, keepdim=True)


class ClampsInPlace(Sound):
    def predict(self, x, *, generator):
        return self.logits(x.clamp_(0.05, 0.95)).argmax(dim=1)


class UndeclaredAbstention(Sound):
    def predict(self, x, *, generator):
        flat = x.flatten(1).std(dim=1) == 0
        return torch.where(flat, ABSTAIN, self.logits(x).argmax(dim=1))


class ForgetsItsThreshold(Sound):
    offset = 0.0

    def fit(self, data, *, recipe, generator, progress):
        super().fit(data, recipe=recipe, generator=generator, progress=progress)
        self.offset = data.split.images.double().mean().item() / data.split.white

    def predict(self, x, *, generator):
        return self.logits(x - self.offset).argmax(dim=1)


class AsksTheClock(Sound):
    def fit(self, data, *, recipe, generator, progress):
        super().fit(data, recipe=recipe, generator=generator, progress=progress)
        clock = torch.Generator().manual_seed(time.time_ns())
        with torch.no_grad():
            self.network[1].bias += 1e-3 * torch.randn(self.network[1].bias.shape, generator=clock)


class BatchStatistics(Sound):
    def predict(self, x, *, generator):
        return self.logits(x - x.mean(dim=0)).argmax(dim=1)


class Rounding(nn.Module):
    def __init__(self, network, levels, *, straight_through):
        super().__init__()
        self.network, self.levels, self.straight_through = network, levels, straight_through

    def forward(self, x):
        rounded = (x * self.levels).round() / self.levels
        return self.network(x + (rounded - x).detach() if self.straight_through else rounded)


class NoGradient(Sound):
    def surrogates(self):
        return {"rounded": Rounding(self.network, 15, straight_through=False)}


class NoSurrogate(Sound):
    def surrogates(self):
        return {}


class OtherSurrogate(Sound):
    class Negative(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return -self.network(x)

    def surrogates(self):
        return {"negative": self.Negative(self.network)}


class NamesakeSurrogate(Sound):
    def surrogates(self):
        return {"member-1": self.network}


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    levels: int = 3


class RoundingByTable(Rounding):
    """Keeps its setting in a dictionary, which no digest looks into."""

    def __init__(self, network, levels):
        super().__init__(network, 15, straight_through=True)
        self.table = {"levels": levels}

    def forward(self, x):
        rounded = (x * self.table["levels"]).round() / self.table["levels"]
        return self.network(x + (rounded - x).detach())


class HiddenSetting(Sound):
    Settings = Levels

    def surrogates(self):
        return {"bpda": RoundingByTable(self.network, self.settings.levels)}


class DropsItsSettings(HiddenSetting):
    def __init__(self, images, settings=None):
        super().__init__(images)


@dataclass
class Thawed:
    strength: float = 1.0


class ThawedSettings(Sound):
    Settings = Thawed


@dataclass(frozen=True, init=False)
class Loose:
    strength: float = 1.0

    def __init__(self, **anything):
        pass


class LooseSettings(Sound):
    Settings = Loose


class TwoWords(Sound):
    meta = DefenseMeta(name="two words", title="Two words")


def defense_failures(defense):
    return failures(type("Test", (DefenseContract,), {"defense": defense, "recipe": RECIPE}))


@pytest.mark.parametrize("defense", [Sound, Noisy])
def test_a_sound_defense_fails_nothing(defense):
    assert defense_failures(defense) == {}


BROKEN_DEFENSES = {
    MembersInAList: {
        "members_are_registered_networks": "not a registered module",
        "eval_mode_reaches_the_members": "ModuleList",
        "weights_survive_saving_and_loading": "keep networks as modules",
    },
    NaNLogits: {
        "admission": "logits that are not finite",
        "surrogates_are_differentiable": "not finite",
        "surrogates_answer_like_the_defense": "not finite",
    },
    ConstantClass: {
        "admission": "same answer, 0, to all",
        "surrogates_answer_like_the_defense": "the label that predict gives",
    },
    UndeclaredRandomness: {
        "admission": "set randomized=True",
        "answers_do_not_depend_on_the_batch": "declare randomness",
    },
    GlobalRandomness: {
        "predict_leaves_the_global_generators_alone": "draw from its generator argument",
        "generator_decides_all_randomness": "draw all randomness from its generator argument",
    },
    Reseeding: {"predict_leaves_the_global_generators_alone": "call no manual_seed"},
    OnlyCalledRandomized: {"declared_randomness_is_real": "set randomized=False"},
    ColumnOfLabels: {"admission": r"int64 labels of shape \(100,\).*got torch.int64 \(100, 1\)"},
    ClampsInPlace: {"predict_leaves_its_images_alone": "not x.clamp_"},
    UndeclaredAbstention: {"abstention_is_declared": "ABSTAIN to 2 images.*set abstains=True"},
    ForgetsItsThreshold: {"weights_survive_saving_and_loading": "register_buffer"},
    AsksTheClock: {"same_seed_trains_the_same_weights": "first network.1.bias"},
    BatchStatistics: {"answers_do_not_depend_on_the_batch": "no statistics over the batch"},
    NoGradient: {"surrogates_are_differentiable": "has one on 0%.*BPDA"},
    NoSurrogate: {
        "surrogates_are_differentiable": "declare it",
        "surrogates_answer_like_the_defense": "declare it",
    },
    OtherSurrogate: {"surrogates_answer_like_the_defense": "only the backward pass may differ"},
    NamesakeSurrogate: {"surrogates_answer_like_the_defense": "name of another target"},
    HiddenSetting: {"settings_reach_the_digests": "levels=4.*extra_repr"},
    DropsItsSettings: {"settings_are_a_frozen_dataclass_with_defaults": r"super\(\).__init__\(images, settings\)"},
    ThawedSettings: {"settings_are_a_frozen_dataclass_with_defaults": "must be frozen"},
    LooseSettings: {"unknown_settings_are_refused": r"take no \*\*kwargs"},
    TwoWords: {"meta_names_the_defense": "got 'two words'"},
}


@pytest.mark.parametrize("defense", BROKEN_DEFENSES)
def test_a_broken_defense_fails_the_checks_about_its_fault(defense):
    expect_only(defense_failures(defense), BROKEN_DEFENSES[defense])


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    steps: int = 10


class Ascent(Attack):
    """Ten steps of projected gradient ascent, each as long as a quarter of the budget."""

    meta = AttackMeta(name="ascent", title="Ascent", kind="fixed")
    Settings = Steps
    direction = 1.0

    def _perturb(self, target, images, labels, budget):
        x = images
        for _ in range(self.settings.steps):
            x = project(images, x + budget.eps / 4 * self.step(target, x, labels, budget), budget)
        return x

    def step(self, target, x, labels, budget):
        x = x.detach().requires_grad_()
        loss = nn.functional.cross_entropy(target(x), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        if budget.norm == "linf":
            return self.direction * gradient.sign()
        return self.direction * nn.functional.normalize(gradient.flatten(1)).view_as(x)


class Nearest(Ascent):
    """The nearest of the points on the way that are misclassified."""

    meta = AttackMeta(name="nearest", title="Nearest", kind="minimum_norm", norms=("l2",))

    def _perturb(self, target, images, labels, budget):
        x, found = images, images
        standing = torch.ones_like(labels, dtype=torch.bool)
        for _ in range(80):
            x = (x + 0.05 * self.step(target, x, labels, budget)).clamp(0, 1)
            standing &= target(x).argmax(dim=1) == labels
            found = torch.where(standing.view(-1, 1, 1, 1), images, torch.where(found == images, x, found))
        return found


class WorksInPlace(Ascent):
    """Overwrites what it is given: a copy, so that nobody is harmed."""

    def _perturb(self, target, images, labels, budget):
        images.copy_(super()._perturb(target, images.clone(), labels, budget))
        labels.zero_()
        return images


class LeavesTheBudget(Ascent):
    def _perturb(self, target, images, labels, budget):
        return (images + 2 * (super()._perturb(target, images, labels, budget) - images)).clamp(0, 1)


class LeavesTheBox(Ascent):
    def _perturb(self, target, images, labels, budget):
        return images + budget.eps * self.step(target, images, labels, budget)


class ReturnsClean(Ascent):
    def _perturb(self, target, images, labels, budget):
        return images


class Descent(Ascent):
    direction = -1.0


class GoesFar(Nearest):
    def _perturb(self, target, images, labels, budget):
        return (images + 2 * self.step(target, images, labels, budget)).clamp(0, 1)


class Flattens(Ascent):
    def _perturb(self, target, images, labels, budget):
        return images.flatten(1)


class NeedsSomethingRight(Ascent):
    def _perturb(self, target, images, labels, budget):
        right = target(images).argmax(dim=1) == labels
        images[right].flatten(1).amax(dim=1).max()
        return super()._perturb(target, images, labels, budget)


class SqueezesTheBatch(Ascent):
    def _perturb(self, target, images, labels, budget):
        return super()._perturb(target, images, labels, budget).squeeze(0)


class StartsByTheClock(Ascent):
    def _perturb(self, target, images, labels, budget):
        found = super()._perturb(target, images, labels, budget)
        clock = torch.Generator().manual_seed(time.time_ns())
        return images + (found - images) * (1 - 1e-3 * torch.rand(images.shape, generator=clock))


class CallsBackward(Ascent):
    def _perturb(self, target, images, labels, budget):
        target.requires_grad_(True)
        nn.functional.cross_entropy(target(images), labels).backward()
        return super()._perturb(target, images, labels, budget)


class TrainsTheTarget(Ascent):
    def _perturb(self, target, images, labels, budget):
        target.train()
        return super()._perturb(target, images, labels, budget)


class ChangesTheTarget(Ascent):
    def _perturb(self, target, images, labels, budget):
        with torch.no_grad():
            for parameter in target.parameters():
                parameter.mul_(1.001)
        return super()._perturb(target, images, labels, budget)


class IgnoresTheDetector(Ascent):
    meta = AttackMeta(name="ascent", title="Ascent", kind="fixed", access="detectors")


class LeavesTheManifold(Nearest):
    meta = AttackMeta(name="nearest", title="Nearest", kind="minimum_norm", norms=("l2",), access="generator")

    def _perturb(self, target, images, labels, budget):
        found = super()._perturb(target, images, labels, budget)
        found[..., ::2] += 0.01
        return found.clamp(0, 1)


class AsksForAGradient(Ascent):
    meta = AttackMeta(name="ascent", title="Ascent", kind="fixed", access="scores")


class ThawedParameters(Ascent):
    @dataclass
    class Settings:
        steps: int = 10


class LooseParameters(Ascent):
    @dataclass(frozen=True, init=False)
    class Settings:
        steps: int = 10

        def __init__(self, **anything):
            pass


class UnknownEffort(Ascent):
    meta = AttackMeta(name="ascent", title="Ascent", kind="fixed", effort="rounds")


class UnknownKind(Ascent):
    meta = AttackMeta(name="ascent", title="Ascent", kind="fixed", applies_to="everyone")


class GuessesALot(Attack):
    """The first of many random points at the edge of the budget that is misclassified; sees scores alone."""

    meta = AttackMeta(name="guesses", title="Guesses", kind="fixed", norms=("linf",), access="decisions")

    def _perturb(self, target, images, labels, budget):
        found = images
        for _ in range(200):
            x = project(images, images + budget.eps * torch.randn_like(images).sign(), budget)
            standing = (target(found).argmax(dim=1) == labels).view(-1, 1, 1, 1)
            found = torch.where(standing, x, found)
        return found


class StaysInPairs(Ascent):
    """Moves both values of a pair alike, which the contract's detector accepts."""

    meta = AttackMeta(name="pairs", title="Pairs", kind="fixed", access="detectors")

    def step(self, target, x, labels, budget):
        raw = target.rejections(x).amax() * 0 + super().step(target, x, labels, budget)
        halves = raw[..., ::2] + raw[..., 1::2]
        return halves.repeat_interleave(2, dim=3) / 2


class StaysOnTheManifold(Ascent):
    """Descends in the latents, from one that makes the clean image."""

    meta = AttackMeta(name="latents", title="Latents", kind="minimum_norm", norms=("l2",), access="generator")

    def _perturb(self, target, images, labels, budget):
        generator = target.generator
        latent = images[..., ::2].flatten(1).clamp(0.01, 0.99).logit()
        assert latent.shape[1] == generator.latent_dimension
        found, standing = images, generator.classify(generator.generate(latent)).argmax(dim=1) == labels
        for _ in range(80):
            latent = latent.detach().requires_grad_()
            loss = nn.functional.cross_entropy(generator.classify(generator.generate(latent)), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, latent)
            latent = latent + 0.1 * nn.functional.normalize(gradient)
            x = generator.generate(latent).detach()
            fooled = standing & (generator.classify(x).argmax(dim=1) != labels)
            found, standing = torch.where(fooled.view(-1, 1, 1, 1), x, found), standing & ~fooled
        return found


def attack_failures(attack):
    return failures(type("Test", (AttackContract,), {"attack": attack}))


@pytest.mark.parametrize("attack", [Ascent, Nearest, WorksInPlace, GuessesALot, StaysInPairs, StaysOnTheManifold])
def test_a_sound_attack_fails_nothing(attack):
    assert attack_failures(attack) == {}


BROKEN_ATTACKS = {
    LeavesTheBudget: {"budget_and_box_are_kept": "must be within linf 0.1 of the clean one"},
    LeavesTheBox: {"budget_and_box_are_kept": r"must have pixels in \[0, 1\]"},
    ReturnsClean: {"finds_the_boundary_of_a_linear_model": "found them for 0%"},
    Descent: {"finds_the_boundary_of_a_linear_model": "gradient's sign"},
    GoesFar: {"finds_the_boundary_of_a_linear_model": "2 times as far away"},
    Flattens: dict.fromkeys(
        (
            "budget_and_box_are_kept",
            "same_seed_gives_the_same_images",
            "leaves_everything_else_alone",
            "finds_the_boundary_of_a_linear_model",
            "misclassified_images_come_back_whole",
            "takes_a_single_image",
        ),
        "must return images of shape",
    ),
    NeedsSomethingRight: {"misclassified_images_come_back_whole": "failed: RuntimeError"},
    SqueezesTheBatch: {"takes_a_single_image": r"shape \(1, 1, 6, 6\), got \(1, 6, 6\)"},
    StartsByTheClock: {"same_seed_gives_the_same_images": "run again with the same seed"},
    CallsBackward: {"leaves_everything_else_alone": "torch.autograd.grad"},
    TrainsTheTarget: {"leaves_everything_else_alone": "in evaluation mode"},
    ChangesTheTarget: {"leaves_everything_else_alone": "must not change the target's weights"},
    IgnoresTheDetector: {"finds_the_boundary_of_a_linear_model": "of pairs of equal values .*found them for 0%"},
    LeavesTheManifold: {"finds_the_boundary_of_a_linear_model": "of pairs of equal values .*found them for 0%"},
    AsksForAGradient: dict.fromkeys(
        (
            "budget_and_box_are_kept",
            "same_seed_gives_the_same_images",
            "leaves_everything_else_alone",
            "finds_the_boundary_of_a_linear_model",
            "misclassified_images_come_back_whole",
            "takes_a_single_image",
        ),
        "meta says access='scores', but it asked for a gradient",
    ),
    ThawedParameters: {"settings_are_a_frozen_dataclass_with_defaults": "must be frozen"},
    LooseParameters: {"unknown_settings_are_refused": r"take no \*\*kwargs"},
    UnknownEffort: {"meta_names_the_attack": "meta.effort must be a setting of an attack that searches"},
    UnknownKind: {"meta_names_the_attack": "must be one of any, deterministic, randomized, got 'everyone'"},
}


@pytest.mark.parametrize("attack", BROKEN_ATTACKS)
def test_a_broken_attack_fails_the_checks_about_its_fault(attack):
    expect_only(attack_failures(attack), BROKEN_ATTACKS[attack])


class Each(EachTarget):
    meta = ThreatModelMeta(name="each", title="Each", sees="part", legend="each member's.")

    def targets(self, roles):
        return roles.members


class AsksForMore(Each):
    def targets(self, roles):
        return (*roles.members, "the-weights")


class AsksForNothing(Each):
    def targets(self, roles):
        return ()


class AsksByTurns(Each):
    turns = itertools.cycle((False, True))

    def targets(self, roles):
        return sorted(roles.members, reverse=next(self.turns))


class Summed(ThreatModel):
    meta = ThreatModelMeta(name="summed", title="Summed", sees="part", legend="the sum.")

    def targets(self, roles):
        return roles.members

    def candidates(self, clean, crafted, budget):
        yield "sum", clean + sum(adversarial - clean for adversarial in crafted.values())


class Projected(Summed):
    def candidates(self, clean, crafted, budget):
        for _, images in super().candidates(clean, crafted, budget):
            yield "sum", project(clean, images, budget)


class Namesakes(Projected):
    def candidates(self, clean, crafted, budget):
        yield from super().candidates(clean, crafted, budget)
        yield "sum", clean


class CountsImages(Projected):
    def candidates(self, clean, crafted, budget):
        for name, images in super().candidates(clean, crafted, budget):
            yield f"{name} of {len(images)}", images


class Draws(Projected):
    def candidates(self, clean, crafted, budget):
        yield "noise", project(clean, clean + torch.randn_like(clean), budget)


class AddsInPlace(Projected):
    def candidates(self, clean, crafted, budget):
        first, *others = crafted.values()
        for each in others:
            first += each - clean
        yield "sum", project(clean, first, budget)


class NeedsThemAll(Projected):
    def candidates(self, clean, crafted, budget):
        for name in ("member-1", "member-2", "member-3"):
            yield name, project(clean, crafted[name], budget)


class SeesMuch(Each):
    meta = ThreatModelMeta(name="much", title="Much", sees="much", legend="much.")


class SaysNothing(Each):
    meta = ThreatModelMeta(name="mute", title="Mute", sees="part", legend="")


def threat_model_failures(threat_model):
    return failures(type("Test", (ThreatModelContract,), {"threat_model": threat_model}))


@pytest.mark.parametrize("threat_model", [Each, Projected])
def test_a_sound_threat_model_fails_nothing(threat_model):
    assert threat_model_failures(threat_model) == {}


BROKEN_THREAT_MODELS = {
    AsksForMore: {"targets_are_among_the_roles": r"got \['the-weights'\]; take the names from roles"},
    AsksForNothing: {
        "targets_are_among_the_roles": "must name a target of a defence",
        "candidates_have_names_of_their_own": "must yield at least one candidate",
    },
    AsksByTurns: {"targets_come_in_the_same_order": "the same order when asked again"},
    Summed: {"candidates_keep_budget_and_box": "must have pixels in .*use project"},
    Namesakes: {"candidates_have_names_of_their_own": "must name each candidate otherwise, got sum, sum"},
    CountsImages: {"candidates_have_names_of_their_own": "for a part of them sum of 1"},
    Draws: {"same_crafts_give_the_same_candidates": "draw nothing"},
    AddsInPlace: {
        "leaves_images_alone": "work on a copy",
        "same_crafts_give_the_same_candidates": "the same candidates",
    },
    NeedsThemAll: {"takes_what_was_crafted": "member-2"},
    SeesMuch: {"meta_says_what_it_sees": "one of transfer, part, whole, got 'much'"},
    SaysNothing: {"meta_says_what_it_sees": "meta.legend must be the line"},
}


@pytest.mark.parametrize("threat_model", BROKEN_THREAT_MODELS)
def test_a_broken_threat_model_fails_the_checks_about_its_fault(threat_model):
    expect_only(threat_model_failures(threat_model), BROKEN_THREAT_MODELS[threat_model])


def test_without_pytest_the_contract_says_what_to_install():
    hidden = "import sys; sys.modules['pytest'] = None; import dkd_bench.testing"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert "ImportError: dkd_bench.testing runs under pytest, which is not installed; run 'pip install" in done.stderr
