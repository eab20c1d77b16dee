"""Common parts of the contracts: the images, the recipe, and how a check says what is wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from dkd_bench.data import Dataset, Split, select_balanced
from dkd_bench.data.digits import load_digits
from dkd_bench.errors import ConfigError
from dkd_bench.plugins.settings import settings_as_json, settings_from_words
from dkd_bench.store.digests import digest_json
from dkd_bench.target.randomness import isolated_randomness
from dkd_bench.training import Recipe

QUICK_RECIPE = Recipe(name="contract", epochs=6, batch_size=25, learning_rate=3e-3, schedule="one-cycle")
"""Recipe that trains a small network on ``quick_dataset()`` well enough to be asked questions, in half a second."""

_UNKNOWN = "no_such_setting"


@cache
def quick_dataset() -> Dataset:
    """Return 400 training and 100 test images of the digits."""
    digits = load_digits(argument=None, root=None)
    return Dataset(
        name="digits-contract",
        train=_part(digits.train, 400),
        test=_part(digits.test, 100),
        n_classes=digits.n_classes,
        default_n_examples=100,
        default_eps=digits.default_eps,
    )


def checks_of(contract: type) -> tuple[str, ...]:
    """Return the names of a contract's checks, in the order in which they are written."""
    ordered = (name for base in reversed(contract.__mro__) for name in vars(base) if name.startswith("test_"))
    return tuple(dict.fromkeys(ordered))


def expect(condition: object, message: str) -> None:
    """Raise AssertionError with ``message``: what was expected, what was found, what to do."""
    __tracebackhide__ = True
    if not condition:
        raise AssertionError(message)


def global_generators() -> tuple[str, bytes, bytes]:
    """Return the state of Python's, numpy's and torch's global generators, to compare."""
    numpy_state: Any = np.random.get_state()
    return repr(random.getstate()), repr(numpy_state[1:]).encode() + numpy_state[1].tobytes(), _torch_state()


@contextmanager
def moved_generators() -> Iterator[None]:
    """Put the global generators where no seed puts them, and back afterwards."""
    with isolated_randomness(271828):
        random.random()
        np.random.random()
        torch.rand(1)
        yield


def expect_frozen_with_defaults(settings_type: type[Any], *, owner: str) -> None:
    """Check that a type of settings is what ``--set`` and the keys need."""
    expect(
        isinstance(settings_type, type) and is_dataclass(settings_type),
        f"{owner} must be a dataclass, got {settings_type!r}; write @dataclass(frozen=True, slots=True, kw_only=True)",
    )
    expect(
        settings_type.__dataclass_params__.frozen,
        f"{owner} must be frozen, since it is part of a key; write @dataclass(frozen=True, slots=True, kw_only=True)",
    )
    required = [
        each.name for each in fields(settings_type) if each.default is MISSING and each.default_factory is MISSING
    ]
    expect(
        not required,
        f"every field of {owner} must have a default, so that a run without --set works; "
        f"{', '.join(required)} has none",
    )
    try:
        digest_json(settings_as_json(settings_type()))
    except TypeError as error:
        raise AssertionError(
            f"the values of {owner} must be plain (numbers, words, tuples of them), since they are part of a key; "
            f"got {settings_type()!r}: {error}"
        ) from error


def expect_unknown_refused(settings_type: type[Any], *, owner: str) -> None:
    """Check that a misspelt setting is an error, in words and in Python."""
    try:
        settings_from_words(settings_type, {_UNKNOWN: "1"}, owner=owner)
    except ConfigError:
        pass
    else:
        raise AssertionError(f"{owner} must refuse '--set {_UNKNOWN}=1', but took it; give it no field of that name")
    try:
        settings_type(**{_UNKNOWN: 1})
    except TypeError:
        return
    raise AssertionError(f"{owner}({_UNKNOWN}=1) must raise TypeError, but passed; take no **kwargs")


def expect_name_and_title(meta: Any, *, owner: str) -> None:
    """Check the words that a leaderboard and ``--set`` use."""
    expect(
        isinstance(meta.name, str) and meta.name and not set(meta.name) & set(" \t\n/:=,"),
        f"{owner}'s meta.name must be one word without / : = or comma, since the command line uses it; "
        f"got {meta.name!r}",
    )
    expect(
        isinstance(meta.title, str) and meta.title.strip(),
        f"{owner}'s meta.title must say what a leaderboard calls it; got {meta.title!r}",
    )


def _part(split: Split, n_examples: int) -> Split:
    chosen = select_balanced(split.labels, n_examples=n_examples, seed=0)
    return Split(images=split.images[chosen], labels=split.labels[chosen], white=split.white)


def _torch_state() -> bytes:
    return torch.get_rng_state().numpy().tobytes()
