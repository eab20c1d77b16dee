"""Train: defences trained once and found again, the others told by name, and the images that a run attacks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from dkd_bench.data import Dataset
from dkd_bench.defense import DefenseMeta
from dkd_bench.errors import ConfigError, PluginError, StoreError
from dkd_bench.progress import SilentProgress
from dkd_bench.records.flags import NOT_ADMITTED, RANDOM
from dkd_bench.steps.train import ADMISSION_IMAGES, choose_images, train
from dkd_bench.steps.weights import Trainer, weights_store
from dkd_bench.training import recipe_named
from toy_run import Hidden, Steady, Undeclared, Untrainable, toy, toy_cast, toy_dataset


class Fitted(Steady):
    """Training adds a little noise to the weights, and counts."""

    meta = DefenseMeta(name="fitted", title="Fitted")
    fits: ClassVar[list[int]] = []

    def fit(self, data: Any, *, recipe: Any, generator: torch.Generator, progress: Any) -> None:
        self.fits.append(generator.initial_seed())
        self.network[1].weight.data.add_(0.01 * torch.rand(4, 4, generator=generator))


class Squatter(Steady):
    """Calls its surrogate as a member is called."""

    meta = DefenseMeta(name="squatter", title="Squatter")

    def surrogates(self) -> dict[str, nn.Module]:
        return {"member-1": self.network}


@pytest.fixture(autouse=True)
def nothing_fitted() -> None:
    Fitted.fits.clear()


def trainer(cache: Path, *, dataset: Dataset | None = None, seed: int = 0) -> Trainer:
    dataset = dataset or toy_dataset()
    return Trainer(
        dataset=dataset,
        dataset_digest=dataset.digest(),
        recipe=recipe_named("fast", dataset),
        seed=seed,
        device=torch.device("cpu"),
        progress=SilentProgress(),
        probe=dataset.test.batch(torch.arange(8))[0],
        cache=cache,
    )


class TestTrainer:
    def test_what_was_trained_is_found_again(self, tmp_path: Path) -> None:
        first, second = (trainer(tmp_path).trained("fitted", Fitted) for _ in range(2))
        assert Fitted.fits == [0]
        assert second.defense is not first.defense
        assert torch.equal(second.defense.network[1].weight, first.defense.network[1].weight)
        assert not torch.equal(first.defense.network[1].weight, Steady(first.defense.images).network[1].weight)
        assert (second.key, second.sha256, second.clean_accuracy, second.n_clean) == (
            first.key,
            first.sha256,
            {"deployed": 1.0},
            8,
        )

    @pytest.mark.parametrize("changes", [{"seed": 1}, {"dataset": toy_dataset(mislabelled=2)}], ids=["seed", "data"])
    def test_another_training_is_another_file(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        one, other = trainer(tmp_path), trainer(tmp_path, **changes)
        assert one.trained("fitted", Fitted).key != other.trained("fitted", Fitted).key
        assert Fitted.fits == [0, other.seed]

    def test_a_defence_is_ready_to_be_attacked(self, tmp_path: Path) -> None:
        for _ in range(2):
            defense = trainer(tmp_path).trained("fitted", Fitted).defense
            assert not defense.training
            assert not any(parameter.requires_grad for parameter in defense.parameters())

    def test_clean_accuracy_is_that_on_the_test_set(self, tmp_path: Path) -> None:
        found = trainer(tmp_path, dataset=toy_dataset(mislabelled=2)).trained("steady", Steady)
        assert found.clean_accuracy == {"deployed": 0.75}

    def test_what_was_trained_is_told_beside_the_weights(self, tmp_path: Path) -> None:
        found = trainer(tmp_path, seed=7).trained("fitted", Fitted)
        told = json.loads(weights_store(tmp_path).path(found.key).with_suffix(".json").read_text())
        assert (told["name"], told["seed"], told["sha256"]) == ("fitted", 7, found.sha256)

    def test_nobody_elses_draws_move(self, tmp_path: Path) -> None:
        before = torch.get_rng_state()
        trainer(tmp_path).trained("fitted", Fitted)
        assert torch.equal(torch.get_rng_state(), before)

    def test_damaged_weights_are_refused(self, tmp_path: Path) -> None:
        found = trainer(tmp_path).trained("fitted", Fitted)
        weights_store(tmp_path).path(found.key).write_bytes(b"nothing")
        with pytest.raises(StoreError, match="is not a whole safetensors file"):
            trainer(tmp_path).trained("fitted", Fitted)

    def test_failures_name_the_defence(self, tmp_path: Path) -> None:
        def factory(_: object) -> Steady:
            raise RuntimeError("no bricks")

        with pytest.raises(PluginError, match=r"^defence 'house' cannot be built: RuntimeError: no bricks$"):
            trainer(tmp_path).trained("house", factory)
        with pytest.raises(PluginError, match=r"^defence 'mule' cannot be trained: RuntimeError: will not learn$"):
            trainer(tmp_path).trained("mule", Untrainable)


@pytest.mark.usefixtures("empty_cache")
class TestTrain:
    def test_failures_are_told_and_the_others_go_on(self) -> None:
        cast = toy_cast(Steady, Untrainable, Undeclared, Squatter, Hidden, failures={"gone": "no such file"})
        subjects = train(cast, SilentProgress(), dataset=toy_dataset())
        assert list(subjects.defenses) == ["steady", "hidden"]
        assert {name: flag.name for name, flag in subjects.failure_flags.items()} == {
            "gone": NOT_ADMITTED,
            "untrainable": NOT_ADMITTED,
            "undeclared": RANDOM,
            "squatter": NOT_ADMITTED,
        }
        assert subjects.failures["gone"] == "no such file"
        assert (
            subjects.failures["untrainable"] == "defence 'untrainable' cannot be trained: RuntimeError: will not learn"
        )
        assert (
            "a surrogate of defence 'squatter' is called 'member-1', a target's name" in subjects.failures["squatter"]
        )

    @pytest.mark.parametrize(("words", "seed"), [({"seed": 3}, 3), ({"seed": 3, "training_seed": 0}, 0)])
    def test_the_seed_of_training(self, words: dict[str, int], seed: int) -> None:
        train(toy_cast(Fitted, **words), SilentProgress(), dataset=toy_dataset())
        assert Fitted.fits == [seed]

    def test_a_few_images_are_shown_for_admission(self) -> None:
        subjects = train(toy_cast(Steady), SilentProgress(), dataset=toy_dataset(ADMISSION_IMAGES + 20))
        assert len(subjects.trainer.probe) == ADMISSION_IMAGES
        assert subjects.dataset_digest == toy_dataset(ADMISSION_IMAGES + 20).digest()


class TestChooseImages:
    cast = toy_cast(Steady, dataset=toy("load_toy"))

    def asked(self, **words: Any) -> list[int]:
        return choose_images(replace(self.cast, request=replace(self.cast.request, **words))).indices.tolist()

    def test_as_many_as_the_dataset_says(self) -> None:
        assert sorted(self.asked()) == list(range(8))

    def test_fewer_are_the_first_of_more(self) -> None:
        assert self.asked(n_examples=4) == self.asked()[:4]
        assert sorted(index % 4 for index in self.asked(n_examples=4)) == [0, 1, 2, 3]

    def test_the_seed_chooses(self) -> None:
        assert len({tuple(self.asked(seed=seed)) for seed in range(5)}) > 1

    def test_more_than_there_are_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="n_examples must be from 1 to 8"):
            self.asked(n_examples=9)
