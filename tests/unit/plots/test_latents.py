from __future__ import annotations

import numpy as np
import pytest

from dkd_bench.errors import ConfigError
from dkd_bench.plots import LatentsData, latents_figure

CLASSES = np.array([0, 1, 1, 2])


def two_members() -> dict[str, np.ndarray]:
    """Members along two axes of R^3: member 1 varies in x, member 2 in y, with variances of 4 to 1."""
    first, second = np.zeros((2, 4, 3), dtype=np.float32)
    first[:, 0] = [-4, -4, 4, 4]
    second[:, 1] = [-2, 2, -2, 2]
    return {"member 1": first, "member 2": second}


def drawn(latents, classes=CLASSES):
    return latents_figure(LatentsData(title="dkd, n = 4", latents=latents, classes=classes))


def test_axes_state_the_variance_explained():
    by_member, by_class = drawn(two_members()).axes
    assert by_member.get_xlabel() == by_class.get_xlabel() == "first component (80% of the variance)"
    assert by_member.get_ylabel() == "second component (20% of the variance)"


def test_members_have_a_colour_each_and_their_own_points():
    by_member, _ = drawn(two_members()).axes
    first, second = by_member.collections
    assert [first.get_label(), second.get_label()] == ["member 1", "member 2"]
    assert sorted(np.abs(first.get_offsets()).round(5).tolist()) == [[4, 0]] * 4
    assert sorted(np.abs(second.get_offsets()).round(5).tolist()) == [[0, 2]] * 4
    assert first.get_facecolor().tolist() != second.get_facecolor().tolist()


def test_classes_are_drawn_over_all_members():
    _, by_class = drawn(two_members()).axes
    assert [len(points.get_offsets()) for points in by_class.collections] == [2, 4, 2]


def test_many_classes_are_shades_with_a_bar():
    latents = {name: np.tile(points, (4, 1)) for name, points in two_members().items()}
    figure = drawn(latents, classes=np.arange(16))
    assert figure.axes[2].get_ylabel() == "class"


@pytest.mark.parametrize(
    ("latents", "sentence"),
    [
        ({"member 1": np.eye(3, dtype=np.float32)}, "one member has nobody to be compared with"),
        ({"a": np.eye(3, dtype=np.float32), "b": np.ones((3, 5), dtype=np.float32)}, "latents of 3 and 5 numbers"),
        ({"a": np.ones((3, 5), dtype=np.float32), "b": np.ones((3, 5), dtype=np.float32)}, "do not vary"),
        ({"a": np.ones((3, 1), dtype=np.float32), "b": np.zeros((3, 1), dtype=np.float32)}, "do not vary"),
    ],
)
def test_latents_that_cannot_be_pooled_are_refused(latents, sentence):
    with pytest.raises(ConfigError, match=sentence):
        drawn(latents, classes=np.arange(3))
