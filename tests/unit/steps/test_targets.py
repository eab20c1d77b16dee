"""Targets: which networks each defence offers, under which names, and what attacks may ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dkd_bench.data import CHUNK_SIZE
from dkd_bench.defense import Defense, DefenseMeta
from dkd_bench.steps.plan import Craft
from dkd_bench.steps.targets import (
    DECISION,
    REFERENCE,
    Targets,
    describe_targets,
    named_members,
    reference_wanted,
    targets_of,
)
from dkd_bench.target import AUTO_BATCH_SIZE
from dkd_bench.target.surrogates import Detecting, OnManifold
from dkd_bench.threats.black_box import BlackBox
from dkd_bench.threats.joint import Joint
from toy_run import LINF, N_CLASSES, Hidden, Noisy, Pair, Rejecting, Steady, lightest_pixel, toy_dataset

SPEC = toy_dataset().image_spec
SHOWN = toy_dataset().test.batch(torch.arange(8))[0]


class Watching(Detecting):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def rejections(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :1]


class Drawing(OnManifold):
    latent_dimension = 1

    def generate(self, latent: Tensor) -> Tensor:
        return latent.view(-1, 1, 1, 1).expand(-1, 1, 2, 2)

    def classify(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Watched(Rejecting):
    meta = DefenseMeta(name="watched", title="Watched", abstains=True)

    def __init__(self, images: object) -> None:
        super().__init__(images)
        self.watching, self.drawing = Watching(), Drawing()

    def surrogates(self) -> Mapping[str, nn.Module]:
        return {"watching": self.watching, "drawing": self.drawing}


def described(*defenses: type[Defense], reference: nn.Module | None = None, batch_size: int | None = None) -> Targets:
    return describe_targets(
        {each.meta.name: each(SPEC).eval() for each in defenses},
        reference={} if reference is None else {REFERENCE: reference},
        shown=SHOWN,
        n_classes=N_CLASSES,
        batch_size=batch_size,
    )


def craft_on(targets: Targets, name: str, *, draws: int = 1) -> Craft:
    (planned,) = targets.planned
    target = planned.targets[name]
    return Craft(
        target=target.digest,
        attack="push",
        budget=LINF,
        draws=draws,
        randomized=target.randomized,
        keys=("key",),
        seeds=(0,),
    )


def test_members_are_counted_from_one() -> None:
    one, two = nn.Identity(), nn.Flatten()
    assert named_members([one, two]) == {"member-1": one, "member-2": two}


def test_targets_have_roles() -> None:
    reference, pair = lightest_pixel(), Pair(SPEC)
    roles, networks = targets_of(pair, reference={REFERENCE: reference})
    assert roles.members == ("member-1", "member-2")
    assert roles.surrogates == ("log-mean-probability", "mean-logit", "sum-of-margins")
    assert list(networks) == [REFERENCE, *roles.members, *roles.surrogates]
    assert (networks[REFERENCE], networks["member-2"]) == (reference, pair.second)


def test_without_surrogates_the_answers_are_the_target() -> None:
    targets = described(Hidden)
    assert targets.planned[0].roles.surrogates == (DECISION,)
    assert targets.offers == {"hidden": ("decisions",)}


def test_one_network_of_two_defences_is_one_target() -> None:
    targets = described(Steady, Pair, reference=lightest_pixel())
    steady, pair = targets.planned
    shared = steady.targets["member-1"].digest
    assert {steady.targets["whole"].digest, steady.targets[REFERENCE].digest, pair.targets["member-1"].digest} == {
        shared
    }
    assert pair.targets["member-2"].digest != shared
    assert targets.networks[shared].called == REFERENCE
    assert targets.networks[pair.targets["member-2"].digest].called == "pair member-2"


def test_only_networks_that_vary_are_random() -> None:
    (noisy,) = described(Noisy, reference=lightest_pixel()).planned
    assert {name: target.randomized for name, target in noisy.targets.items()} == {
        REFERENCE: False,
        "member-1": False,
        "noisy": True,
    }


def test_a_defence_that_hides_its_gradients_offers_its_answers_too() -> None:
    (noisy,) = described(Noisy).planned
    assert noisy.targets["member-1"].access == {"gradients"}
    assert noisy.targets["noisy"].access == {"gradients", "scores", "decisions"}


def test_detectors_and_generators_are_offered() -> None:
    targets = described(Watched)
    (watched,) = targets.planned
    assert watched.targets["watching"].access == {"gradients", "detectors"}
    assert watched.targets["drawing"].access == {"gradients", "generator"}
    assert targets.offers == {"watched": ("detectors", "generator", "gradients")}


@pytest.mark.parametrize(("batch_size", "expected"), [(None, AUTO_BATCH_SIZE), (3, 3)])
def test_a_target_is_what_its_craft_says(batch_size: int | None, expected: int) -> None:
    targets = described(Steady, batch_size=batch_size)
    target = targets.target(craft_on(targets, "whole", draws=5))
    assert (target.name, target.n_classes, target.draws, target.batch_size) == (
        "steady member-1",
        N_CLASSES,
        5,
        expected,
    )


def test_a_random_target_takes_a_chunk_whole_whatever_the_batch_size() -> None:
    targets = described(Noisy, batch_size=3)
    assert targets.target(craft_on(targets, "noisy")).batch_size == CHUNK_SIZE
    assert targets.target(replace(craft_on(targets, "noisy"), randomized=False)).batch_size == 3


def test_the_reference_is_wanted_where_it_is_attacked() -> None:
    assert reference_wanted({"joint": Joint(), "black-box": BlackBox()})
    assert not reference_wanted({"joint": Joint()})
    assert not reference_wanted({})
