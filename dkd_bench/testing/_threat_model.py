"""Contract of a threat model."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import ClassVar, get_args

import torch
from torch import Tensor

from dkd_bench.budget import Budget, check_images, project
from dkd_bench.errors import EvidenceError
from dkd_bench.target.randomness import isolated_randomness
from dkd_bench.testing._common import (
    expect,
    expect_name_and_title,
    global_generators,
    moved_generators,
    quick_dataset,
)
from dkd_bench.threats import Roles, Sight, ThreatModel, ThreatModelMeta

_ROLES = Roles(
    reference="reference",
    members=("member-1", "member-2", "member-3"),
    surrogates=("mean-logit", "sum-of-margins"),
)
_BARE = Roles(reference="reference", members=("member-1",), surrogates=())
"""Roles of a single network whose gradient leads nowhere."""
_BUDGETS = (
    Budget(norm="linf", eps=0.1),
    Budget(norm="l2", eps=0.5),
    Budget(norm="l0", eps=4),
    Budget(norm="linf"),
    Budget(norm="l2"),
    Budget(norm="l0"),
)
_N_IMAGES = 6


class ThreatModelContract(ABC):
    """Contract of every threat model; derive a class named ``Test...`` and set ``threat_model``."""

    threat_model: ClassVar[type[ThreatModel]]

    def test_meta_says_what_it_sees(self) -> None:
        """Plan, board and flags go by the meta."""
        owner = self.threat_model.__name__
        meta = getattr(self.threat_model, "meta", None)
        if not isinstance(meta, ThreatModelMeta):
            raise AssertionError(
                f"{owner}.meta must be a ThreatModelMeta, got {meta!r}; write meta = ThreatModelMeta(name=...)"
            )
        expect_name_and_title(meta, owner=owner)
        known = get_args(Sight)
        expect(meta.sees in known, f"{owner}'s meta.sees must be one of {', '.join(known)}, got {meta.sees!r}")
        expect(
            isinstance(meta.legend, str) and meta.legend.strip().endswith("."),
            f"{owner}'s meta.legend must be the line that a board's legend says of it, ending in a stop; "
            f"got {meta.legend!r}",
        )
        expect(
            isinstance(meta.place, int) and isinstance(meta.mean_over, str),
            f"{owner}'s meta.place must be a whole number and meta.mean_over a word, "
            f"got {meta.place!r} and {meta.mean_over!r}",
        )

    def test_targets_are_among_the_roles(self) -> None:
        """A craft needs a target that the defence offers; one that offers none has no cell, and no failure."""
        for roles in (_ROLES, _BARE, Roles(reference="reference", members=(), surrogates=())):
            offered = {roles.reference, *roles.members, *roles.surrogates}
            targets = list(self._built().targets(roles))
            stray = [name for name in targets if name not in offered]
            expect(
                not stray,
                f"{self.threat_model.__name__}.targets must return some of {', '.join(sorted(offered))}, "
                f"got {stray[:1]}; take the names from roles",
            )
            expect(
                len(set(targets)) == len(targets),
                f"{self.threat_model.__name__}.targets must name each target once, got {', '.join(targets)}",
            )
        expect(
            list(self._built().targets(_ROLES)),
            f"{self.threat_model.__name__}.targets must name a target of a defence that offers {_ROLES}, got none",
        )

    def test_targets_come_in_the_same_order(self) -> None:
        """Evidence is recorded target by target, and read again in that order."""
        first = list(self._built().targets(_ROLES))
        with moved_generators():
            second = list(self._built().targets(_ROLES))
        expect(
            first == second,
            f"{self.threat_model.__name__}.targets must give the same order when asked again, got "
            f"{', '.join(first)} and then {', '.join(second)}; return a tuple, no set",
        )

    def test_candidates_keep_budget_and_box(self) -> None:
        """A candidate outside the budget would be scored as one within; nothing is clipped for a threat model."""
        clean = _clean()
        for budget in _BUDGETS:
            for crafted in (self._crafted(clean, budget), self._crafted(clean, Budget(norm=budget.norm))):
                for name, images in self._candidates(clean, crafted, budget).items():
                    who = f"{self.threat_model.__name__} candidate {name!r} at {budget}"
                    try:
                        check_images(clean, images, budget, source=who)
                    except EvidenceError as error:
                        raise AssertionError(
                            f"{error}; use project(clean, images, budget), or give the clean image where a "
                            "minimum-norm craft went further than the budget"
                        ) from error

    def test_candidates_have_names_of_their_own(self) -> None:
        """Each name is a line of the record, and the same in every chunk."""
        clean = _clean()
        for budget in _BUDGETS:
            crafted = self._crafted(clean, budget)
            names = [name for name, _ in self._built().candidates(clean, crafted, budget)]
            who = f"{self.threat_model.__name__} at {budget}"
            expect(names, f"{who} must yield at least one candidate, got none")
            expect(len(set(names)) == len(names), f"{who} must name each candidate otherwise, got {', '.join(names)}")
            for rows in (slice(0, 1), slice(1, None)):
                part = {name: images[rows] for name, images in crafted.items()}
                others = [name for name, _ in self._built().candidates(clean[rows], part, budget)]
                expect(
                    others == names,
                    f"{who} must yield the same candidates in the same order for any images, got "
                    f"{', '.join(names)}, and for a part of them {', '.join(others)}",
                )

    def test_same_crafts_give_the_same_candidates(self) -> None:
        """``verify`` makes the candidates again from the evidence, and holds every outcome to the record."""
        clean = _clean()
        for budget in _BUDGETS:
            crafted = self._crafted(clean, budget)
            generators = global_generators()
            first = self._candidates(clean, crafted, budget)
            expect(
                global_generators() == generators,
                f"{self.threat_model.__name__} must leave the global random generators where they were; draw nothing",
            )
            with moved_generators():
                second = self._candidates(clean, crafted, budget)
            expect(
                _same(first, second),
                f"{self.threat_model.__name__} at {budget} must give the same candidates in the same order when asked "
                "again; draw nothing, and keep nothing in self between calls",
            )

    def test_leaves_images_alone(self) -> None:
        """Other threat models and budgets share the clean images and the crafts."""
        clean = _clean()
        for budget in _BUDGETS:
            crafted = self._crafted(clean, budget)
            before = clean.clone(), {name: images.clone() for name, images in crafted.items()}
            self._candidates(clean, crafted, budget)
            expect(
                torch.equal(clean, before[0]) and _same(crafted, before[1]),
                f"{self.threat_model.__name__} at {budget} must not change what it is given; work on a copy",
            )

    def test_takes_what_was_crafted(self) -> None:
        """An attack that applies to some of the targets alone leaves the others out."""
        clean = _clean()
        for budget in _BUDGETS:
            crafted = self._crafted(clean, budget)
            for name in crafted:
                self._candidates(clean, {name: crafted[name]}, budget)

    def _built(self) -> ThreatModel:
        return self.threat_model()

    def _crafted(self, clean: Tensor, budget: Budget) -> dict[str, Tensor]:
        """Return for each target images at random within ``budget`` and the box."""
        with isolated_randomness(11):
            moved = {name: clean + 2 * torch.rand_like(clean) - 1 for name in self._built().targets(_ROLES)}
        return {name: project(clean, images, budget) for name, images in moved.items()}

    def _candidates(self, clean: Tensor, crafted: Mapping[str, Tensor], budget: Budget) -> dict[str, Tensor]:
        return {name: images.clone() for name, images in self._built().candidates(clean, crafted, budget)}


def _clean() -> Tensor:
    images, _ = quick_dataset().test.batch(torch.arange(_N_IMAGES))
    return images


def _same(images: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return list(images) == list(others) and all(torch.equal(images[name], others[name]) for name in images)
