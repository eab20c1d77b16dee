"""Separation against problems whose margin is known, and against a plain SVM on all points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC

from dkd_bench.errors import ConfigError
from dkd_bench.separation.lss import ensemble_separation, permutation_null, separate
from dkd_bench.separation.records import EnsembleSeparation, PermutationNull


def planted(n=400, dimension=10, margin=0.5, seed=0, n_second=None):
    """Pairs that face each other across a gap of ``margin``, and points behind them; the gap is the margin.

    Rotated and moved off the origin.
    """
    generator = np.random.default_rng(seed)
    n_second = n_second or n
    sides = []
    facing = generator.normal(size=(min(n, n_second) // 4, dimension))
    for sign, count in ((1, n), (-1, n_second)):
        points = generator.normal(size=(count, dimension))
        points[:, 0] = sign * (margin / 2 + np.abs(points[:, 0]))
        points[: len(facing)] = facing
        points[: len(facing), 0] = sign * margin / 2
        sides.append(points)
    rotation = np.linalg.qr(generator.normal(size=(dimension, dimension)))[0]
    offset = 5 * generator.normal(size=dimension)
    return [side @ rotation + offset for side in sides]


def overlapping(n=300, dimension=5, seed=0, shift=1.0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, dimension)) + shift, generator.normal(size=(n, dimension))


def plain_svm(first, second, penalty=1e7):
    """The margin and the largest multiplier of scikit-learn's SVM on all points, centred and of RMS radius 1."""
    points = np.concatenate([first, second]).astype(float)
    points -= points.mean(axis=0)
    radius = np.sqrt((points**2).sum(axis=1).mean())
    labels = np.r_[np.ones(len(first)), -np.ones(len(second))]
    model = SVC(kernel="linear", C=penalty, tol=1e-6).fit(points / radius, labels)
    return 2 / np.linalg.norm(model.coef_) * radius, np.abs(model.dual_coef_).max()


@pytest.mark.parametrize("margin", [1e-3, 0.05, 0.5, 3.0])
@pytest.mark.parametrize("dimension", [2, 10, 60])
def test_planted_margin_is_found_and_certified(margin, dimension):
    found = separate(*planted(dimension=dimension, margin=margin))
    assert found.margin == pytest.approx(margin, rel=1e-4)
    assert (found.separable, found.reason, found.training_error) == (True, None, None)
    assert (found.n_points, found.dimension) == (800, dimension)
    assert found.certificate.functional_margin >= 1 - 1e-3
    assert 0 <= found.certificate.duality_gap < 1e-3
    assert found.certificate.largest_alpha > 0
    assert 2 <= found.support_vectors <= dimension + 2
    assert found.rounds >= 1


def test_two_places_are_as_far_apart_as_they_are():
    found = separate(np.tile([3.0, 0.0], (5, 1)), np.tile([0.0, 4.0], (7, 1)))
    assert found.margin == pytest.approx(5.0)


def test_no_margin_is_overstated():
    for seed in range(10):
        assert separate(*planted(margin=0.2, seed=seed)).margin <= 0.2 * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_a_plain_svm_on_all_points(seed):
    generator = np.random.default_rng(seed)
    first = np.maximum(generator.normal(size=(900, 12)) + 1.2, 0)
    second = np.maximum(generator.normal(size=(1300, 12)), 0) - 2.5
    expected, largest_alpha = plain_svm(first, second)
    found = separate(first, second)
    assert found.margin == pytest.approx(expected, rel=1e-3)
    assert found.certificate.largest_alpha == pytest.approx(largest_alpha, rel=1e-2)


def test_every_penalty_above_the_largest_alpha_gives_the_same_plane_and_a_smaller_one_another():
    first, second = overlapping(shift=4.0)
    found = separate(first, second)
    alpha = found.certificate.largest_alpha
    assert plain_svm(first, second, penalty=1.1 * alpha)[0] == pytest.approx(found.margin, rel=1e-3)
    assert plain_svm(first, second, penalty=0.2 * alpha)[0] > 1.01 * found.margin


@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-50, 50))
def test_scale_and_place_change_nothing_but_the_unit(seed, scale, offset):
    first, second = planted(n=100, dimension=4, seed=seed)
    found, moved = separate(first, second), separate(first * scale + offset, second * scale + offset)
    assert moved.margin == pytest.approx(found.margin * scale, rel=1e-4)
    assert moved.scaled_margin == pytest.approx(found.scaled_margin, rel=1e-4)
    assert found.scaled_margin == found.margin / found.rms_radius


def test_sides_and_order_do_not_matter():
    first, second = planted()
    expected = separate(first, second).margin
    shuffled = np.random.default_rng(1).permutation(first)
    assert separate(second, shuffled).margin == pytest.approx(expected, rel=1e-4)


def test_duplicates_do_not_matter():
    first, second = planted()
    twice = separate(np.tile(first, (2, 1)), np.tile(second, (3, 1)))
    assert twice.margin == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(("n", "n_second"), [(20, 3000), (3000, 20)])
def test_unbalanced_sides(n, n_second):
    assert separate(*planted(n=n, n_second=n_second)).margin == pytest.approx(0.5, rel=1e-4)


def test_a_few_points_far_from_many():
    generator = np.random.default_rng(0)
    many, few = generator.normal(size=(5000, 3)), generator.normal(size=(5, 3)) + 2000
    found = separate(few, many)
    assert found.margin == pytest.approx(plain_svm(few, many)[0], rel=1e-3)


def test_takes_tensors_and_float32():
    first, second = (torch.from_numpy(side).float() for side in planted(dimension=60))
    assert separate(first, second).margin == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_overlap_gives_no_number_but_an_error(shift):
    found = separate(*overlapping(shift=shift))
    assert (found.separable, found.margin, found.scaled_margin, found.certificate) == (False, None, None, None)
    assert found.reason == "no plane separates the latents: the convex hulls of the two sides touch"
    assert 0 < found.training_error <= 0.5


def test_one_point_across_makes_it_inseparable():
    first, second = planted(n=3000)
    first[777] = second.mean(axis=0)
    found = separate(first, second)
    assert found.separable is False
    assert found.training_error == pytest.approx(1 / 6000)


def test_a_point_common_to_both_sides_makes_it_inseparable():
    first, second = planted()
    second[33] = first[7]
    assert separate(first, second).separable is False


def test_one_point_short_of_crossing_is_separable():
    first, second = planted(margin=1.0)
    normal = (first[0] - second[0]) / np.linalg.norm(first[0] - second[0])
    first[0] = second[0] + 0.01 * normal
    assert separate(first, second).margin == pytest.approx(0.01, rel=1e-3)


def test_a_hair_between_the_sides_is_never_a_wrong_number():
    for margin in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10):
        found = separate(*planted(margin=margin))
        assert found.margin is None or found.margin == pytest.approx(margin, rel=1e-3)
        assert (found.margin is None) == (found.reason is not None)


def test_identical_latents_do_not_separate():
    found = separate(np.ones((50, 3)), np.ones((50, 3)))
    assert (found.separable, found.reason) == (False, "all latents are one and the same point")
    same = overlapping()[0]
    assert separate(same, same).separable is False


@pytest.mark.parametrize(("n", "n_second", "dimension"), [(60, 120, 64), (64, 640, 64), (500, 10, 10), (3, 3, 500)])
def test_as_many_dimensions_as_points_on_a_side_are_refused(n, n_second, dimension):
    found = separate(*planted(n=n, n_second=n_second, dimension=dimension))
    assert (found.separable, found.margin, found.training_error, found.rounds) == (None, None, None, 0)
    assert f"{min(n, n_second)} points on a side in {dimension} dimensions are too few" in found.reason
    assert f"take at least {dimension + 1} images" in found.reason


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        (np.zeros(5), np.zeros((5, 1)), r"latents must be of shape \(N, D\)"),
        (np.zeros((0, 2)), np.zeros((5, 2)), "neither of them 0"),
        (np.zeros((5, 2)), np.zeros((5, 3)), "both sides must have one dimension, got 2 and 3"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), "latents must be finite"),
        (np.full((5, 2), np.inf), np.zeros((5, 2)), "latents must be finite"),
    ],
)
def test_bad_latents_get_one_sentence(first, second, sentence):
    with pytest.raises(ConfigError, match=sentence):
        separate(first, second)


def three_members(n=200, dimension=6, shift=8.0, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(n, dimension)) + shift * np.eye(dimension)[number] for number in range(3)]


def test_ensemble_is_the_mean_of_each_member_against_the_others():
    members = three_members()
    found = ensemble_separation([torch.from_numpy(member) for member in members])
    singles = [
        separate(members[0], np.concatenate([members[1], members[2]])),
        separate(members[1], np.concatenate([members[0], members[2]])),
        separate(members[2], np.concatenate([members[0], members[1]])),
    ]
    assert [member.margin for member in found.members] == pytest.approx([single.margin for single in singles])
    assert found.lss == pytest.approx(np.mean([single.margin for single in singles]))
    assert found.scaled_lss == pytest.approx(np.mean([single.scaled_margin for single in singles]))
    assert found.reason is None
    assert EnsembleSeparation.model_validate_json(found.model_dump_json()) == found


def test_ensemble_with_one_member_that_does_not_separate_has_no_number():
    line = [np.random.default_rng(0).normal(size=(100, 4)) + position for position in (0.0, 9.0, 18.0)]
    found = ensemble_separation(line)
    assert [member.separable for member in found.members] == [True, False, True]
    assert (found.lss, found.scaled_lss) == (None, None)
    assert found.reason == "member 2: no plane separates the latents: the convex hulls of the two sides touch"


def test_members_without_a_number_for_one_reason_are_named_together():
    assert ensemble_separation([np.ones((9, 2))] * 3).reason.startswith("members 1, 2, 3: all latents")


@pytest.mark.parametrize("n_members", [0, 1])
def test_ensemble_of_one_is_refused(n_members):
    with pytest.raises(ConfigError, match=f"needs at least two members, got {n_members}"):
        ensemble_separation([np.zeros((5, 2))] * n_members)


def test_members_of_unequal_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"must be of one shape, got \(5, 2\) and \(5, 3\)"):
        ensemble_separation([np.zeros((5, 2)), np.zeros((5, 3))])


def test_random_labels_of_separated_points_do_not_separate():
    null = permutation_null(*planted(n=600, dimension=20), draws=20, seed=1)
    assert null.margins == (None,) * 20
    assert (null.undecided, null.share_separable, null.found, null.quartiles) == (0, 0.0, (), None)


def test_random_labels_separate_where_points_are_few():
    first, second = overlapping(n=30, dimension=80)
    null = permutation_null(first, second, draws=8)
    assert (null.share_separable, len(null.found)) == (1.0, 8)
    low, median, high = null.quartiles
    assert 0 < null.found[0] <= low <= median <= high <= null.found[-1]
    assert null == permutation_null(first, second, draws=8)
    assert null != permutation_null(first, second, draws=8, seed=1)
    assert PermutationNull.model_validate_json(null.model_dump_json()) == null


def test_null_of_one_draw_and_of_identical_points():
    assert permutation_null(np.ones((9, 2)), np.ones((9, 2)), draws=1).margins == (None,)
    null = permutation_null(*planted(n=5, dimension=40), draws=1)
    assert null.quartiles == null.found * 3
    with pytest.raises(ConfigError, match="at least one draw, got 0"):
        permutation_null(*planted(), draws=0)


def test_undecided_draws_count_as_separable():
    assert PermutationNull(margins=(None, None, 1.0, None), undecided=1, rms_radius=1.0).share_separable == 0.5
