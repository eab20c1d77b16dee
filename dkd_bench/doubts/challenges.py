"""Challenges: small attacks on an attack itself, to see whether its number holds (Carlini et al. 2019).

A few images are attacked without any budget, again with twice as many steps, and with random noise. Each must go as it
does for an attack that works; what does not is a flag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import torch
from torch import Tensor

from dkd_bench.attacks import Attack, AttackMeta
from dkd_bench.budget import Budget, project
from dkd_bench.data import Chunk
from dkd_bench.defense import ABSTAIN, Defense
from dkd_bench.doubts.contradictions import count_lost_to_weaker, sees_everything, worst_shares
from dkd_bench.errors import DkdBenchError
from dkd_bench.records import CellRecord, FlagRecord, Outcome
from dkd_bench.records.flags import ATTACK_ERROR, MORE_STEPS, NOISE, UNBOUNDED
from dkd_bench.records.statistics import wilson_interval
from dkd_bench.steps.crafter import Crafter
from dkd_bench.steps.plan import Craft
from dkd_bench.steps.prepare import Prepared
from dkd_bench.steps.scoring import decided
from dkd_bench.store.digests import digest_json, seed_from

FEWEST_IMAGES, MOST_IMAGES = 8, 128
IMAGES_PER_CHALLENGED = 8
"""Inverse of the share of images challenged, every eighth, but not fewer and not more than the two numbers above; in
the whole box, where none may stand, the fewest do."""
NOISE_DRAWS = 10
WHOLE_BOX = Budget(norm="linf", eps=1.0)
"""Budget within which every pixel may take any value."""
TOLERATED_STANDING = 0.05
"""Share of images that may stand the whole box, or one of them: some draw of a random defence is always right."""
TOLERATED_LOSS = 0.02
"""Accuracy that more steps, or noise, may take without casting doubt on a number; more must be sure to 95 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """Flag, with the cell whose number it casts doubt on; ``None`` for every number of the defence."""

    flag: FlagRecord
    cell: CellRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenged:
    """Results of the challenges of one defence."""

    raised: tuple[Raised, ...] = ()
    failed: bool = False
    """Whether one of them could not be carried out; the others were."""


@final
class Challenger:
    """Challenger of the attacks of a run, one defence after the other."""

    def __init__(self, prepared: Prepared, crafter: Crafter) -> None:
        """Work on what a run prepared; what is crafted is kept and found again, as a run's own crafts are."""
        self._prepared = prepared
        self._crafter = crafter
        self.keys: set[str] = set()
        """Of what was crafted here, which no cell uses."""
        self._images = min(MOST_IMAGES, max(FEWEST_IMAGES, len(prepared.images) // IMAGES_PER_CHALLENGED))

    def challenge(self, name: str, cells: Sequence[CellRecord]) -> Challenged:
        """Return the flags raised against the numbers of defence ``name``, given its cells."""
        white = [cell for cell in cells if cell.status == "ok" and cell.eps is not None and self._sees_everything(cell)]
        checks: list[Callable[[], list[Raised]]] = []
        searching = [cell for cell in white if self._meta(cell).kind == "fixed" and not self._meta(cell).single_step]
        if searching:
            checks.append(partial(self._whole_box, name, self._strongest(searching)))
        for rule_and_budget in _by_rule_and_budget(white):
            checks.append(partial(self._more_steps, name, rule_and_budget))
            checks.append(partial(self._noise, name, rule_and_budget))
        raised: list[Raised] = []
        failed = False
        for check in checks:
            try:
                raised += check()
            except DkdBenchError as error:
                failed = True
                flag = FlagRecord(name=ATTACK_ERROR, detail=f"when it was challenged: {error}")
                raised.append(Raised(flag=flag))
        return Challenged(raised=tuple(raised), failed=failed)

    def _meta(self, cell: CellRecord) -> AttackMeta:
        return self._prepared.attacks[cell.attack].meta

    def _sees_everything(self, cell: CellRecord) -> bool:
        return sees_everything(self._meta(cell), self._prepared.threat_models[cell.threat_model].meta)

    def _strongest(self, cells: Sequence[CellRecord]) -> CellRecord:
        """Return the cell with the lowest accuracy, of attacks whose effort is known if there are any."""
        return min(cells, key=lambda cell: (self._meta(cell).effort is None, _accuracy(cell)))

    def _whole_box(self, name: str, cell: CellRecord) -> list[Raised]:
        """Attack images within the whole box, those first that stood the budget: none of them can stand that."""
        survival = cell.shares
        right = [row for row, outcome in enumerate(cell.outcomes) if outcome is not Outcome.CLEAN_ERROR]
        rows = sorted(right, key=lambda row: survival[row], reverse=True)[:FEWEST_IMAGES]
        if not rows or WHOLE_BOX.norm not in self._meta(cell).norms:
            return []
        crafted = self._crafted(name, cell, self._prepared.attacks[cell.attack], WHOLE_BOX, rows)
        standing = float(self._survival(name, crafted, rows)[cell.decision].sum())
        if standing <= max(1.0, TOLERATED_STANDING * len(rows)):
            return []
        share = standing / len(rows)
        detail = f"{100 * share:.0f} % of {len(rows)} images stand {cell.attack} that may change every pixel at will"
        return [Raised(flag=FlagRecord(name=UNBOUNDED, detail=detail, share=share))]

    def _more_steps(self, name: str, cells: Sequence[CellRecord]) -> list[Raised]:
        """Attack images that stood everything again, with twice the effort."""
        searching = [cell for cell in cells if self._meta(cell).effort is not None and self._meta(cell).kind == "fixed"]
        rows = _standing(cells)[: self._images]
        if not searching or not rows:
            return []
        cell = self._strongest(searching)
        attack = self._prepared.attacks[cell.attack]
        effort = attack.meta.effort
        assert effort is not None, "only attacks with an effort are doubled"
        doubled = type(attack)(replace(attack.settings, **{effort: 2 * getattr(attack.settings, effort)}))
        crafted = self._crafted(name, cell, doubled, Budget(norm=cell.norm, eps=cell.eps), rows)
        lost = _lost(cells, rows, self._survival(name, crafted, rows)[cell.decision])
        detail = f"{lost} of {len(rows)} images that stood everything fall to {cell.attack} with twice the {effort}"
        return flag_if_significant(MORE_STEPS, detail, lost=lost, looked_at=len(rows), cells=cells, cell=cell)

    def _noise(self, name: str, cells: Sequence[CellRecord]) -> list[Raised]:
        """Show the defence random points of the budget for images that stood everything."""
        rows = _standing(cells)[: self._images]
        if not rows:
            return []
        cell = min(cells, key=_accuracy)
        images, budget = self._prepared.images.at(rows)[0], Budget(norm=cell.norm, eps=cell.eps)
        generator = torch.Generator().manual_seed(self._prepared.request.seed)
        drawn = []
        for _ in range(NOISE_DRAWS):
            noisy = noise_within(images, budget, generator=generator)
            drawn.append(self._survival(name, noisy, rows)[cell.decision])
        stands = torch.stack(drawn)
        # The least of many random answers is low by chance: of a randomised defence the mean is what noise does to it.
        least = stands.mean(dim=0) if cell.survival is not None else stands.amin(dim=0)
        lost = _lost(cells, rows, least)
        detail = f"{lost} of {len(rows)} images that stood everything fall to {NOISE_DRAWS} random points of the budget"
        return flag_if_significant(NOISE, detail, lost=lost, looked_at=len(rows), cells=cells, cell=cell)

    def _crafted(self, name: str, cell: CellRecord, attack: Attack, budget: Budget, rows: Sequence[int]) -> Tensor:
        """Return images crafted on the target of ``cell`` that did the defence most harm, found again or made."""
        craft = self._strongest_craft(name, cell)
        changes = {"norm": budget.norm, "eps": budget.eps, "rows": list(rows)}
        # The key knows the attack's code, the seed only its parameters: other code searches from the same points.
        key = digest_json({**changes, "challenge": craft.keys, "attack": attack.identity()})
        seed = seed_from({**changes, "challenge": craft.seeds, "parameters": attack.identity()["parameters"]})
        self.keys.add(key)
        images, labels = self._prepared.images.at(rows)
        chunk = Chunk(number=0, images=images, labels=labels)
        challenge = replace(craft, budget=budget, keys=(key,), seeds=(seed,))
        evidence = self._crafter.evidence(challenge, attack, self._prepared.targets.target(craft), chunk)
        return evidence.images.to(images.device)

    def _strongest_craft(self, name: str, cell: CellRecord) -> Craft:
        wanted = (name, cell.threat_model, cell.attack)
        trial = next(
            trial
            for trial in self._prepared.plan.trials
            if (trial.defense, trial.threat_model, trial.attack) == wanted
            and any((budget.norm, budget.eps) == (cell.norm, cell.eps) for budget in trial.budgets)
        )
        return trial.crafts[min(cell.candidates, key=lambda candidate: candidate.robust_accuracy).name]

    def _survival(self, name: str, images: Tensor, rows: Sequence[int]) -> Mapping[str, Tensor]:
        """Return by decision rule the share of draws in which each image is answered right, or rejected."""
        defense: Defense = self._prepared.subjects.defenses[name].defense
        answers = decided(defense, images, seed=self._prepared.request.seed)
        truth = self._prepared.images.at(rows)[1].cpu()
        return {
            rule: ((labels == truth) | (defense.meta.abstains & (labels == ABSTAIN))).double().mean(dim=0)
            for rule, labels in answers.items()
        }


def noise_within(images: Tensor, budget: Budget, *, generator: torch.Generator) -> Tensor:
    """Return one random point of the budget for each image: a corner in Linf, of the sphere in L2, few values in L0."""
    assert budget.eps is not None, "noise needs a budget"
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    if budget.norm == "linf":
        return project(images, images + budget.eps * noise.sign(), budget)
    if budget.norm == "l2":
        length = noise.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        return project(images, images + budget.eps * noise / length, budget)
    # Noise as the image itself: in L0 the projection keeps the few largest changes and takes the others back.
    return project(images, noise, budget)


def flag_if_significant(
    name: str, detail: str, *, lost: int, looked_at: int, cells: Sequence[CellRecord], cell: CellRecord
) -> list[Raised]:
    """Return the flag if images lost at such a rate are sure to take more accuracy than is tolerated; one is luck."""
    # Only some of the images that stand were attacked again: the rate's lower bound is carried over to all of them.
    at_least = wilson_interval(lost, looked_at)[0] * len(_standing(cells)) / cell.n
    if lost < 2 or at_least <= TOLERATED_LOSS:
        return []
    return [Raised(flag=FlagRecord(name=name, detail=detail, share=lost / looked_at), cell=cell)]


def _standing(cells: Sequence[CellRecord]) -> list[int]:
    """Return the images that stood all of ``cells``."""
    return [row for row, stands in enumerate(worst_shares(cells)) if stands > 0.5]


def _lost(cells: Sequence[CellRecord], rows: Sequence[int], survived: Tensor) -> int:
    """Return the number of images in ``rows``, which stood all of ``cells``, that survive no longer."""
    before = worst_shares(cells)
    return count_lost_to_weaker([before[row] for row in rows], survived.tolist())


def _by_rule_and_budget(cells: Sequence[CellRecord]) -> list[list[CellRecord]]:
    groups: dict[tuple[object, ...], list[CellRecord]] = {}
    for cell in cells:
        groups.setdefault((cell.decision, cell.norm, cell.eps), []).append(cell)
    return list(groups.values())


def _accuracy(cell: CellRecord) -> float:
    assert cell.robust_accuracy is not None, "only scored cells are challenged"
    return cell.robust_accuracy
