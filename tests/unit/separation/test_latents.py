"""The separation of an ensemble's latents: on which images it is measured, when it is found again or left out."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dkd_bench.defense import DefenseMeta
from dkd_bench.errors import ConfigError, StoreError
from dkd_bench.progress import SilentProgress
from dkd_bench.separation.latents import WIDEST, measured_separation, separations
from dkd_bench.separation.records import SeparationReport
from dkd_bench.steps.weights import TrainedDefense
from toy_run import N_CLASSES, Heard, Pair, Steady, toy_dataset, toy_prepared

pytestmark = pytest.mark.usefixtures("empty_cache")

GAP = 10.0


def first_pixel(*, offset: float, width: int = 1) -> nn.Module:
    """Return a network whose latent is the first pixel, moved by ``offset``."""
    latent, logits = nn.Linear(N_CLASSES, width), nn.Linear(width, N_CLASSES)
    with torch.no_grad():
        for each in (latent.weight, latent.bias, logits.weight, logits.bias):
            each.zero_()
        latent.weight[0, 0], latent.bias[0] = 1.0, offset
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), latent=latent, logits=logits))


class Apart(Steady):
    """Two members whose latents, from 0.4 to 0.7 each, lie ``GAP`` from one another: the margin is ``GAP`` - 0.3."""

    meta = DefenseMeta(name="apart", title="Apart")
    gap, width = GAP, 1

    def __init__(self, images: Any, settings: Any = None) -> None:
        super().__init__(images, settings)
        self.both = nn.ModuleList([first_pixel(offset=0.0), first_pixel(offset=self.gap, width=self.width)])

    @property
    def members(self) -> nn.ModuleList:
        return self.both


class Together(Apart):
    """Two members with the same latents."""

    meta = DefenseMeta(name="together", title="Together")
    gap = 0.0


class Wide(Apart):
    """One member with more values in its latent than an exact margin takes."""

    meta = DefenseMeta(name="wide", title="Wide")
    width = WIDEST + 1


def trained(defense: type[Steady]) -> TrainedDefense:
    return toy_prepared(defense).subjects.defenses[defense.meta.name]


def measured(defense: TrainedDefense, **words: Any) -> SeparationReport:
    dataset = toy_dataset()
    return measured_separation(defense, dataset, dataset.digest(), **words)


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "separations").glob("*.json"))


class TestMeasured:
    def test_the_margin_is_that_on_the_whole_test_set(self) -> None:
        found = measured(trained(Apart))
        assert found.separation.lss == pytest.approx(GAP - 0.3, rel=1e-5)
        assert (found.n_examples, found.layer, found.null) == (8, "latent", None)
        assert (found.defense, found.dataset) == ("apart", "toy")

    def test_fewer_images_are_those_that_a_run_would_take(self) -> None:
        found = measured(trained(Apart), n_examples=4)
        assert found.n_examples == 4
        assert [member.n_points for member in found.separation.members] == [8, 8]

    def test_another_layer_is_measured_where_that_is_asked(self) -> None:
        found = measured(trained(Together), layer="flatten")
        assert (found.layer, found.separation.lss) == ("flatten", None)

    def test_the_null_has_as_many_draws_as_asked(self) -> None:
        found = measured(trained(Apart), null_draws=3)
        assert found.null is not None
        assert len(found.null.margins) == 3

    def test_what_was_measured_is_found_again(self, empty_cache: Path) -> None:
        first = measured(trained(Apart), null_draws=2)
        assert len(kept(empty_cache)) == 2
        assert measured(trained(Apart), null_draws=2) == first
        for file in kept(empty_cache):
            told = json.loads(file.read_text())
            if "members" in told:
                told["members"][0]["margin"] = 123.0
                file.write_text(json.dumps(told))
        assert measured(trained(Apart), null_draws=2).separation.members[0].margin == 123.0

    @pytest.mark.parametrize("words", [{"n_examples": 4}, {"n_examples": 8}, {"layer": "flatten"}], ids=str)
    def test_another_question_is_asked_anew(self, empty_cache: Path, words: dict[str, Any]) -> None:
        measured(trained(Apart))
        measured(trained(Apart), **words)
        assert len(kept(empty_cache)) == 2

    def test_other_weights_are_measured_anew(self, empty_cache: Path) -> None:
        measured(trained(Apart))
        measured(trained(Together))
        assert len(kept(empty_cache)) == 2

    def test_a_damaged_file_is_refused(self, empty_cache: Path) -> None:
        measured(trained(Apart))
        kept(empty_cache)[0].write_text("{}")
        with pytest.raises(StoreError, match=r"is damaged \(.* errors\); delete it and run again"):
            measured(trained(Apart))

    @pytest.mark.parametrize(
        ("defense", "words", "sentence"),
        [
            (Steady, {}, "defence 'steady' has one member, and an ensemble of one has nothing to separate"),
            (Apart, {"null_draws": -1}, "null_draws must be at least 0, got -1"),
            (Apart, {"n_examples": 9}, "n_examples must be from 1 to 8"),
            (Apart, {"layer": "nowhere"}, "member 1 of defence 'apart': the network has no layer 'nowhere'"),
            (Wide, {}, f"member 2 of defence 'wide': latents of {WIDEST + 1} values are too many"),
        ],
    )
    def test_a_wrong_question_gets_one_sentence(
        self, defense: type[Steady], words: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(ConfigError) as raised:
            measured(trained(defense), **words)
        assert sentence in str(raised.value)


class TestSeparations:
    def test_ensembles_with_latents_are_measured_and_the_others_left_out(self) -> None:
        heard = Heard()
        found = separations(toy_prepared(Steady, Pair, Apart, Together).subjects, heard)
        assert list(found) == ["apart", "together"]
        assert heard.tasks == {"separation of latents": 2}
        assert [note for _, note in heard.notes] == ["LSS of apart", "LSS of together"]

    def test_the_record_says_what_was_found_or_why_nothing_was(self) -> None:
        found = separations(toy_prepared(Apart, Together).subjects, SilentProgress())
        apart, together = found["apart"], found["together"]
        assert (apart.layer, apart.n, apart.dimension, apart.reason) == ("latent", 8, 1, None)
        assert apart.margin == pytest.approx(GAP - 0.3, rel=1e-5)
        assert apart.scaled_margin == pytest.approx(apart.margin / (GAP / 2), rel=1e-2)
        assert (together.margin, together.scaled_margin) == (None, None)
        assert together.reason is not None

    def test_an_unusable_layer_costs_the_number_and_not_the_run(self, caplog: pytest.LogCaptureFixture) -> None:
        found = separations(toy_prepared(Wide, Apart).subjects, SilentProgress())
        assert list(found) == ["apart"]
        assert "no LSS of wide: member 2 of defence 'wide': latents of" in caplog.text

    def test_without_ensembles_nothing_is_reported(self) -> None:
        heard = Heard()
        assert separations(toy_prepared(Steady, Pair).subjects, heard) == {}
        assert heard.tasks == {}
