"""Admission: which answers to clean images keep a defence's promises, and the sentence on each that does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dkd_bench.defense import ABSTAIN, NO_MAJORITY, DefenseMeta
from dkd_bench.defense.admission import admit
from dkd_bench.errors import ConfigError, PluginError, UndeclaredRandomnessError
from toy_run import Noisy, Pair, Rejecting, Steady, Undeclared, toy_dataset

SPEC = toy_dataset().image_spec
IMAGES, LABELS = toy_dataset().test.batch(torch.arange(8))


class Saying(Steady):
    """Answers as it is told to, given the right labels."""

    meta = DefenseMeta(name="saying", title="Saying")

    def __init__(self, say: Callable[[Tensor], Any]) -> None:
        super().__init__(SPEC)
        self.say = say

    def predict(self, x: Tensor, *, generator: torch.Generator) -> Any:
        return self.say(LABELS[: len(x)].clone())


class SayingRejects(Saying):
    meta = DefenseMeta(name="saying", title="Saying", abstains=True)


class TwoRules(Steady):
    """Judged by two rules, the second of which answers with one class alone."""

    def decide(self, x: Tensor, *, generator: torch.Generator) -> Mapping[str, Tensor]:
        right = self.predict(x, generator=generator)
        return {"majority": right, "lazy": torch.full_like(right, 2)}


class WithMember(Steady):
    """Its second member returns what it is told to, given the right logits."""

    def __init__(self, say: Callable[[Tensor], Any]) -> None:
        super().__init__(SPEC)
        self.second = Saying(say)
        self.second.forward = lambda x: say(self.network(x))

    @property
    def members(self) -> list[nn.Module]:
        return [self.network, self.second]


def first_is(answer: int) -> Callable[[Tensor], Tensor]:
    """Return the right labels but for the first image."""

    def say(labels: Tensor) -> Tensor:
        labels[0] = answer
        return labels

    return say


def raising(error: Exception) -> Callable[[Tensor], Tensor]:
    def say(_: Tensor) -> Tensor:
        raise error

    return say


@pytest.mark.parametrize(
    "defense",
    [
        pytest.param(Steady(SPEC), id="plain"),
        pytest.param(Pair(SPEC), id="ensemble"),
        pytest.param(Rejecting(SPEC), id="abstains"),
        pytest.param(Noisy(SPEC), id="random and says so"),
        pytest.param(SayingRejects(first_is(ABSTAIN)), id="declared reject"),
        pytest.param(Saying(first_is(NO_MAJORITY)), id="failed majority"),
        pytest.param(Saying(first_is(3)), id="wrong answer"),
    ],
)
def test_who_keeps_the_promises_is_admitted(defense: Steady) -> None:
    admit("toy", defense.eval(), IMAGES)


def test_one_image_may_have_one_answer() -> None:
    admit("toy", Saying(torch.zeros_like), IMAGES[:1])


EXPECTED = r"must answer with int64 labels of shape \(8,\) under decision rule 'deployed', got"
ANSWERS = [
    pytest.param(lambda labels: labels.int(), rf"{EXPECTED} torch.int32 \(8,\)", id="type"),
    pytest.param(lambda labels: labels[:-1], rf"{EXPECTED} torch.int64 \(7,\)", id="too few"),
    pytest.param(lambda labels: labels.unsqueeze(1), rf"{EXPECTED} torch.int64 \(8, 1\)", id="shape"),
    pytest.param(lambda labels: labels.tolist(), f"{EXPECTED} list", id="no tensor"),
    pytest.param(first_is(4), "labels from 0 to 3, ABSTAIN or NO_MAJORITY, got 4", id="no such class"),
    pytest.param(first_is(-3), "labels from 0 to 3, ABSTAIN or NO_MAJORITY, got -3", id="no such reject"),
    pytest.param(first_is(ABSTAIN), "abstains but does not declare it; set abstains=True", id="undeclared reject"),
    pytest.param(torch.zeros_like, "the same answer, 0, to all 8 clean images under", id="one answer"),
    pytest.param(raising(RuntimeError("no")), "fails on clean images: RuntimeError: no", id="fails"),
]


@pytest.mark.parametrize(("say", "sentence"), ANSWERS)
def test_a_broken_promise_gets_one_sentence(say: Callable[[Tensor], Any], sentence: str) -> None:
    with pytest.raises(PluginError, match=f"^defence 'toy' .*{sentence}"):
        admit("toy", Saying(say), IMAGES)


def test_who_rejects_everything_does_not_classify() -> None:
    with pytest.raises(PluginError, match="the same answer, ABSTAIN, to all 8 clean images"):
        admit("toy", SayingRejects(lambda labels: torch.full_like(labels, ABSTAIN)), IMAGES)


def test_every_decision_rule_is_looked_at() -> None:
    with pytest.raises(PluginError, match="the same answer, 2, to all 8 clean images under decision rule 'lazy'"):
        admit("toy", TwoRules(SPEC), IMAGES)


def test_who_is_random_must_say_so() -> None:
    with pytest.raises(UndeclaredRandomnessError, match=r"answers differently when asked again .* set randomized=True"):
        admit("toy", Undeclared(SPEC), IMAGES)


@pytest.mark.parametrize(
    ("say", "sentence"),
    [
        (lambda logits: logits[:, :3], r"must return logits of shape \(8, 4\), got \(8, 3\)"),
        (lambda logits: (logits, logits), r"must return logits of shape \(8, 4\), got tuple"),
        (lambda logits: logits / 0, "returns logits that are not finite"),
    ],
)
def test_every_member_must_return_logits(say: Callable[[Tensor], Any], sentence: str) -> None:
    with pytest.raises(PluginError, match=f"^member 2 of defence 'toy' {sentence}"):
        admit("toy", WithMember(say), IMAGES)


def test_what_says_what_is_wrong_itself_is_passed_on() -> None:
    with pytest.raises(ConfigError, match=r"^my own words$"):
        admit("toy", Saying(raising(ConfigError("my own words"))), IMAGES)
