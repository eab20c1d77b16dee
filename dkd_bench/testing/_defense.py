"""Contract of a defence."""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from dkd_bench.data import Dataset
from dkd_bench.defense import ABSTAIN, Defense, DefenseMeta, check_structure
from dkd_bench.defense.admission import admit
from dkd_bench.errors import DkdBenchError
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.weights import ready_for_inference
from dkd_bench.store.digests import digest_module, digest_tensors
from dkd_bench.store.files import load_tensors, save_tensors
from dkd_bench.target import Target
from dkd_bench.target.randomness import isolated_randomness
from dkd_bench.testing._common import (
    QUICK_RECIPE,
    expect,
    expect_frozen_with_defaults,
    expect_name_and_title,
    expect_unknown_refused,
    global_generators,
    moved_generators,
    quick_dataset,
)
from dkd_bench.training import Recipe, TrainingSet

_SEED = 3
_DRAWS = 20
_MOST = 0.5
"""Share of the images on which a surrogate must have a gradient, and agree with the defence, at least."""
_BATCH = 20


class DefenseContract(ABC):
    """Contract of every defence; derive a class named ``Test...`` and set ``defense``."""

    defense: ClassVar[type[Defense]]
    settings: ClassVar[Any] = None
    """Settings to test with; the defaults of ``defense.Settings`` if there are none."""
    recipe: ClassVar[Recipe] = QUICK_RECIPE
    dataset: ClassVar[Dataset | None] = None
    """Images to train and ask on; a part of the digits if there are none."""

    def test_meta_names_the_defense(self) -> None:
        """Command line and leaderboard read the meta."""
        owner = self.defense.__name__
        meta = getattr(self.defense, "meta", None)
        if not isinstance(meta, DefenseMeta):
            raise AssertionError(
                f"{owner}.meta must be a DefenseMeta, got {meta!r}; write meta = DefenseMeta(name=...)"
            )
        expect_name_and_title(meta, owner=owner)

    def test_settings_are_a_frozen_dataclass_with_defaults(self) -> None:
        """Every setting is part of the weights' key, and reached by ``--set``."""
        owner = self.defense.__name__
        expect_frozen_with_defaults(self.defense.Settings, owner=f"{owner}.Settings")
        settings = self.settings if self.settings is not None else self.defense.Settings()
        built = _build(type(self), settings)
        expect(
            built.settings is settings,
            f"{owner}(images, settings).settings must be those settings, got {built.settings!r}; "
            "call super().__init__(images, settings)",
        )

    def test_unknown_settings_are_refused(self) -> None:
        """A misspelt ``--set`` must not run with the default."""
        expect_unknown_refused(self.defense.Settings, owner=f"{self.defense.__name__}.Settings")

    def test_members_are_registered_networks(self) -> None:
        """Members in a plain list are out of reach of ``.to()``, ``.eval()`` and ``state_dict()``."""
        check_structure(_build(type(self), self.settings))

    def test_eval_mode_reaches_the_members(self) -> None:
        """Dropout or batch statistics that stay on make every answer another one."""
        defense = _trained(type(self))
        for position, member in enumerate(defense.members, start=1):
            member.train()
            defense.eval()
            training = [name or "itself" for name, module in member.named_modules() if module.training]
            member.eval()
            expect(
                not training,
                f"after eval() no part of member {position} of {self._owner} may be in training mode, but "
                f"{', '.join(training[:3])} is; keep members in an nn.ModuleList or as attributes",
            )

    def test_weights_survive_saving_and_loading(self) -> None:
        """A defence that is loaded must answer like the one that was trained, or a second run differs."""
        defense = _trained(type(self))
        with TemporaryDirectory() as folder:
            path = Path(folder) / "weights.safetensors"
            save_tensors(path, defense.state_dict(), {"name": defense.meta.name})
            loaded = _build(type(self), self.settings)
            loaded.load_state_dict(load_tensors(path)[0])
        ready_for_inference(loaded)
        images = self._images()
        with isolated_randomness(_SEED):
            before = _decided(defense, images)
        with isolated_randomness(_SEED):
            after = _decided(loaded, images)
        for rule, labels in before.items():
            differing = int((labels != after[rule]).sum())
            expect(
                not differing,
                f"{self._owner} must answer alike after its state_dict() was saved and loaded into a new one, but "
                f"{differing} of {len(images)} answers under {rule!r} differ; keep networks as modules, and what fit() "
                "computes (thresholds, statistics) in buffers: self.register_buffer(name, tensor)",
            )

    def test_same_seed_trains_the_same_weights(self) -> None:
        """Weights are found again by a key that holds the seed."""
        first, second = _trained(type(self)).state_dict(), _train(type(self)).state_dict()
        differing = [name for name in first if not _identical(first[name], second[name])]
        expect(
            not differing,
            f"{self._owner} must train the same weights from the same seed, but {len(differing)} of {len(first)} "
            f"tensors differ, first {', '.join(differing[:1])}; draw all randomness from the generator that fit() is "
            "given",
        )

    def test_admission(self) -> None:
        """A run refuses a defence that does not keep its promises on clean images."""
        defense = _trained(type(self))
        images = self._test_images(100)
        admit(defense.meta.name, defense, images)

    def test_answers_do_not_depend_on_the_batch(self) -> None:
        """The batch size is a matter of speed; it must not decide a label."""
        if self.defense.meta.randomized:
            pytest.skip("declared randomised: answers differ anyway")
        defense, images = _trained(type(self)), self._images()[:_BATCH]
        together = _decided(defense, images)
        alone = [_decided(defense, image.unsqueeze(0)) for image in images]
        for rule, labels in together.items():
            differing = int((labels != torch.cat([each[rule] for each in alone])).sum())
            expect(
                not differing,
                f"{self._owner} must give an image the same label alone as among {_BATCH}, but {differing} labels "
                f"under {rule!r} differ; take no statistics over the batch, and declare randomness",
            )

    def test_predict_leaves_its_images_alone(self) -> None:
        """The same tensor is shown to other defences, and to other rules."""
        images = self._images()
        shown = images.clone()
        _decided(_trained(type(self)), shown)
        changed = int((shown != images).flatten(1).any(dim=1).sum())
        expect(
            not changed,
            f"{self._owner}.predict must not change the images that it is given, but {changed} of {len(images)} have "
            "changed; use x.clamp(0, 1), not x.clamp_(0, 1)",
        )

    def test_predict_leaves_the_global_generators_alone(self) -> None:
        """Only draws from ``generator`` can be made again when a run is verified."""
        defense, images = _trained(type(self)), self._images()
        with moved_generators():
            before = global_generators()
            _decided(defense, images)
            after = global_generators()
        expect(
            after == before,
            f"{self._owner}.predict must leave the global random generators where they were; "
            "draw from its generator argument, as in torch.rand(shape, generator=generator), and call no manual_seed",
        )

    def test_generator_decides_all_randomness(self) -> None:
        """The same generator state gives the same labels, whatever happened elsewhere."""
        defense, images = _trained(type(self)), self._images()
        with isolated_randomness(1):
            first = _decided(defense, images)
        with isolated_randomness(2):
            second = _decided(defense, images)
        for rule, labels in first.items():
            differing = int((labels != second[rule]).sum())
            expect(
                not differing,
                f"{self._owner}.predict must give the same labels for the same state of its generator, but {differing} "
                f"of {len(images)} under {rule!r} differ; draw all randomness from its generator argument",
            )

    def test_declared_randomness_is_real(self) -> None:
        """A randomised defence is scored over draws and attacked in expectation: dear, and pointless if it is not."""
        if not self.defense.meta.randomized:
            pytest.skip("not declared randomised")
        defense, images = _trained(type(self)), torch.cat([self._images(), self._odd_images()])
        draws = [_decided(defense, images, seed=seed) for seed in range(_DRAWS)]
        expect(
            any(not torch.equal(draw[rule], labels) for draw in draws[1:] for rule, labels in draws[0].items()),
            f"{self._owner} declares randomized=True, but gives the same labels for {len(images)} images in {_DRAWS} "
            "draws; draw from the generator that predict is given, or set randomized=False",
        )

    def test_abstention_is_declared(self) -> None:
        """A reject counts as withstanding only for a defence that says it rejects."""
        answers = _decided(_trained(type(self)), torch.cat([self._images(), self._odd_images()]))
        rejected = sum(int((labels == ABSTAIN).sum()) for labels in answers.values())
        expect(
            self.defense.meta.abstains or not rejected,
            f"{self._owner} answers ABSTAIN to {rejected} images, clean or odd, but does not declare it; "
            "set abstains=True in its meta",
        )

    def test_surrogates_are_differentiable(self) -> None:
        """The joint attack follows the surrogates' gradients: without any, nothing was tested."""
        images = self._images()
        for name, surrogate in self._surrogates().items():
            gradient = _gradient(surrogate, images)
            finite = bool(torch.isfinite(gradient).all())
            expect(
                finite,
                f"surrogate {name!r} of {self._owner} has gradients that are not finite; "
                "avoid 0/0, sqrt and log at 0, and overflow in exp",
            )
            share = float((gradient != 0).flatten(1).any(dim=1).double().mean())
            expect(
                share >= _MOST,
                f"surrogate {name!r} of {self._owner} must have a gradient on most images, has one on {share:.0%}; "
                "replace steps without one (rounding, argmax, detach) by a backward pass of your own (BPDA), or "
                "declare non_differentiable=True",
            )

    def test_surrogates_answer_like_the_defense(self) -> None:
        """A surrogate that decides otherwise is an attack on something else."""
        defense, images = _trained(type(self)), self._images()
        for name, surrogate in self._surrogates().items():
            expect(
                name != "reference" and not re.fullmatch(r"member-\d+", name),
                f"surrogate {name!r} of {self._owner} has the name of another target; call it something else",
            )
            with torch.no_grad(), isolated_randomness(_SEED):
                guess = self._target(surrogate, name)(images).argmax(dim=1)
            shares = []
            for labels in _decided(defense, images).values():
                decided = labels.flatten() >= 0
                agrees = (guess == labels.flatten())[decided]
                shares.append(float(agrees.double().mean()) if decided.any() else 1.0)
            expect(
                max(shares) >= _MOST,
                f"surrogate {name!r} of {self._owner} must give most images the label that predict gives them, "
                f"does so for {max(shares):.0%}; the forward pass of a surrogate is the defence's own, only the "
                "backward pass may differ",
            )

    def test_settings_reach_the_digests(self) -> None:
        """Crafts are found by their target's digest: weights, buffers, code, ``repr()``, plain attributes."""
        trained, images = _trained(type(self)), self._images()
        ours = _targets(trained)
        for setting, value, other in self._variants(trained):
            theirs = _targets(other)
            for name in ours.keys() & theirs.keys():
                expect(
                    digest_module(ours[name]) != digest_module(theirs[name])
                    or torch.equal(self._logits(ours[name], images), self._logits(theirs[name], images)),
                    f"{name} of {self._owner} answers otherwise with {setting}={value!r}, but its digest is the same, "
                    "so adversarial images made for one would be taken for the other's; let the module that uses the "
                    "setting show it: def extra_repr(self): return f'...'",
                )

    @property
    def _owner(self) -> str:
        return self.defense.__name__

    def _images(self) -> Tensor:
        return self._test_images(40)

    def _test_images(self, n_images: int) -> Tensor:
        test = _dataset(type(self)).test
        return test.batch(torch.arange(min(n_images, len(test))))[0]

    def _odd_images(self) -> Tensor:
        """Return mixtures of two images, noise, black and white: near boundaries, or far from all images."""
        images = self._images()
        noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
        return torch.cat(
            [(images + images.flip(0)) / 2, noise, torch.zeros_like(images[:1]), torch.ones_like(images[:1])]
        )

    def _surrogates(self) -> Mapping[str, nn.Module]:
        defense = _trained(type(self))
        surrogates = defense.surrogates()
        if not surrogates and defense.meta.non_differentiable:
            pytest.skip("declared non_differentiable and offers no surrogate: marked 'not adaptively evaluated'")
        expect(
            surrogates,
            f"{self._owner} offers no surrogate and does not declare non_differentiable=True; "
            "return one from surrogates(), or declare it",
        )
        return surrogates

    def _target(self, module: nn.Module, name: str) -> Target:
        return Target(module, name=name, n_classes=_dataset(type(self)).n_classes)

    def _logits(self, module: nn.Module, images: Tensor) -> Tensor:
        with torch.no_grad(), isolated_randomness(_SEED):
            logits: Tensor = module(images)
            return logits

    def _variants(self, trained: Defense) -> Iterator[tuple[str, Any, Defense]]:
        """Yield the defence with its weights and one setting changed, for each setting that allows it."""
        for field in fields(trained.settings):
            for value in _other_values(getattr(trained.settings, field.name)):
                try:
                    other = _build(type(self), replace(trained.settings, **{field.name: value}))
                    other.load_state_dict(trained.state_dict())
                except (DkdBenchError, ValueError, RuntimeError):
                    continue  # The value is refused, or makes another network, which its digest shows.
                ready_for_inference(other)
                yield field.name, value, other


def _identical(first: Tensor, second: Tensor) -> bool:
    """Compare bit by bit: a weight that is not a number is equal to itself here."""
    return digest_tensors({"": first}) == digest_tensors({"": second})


def _other_values(value: object) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (value + 1, value - 1)
    return (value / 2,) if isinstance(value, float) else ()


def _targets(defense: Defense) -> dict[str, nn.Module]:
    members = {f"member {position}": member for position, member in enumerate(defense.members, start=1)}
    return members | {f"surrogate {name!r}": surrogate for name, surrogate in defense.surrogates().items()}


def _dataset(contract: type[DefenseContract]) -> Dataset:
    return contract.dataset or quick_dataset()


def _build(contract: type[DefenseContract], settings: Any) -> Defense:
    with isolated_randomness(_SEED):
        return contract.defense(_dataset(contract).image_spec, settings)


def _train(contract: type[DefenseContract]) -> Defense:
    defense = _build(contract, contract.settings)
    split = _dataset(contract).train
    data = TrainingSet(split=split, digest=split.digest())
    with isolated_randomness(_SEED):
        defense.fit(
            data,
            recipe=contract.recipe,
            generator=torch.Generator().manual_seed(_SEED),
            progress=SilentProgress(),
        )
    ready_for_inference(defense)
    return defense


@lru_cache(maxsize=4)
def _trained(contract: type[DefenseContract]) -> Defense:
    """Return the contract's defence, trained once; whoever changes it puts it back."""
    return _train(contract)


@torch.no_grad()
def _decided(defense: Defense, images: Tensor, *, seed: int = _SEED) -> Mapping[str, Tensor]:
    return defense.decide(images, generator=torch.Generator().manual_seed(seed))


def _gradient(surrogate: nn.Module, images: Tensor) -> Tensor:
    """Return the gradient of the margin between the two likeliest classes, of the images' shape."""
    leaves = images.clone().requires_grad_()
    with isolated_randomness(_SEED):
        logits: Tensor = surrogate(leaves)
        top = logits.topk(2, dim=1).values
        if not logits.requires_grad:
            return torch.zeros_like(images)
        (gradient,) = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), leaves, allow_unused=True)
    return torch.zeros_like(images) if gradient is None else gradient
