from __future__ import annotations

import numpy as np
import pytest

from dkd_bench.defense import ABSTAIN, NO_MAJORITY
from dkd_bench.errors import ConfigError
from dkd_bench.plots import ExampleImage, answer_word, examples_figure


def example(channels: int = 1, *, added: float = 0.25, answer: int = 8) -> ExampleImage:
    clean = np.full((channels, 2, 3), 0.5, dtype=np.float32)
    adversarial = clean.copy()
    adversarial[-1, 0, 1] += added
    return ExampleImage(clean=clean, adversarial=adversarial, label=3, clean_answer=3, answer=answer)


def panels(figure):
    """Return the panels, row by row, and the bar of the scale."""
    *images, bar = figure.axes
    return images, bar


def test_clean_perturbation_and_adversarial_stand_below_one_another():
    images, bar = panels(examples_figure([example(), example(added=-0.5)], title="dkd, joint"))
    assert [panel.get_ylabel() for panel in images] == ["clean", "", "perturbation", "", "under attack", ""]
    np.testing.assert_allclose(images[2].images[0].get_array(), [[0, 0.25, 0], [0, 0, 0]])
    np.testing.assert_allclose(images[3].images[0].get_array(), [[0, -0.5, 0], [0, 0, 0]])
    assert {panel.images[0].get_clim() for panel in images[2:4]} == {(-0.5, 0.5)}
    assert {panel.images[0].get_clim() for panel in (*images[:2], *images[4:])} == {(0, 1)}
    assert bar.get_ylabel() == "added, at most 0.5\nof [0, 1] pixel units"


def test_colour_images_keep_their_channels_and_show_the_one_changed_most():
    images, _ = panels(examples_figure([example(channels=3)], title=""))
    assert images[0].images[0].get_array().shape == (2, 3, 3)
    np.testing.assert_allclose(images[1].images[0].get_array(), [[0, 0.25, 0], [0, 0, 0]])


@pytest.mark.parametrize(("answer", "word"), [(3, "3"), (8, "8"), (ABSTAIN, "rejected"), (NO_MAJORITY, "no majority")])
def test_answers_are_words(answer, word):
    assert answer_word(answer) == word
    images, _ = panels(examples_figure([example(answer=answer)], title=""))
    assert images[0].get_title() == "true: 3\nanswer: 3"
    assert images[2].get_title() == f"answer: {word}"


def test_no_perturbation_at_all_still_has_a_scale():
    images, _ = panels(examples_figure([example(added=0.0)], title=""))
    assert images[1].images[0].get_clim() == (-1.0, 1.0)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ConfigError, match="at least one example to draw, got none"):
        examples_figure([], title="")
