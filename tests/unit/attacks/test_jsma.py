"""JSMA, against a slow one that reads like the paper: every pair, every class, every image by itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from math import ceil, floor

import pytest
import torch
from torch import nn

from dkd_bench.attacks import jsma
from dkd_bench.attacks.jsma import JSMA, JSMASettings, best_pairs, steepest_pairs, targeted_jsma
from dkd_bench.budget import Budget, perturbation_norms
from dkd_bench.errors import ConfigError
from dkd_bench.target import Target

UNBUDGETED = Budget(norm="l0")


def mlp(shape, n_classes, *, seed, activation=nn.Tanh):
    """Return a network in float64, where a matrix product does not depend on the batch it is in."""
    generator = torch.Generator().manual_seed(seed)
    n_pixels = shape[0] * shape[1] * shape[2]
    network = nn.Sequential(nn.Flatten(), nn.Linear(n_pixels, 12), activation(), nn.Linear(12, n_classes)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.8 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network


def random_images(number, shape, *, seed):
    """Return images with some values that are black or white already, or nearly so."""
    generator = torch.Generator().manual_seed(seed)
    images = (1.6 * torch.rand(number, *shape, generator=generator) - 0.3).clamp(0, 1)
    images[:, 0, 1, :2] = torch.tensor([0.005, 0.995])
    return images


def wrapped(network, n_classes, *, batch_size=250):
    return Target(network, name="mlp", n_classes=n_classes, batch_size=batch_size)


def outputs_of(network, settings):
    """Return what the paper takes the derivatives of."""
    return network if settings.logits else nn.Sequential(network, nn.Softmax(dim=1))


def slow_best_pair(toward, against, free):
    best, pair = 0.0, None
    for p, q in combinations([value for value, is_free in enumerate(free) if is_free], 2):
        a, b = toward[p] + toward[q], against[p] + against[q]
        if a > 0 and b > 0 and a * b > best:
            best, pair = a * b, (p, q)
    return pair


def slow_search(network, image, aim, *, reached, settings):
    """Return the image found and the number of steps, or None."""
    x = image.clone()
    outputs = outputs_of(network, settings)
    limit = min(settings.iterations, floor(image.numel() * settings.gamma / 2))
    for step in range(limit + 1):
        logits = network(x.unsqueeze(0).double())[0]
        if reached(int(logits.argmax())):
            return x, step
        jacobian = torch.autograd.functional.jacobian(outputs, x.double().unsqueeze(0))[0].flatten(1)
        to_aim = jacobian[aim]
        to_others = sum(jacobian[other] for other in range(len(logits)) if other != aim)
        sign = 1 if settings.increase else -1
        free = x.flatten() < 1 - settings.room if settings.increase else x.flatten() > settings.room
        pair = slow_best_pair((sign * to_aim).tolist(), (-sign * to_others).tolist(), free.tolist())
        if pair is None or step == limit:
            return None
        for value in pair:
            x.view(-1)[value] = (x.view(-1)[value] + sign * settings.theta).clamp(0, 1)
    return None


def slow_jsma(network, images, labels, n_classes, settings):
    adversarial = images.clone()
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        found = []
        for aim in range(n_classes):
            if aim == label:
                continue
            result = slow_search(
                network, image, aim, reached=lambda answer, label=label: answer != label, settings=settings
            )
            if result is not None:
                x, steps = result
                found.append((int((x != image).sum()), steps, aim, x))
        if found:
            adversarial[number] = min(found, key=lambda each: each[:3])[3]
    return adversarial


CASES = {
    "as it comes": ((1, 5, 5), JSMASettings(gamma=0.5)),
    "two steps at most": ((1, 5, 5), JSMASettings(gamma=0.19)),
    "one step": ((1, 5, 5), JSMASettings(gamma=1.0, iterations=1)),
    "decrease": ((1, 5, 5), JSMASettings(gamma=0.5, increase=False)),
    "to the very end": ((1, 5, 5), JSMASettings(gamma=1.0, room=0.0)),
    "small steps": ((1, 4, 4), JSMASettings(gamma=1.0, theta=0.3)),
    "small steps down": ((1, 4, 4), JSMASettings(gamma=1.0, theta=0.3, increase=False)),
    "colours": ((3, 3, 3), JSMASettings(gamma=0.4)),
}


@pytest.mark.parametrize("logits", [False, True], ids=["probabilities", "logits"])
@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("case", CASES)
def test_is_pixel_for_pixel_the_slow_one(case, n_classes, logits):
    shape, settings = CASES[case]
    settings = replace(settings, logits=logits)
    for seed, activation in ((0, nn.Tanh), (1, nn.ReLU), (2, nn.ReLU)):
        network = mlp(shape, n_classes, seed=seed, activation=activation)
        target, images = wrapped(network, n_classes), random_images(6, shape, seed=seed)
        labels = target(images).argmax(dim=1)
        labels[0] = (labels[0] + 1) % n_classes

        adversarial = JSMA(settings).run(target, images, labels, UNBUDGETED, seed=0)

        assert torch.equal(adversarial, slow_jsma(network, images, labels, n_classes, settings))


@pytest.mark.parametrize("logits", [False, True], ids=["probabilities", "logits"])
def test_the_cases_find_and_fail_and_prefer_one_class_to_another(logits):
    """Or the comparison would compare clean images with clean images."""
    fooled, kept, aims = 0, 0, set()
    for case, seed in product(("one step", "two steps at most"), (1, 2)):
        shape, settings = CASES[case]
        settings = replace(settings, logits=logits)
        network, images = mlp(shape, 5, seed=seed, activation=nn.ReLU), random_images(6, shape, seed=seed)
        target = wrapped(network, 5)
        labels = target(images).argmax(dim=1)
        answers = target(JSMA(settings).run(target, images, labels, UNBUDGETED, seed=0)).argmax(dim=1)
        fooled, kept = fooled + int((answers != labels).sum()), kept + int((answers == labels).sum())
        aims |= set(answers.tolist())
    assert fooled >= 6
    assert kept >= 2
    assert len(aims) >= 3


@pytest.mark.parametrize(
    "settings",
    [
        JSMASettings(gamma=0.6),
        JSMASettings(gamma=0.6, logits=True),
        JSMASettings(gamma=1.0, theta=0.3, increase=False),
    ],
)
def test_targeted_is_the_slow_one_and_needs_no_fewer_values_than_untargeted(settings):
    shape, n_classes = (1, 5, 5), 4
    network, images = mlp(shape, n_classes, seed=3), random_images(8, shape, seed=3)
    target = wrapped(network, n_classes)
    labels = target(images).argmax(dim=1)
    untargeted = perturbation_norms(images, JSMA(settings).run(target, images, labels, UNBUDGETED, seed=0), "l0")
    hits = 0
    for shift in range(n_classes):
        classes = (labels + shift) % n_classes

        found = targeted_jsma(target, images, classes, settings)

        for image, wanted, got in zip(images, classes.tolist(), found, strict=True):
            slow = slow_search(
                network, image, wanted, reached=lambda answer, wanted=wanted: answer == wanted, settings=settings
            )
            assert torch.equal(got, image if slow is None else slow[0])
        hit = (target(found).argmax(dim=1) == classes) & (classes != labels)
        assert (untargeted[hit] <= perturbation_norms(images, found, "l0")[hit]).all()
        hits += int(hit.sum())
    assert hits >= 6


def test_on_a_linear_model_the_heaviest_values_go_first():
    """Two opposed classes and grey images: value p brings its weight nearer, so the heaviest pairs are the best."""
    weights = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).flatten()
    linear = nn.Linear(36, 2).double()
    order = weights.argsort(descending=True)
    gains = weights[order].cumsum(dim=0)
    for fewest in (1, 2, 5, 8):
        with torch.no_grad():
            linear.weight.copy_(torch.stack([-weights, weights]))
            # Half a value short of what ``fewest`` of them bring.
            gap = gains[fewest - 1] - weights[order[fewest - 1]] / 2
            linear.bias.copy_(torch.tensor([1.0, -1.0]) * (gap + weights.sum()) / 2)
        images = torch.full((1, 1, 6, 6), 0.5)
        target = wrapped(nn.Sequential(nn.Flatten(), linear), 2)

        adversarial = JSMA(JSMASettings(gamma=0.5)).run(target, images, torch.tensor([0]), UNBUDGETED, seed=0)

        changed = (adversarial != images).flatten().nonzero().squeeze(1)
        assert changed.tolist() == order[: 2 * ceil(fewest / 2)].sort().values.tolist()
        assert (adversarial.flatten()[changed] == 1).all()


class MeanBrightness(nn.Module):
    """Says class 1 of bright images; all values matter the same."""

    def __init__(self, *, threshold=0.55):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        excess = x.flatten(1).double().mean(dim=1) - self.threshold
        return torch.stack([-excess, excess], dim=1)


@pytest.mark.parametrize("logits", [False, True], ids=["probabilities", "logits"])
def test_equally_good_pairs_are_taken_in_order(logits):
    images = torch.full((2, 1, 8, 8), 0.5)
    images[1, 0, 0, :3] = 1

    adversarial = JSMA(JSMASettings(gamma=1.0, logits=logits)).run(
        wrapped(MeanBrightness(), 2), images, torch.tensor([0, 0]), UNBUDGETED, seed=0
    )

    changed = (adversarial != images).flatten(1)
    # 0.05 x 64 / 0.5 = 6.4 values are missing in the first, three fewer in the second: eight and four.
    assert changed[0].nonzero().flatten().tolist() == list(range(8))
    assert changed[1].nonzero().flatten().tolist() == list(range(3, 7))


def test_derivatives_of_probabilities_do_not_vanish_where_the_softmax_saturates():
    """As on a distilled network, whose logits are large; the slow one stands still there."""
    shape, n_classes, settings = (1, 5, 5), 4, JSMASettings(gamma=0.8)
    network, images = mlp(shape, n_classes, seed=1, activation=nn.ReLU), random_images(6, shape, seed=1)
    labels = network(images.double()).argmax(dim=1)
    with torch.no_grad():
        for parameter in network[3].parameters():
            parameter.mul_(1e6)
    target = wrapped(network, n_classes)
    assert torch.equal(slow_jsma(network, images, labels, n_classes, settings), images)

    adversarial = JSMA(settings).run(target, images, labels, UNBUDGETED, seed=0)

    assert (target(adversarial).argmax(dim=1) != labels).sum() >= 3


KINDS = ["independent", "alike", "opposed", "few levels", "hopeless"]


def derivatives(kind):
    """Return what values do for the class aimed at and against the others, some of them blocked."""
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    toward, against, chance = (torch.randn(20, 40, generator=generator) for _ in range(3))
    if kind == "alike":
        against = toward
    elif kind == "opposed":
        against = -toward + 0.3 * against
    elif kind == "few levels":
        toward, against = toward.round(), against.round()
    elif kind == "hopeless":
        against = -against.abs()
    return toward.masked_fill(chance < -0.8, -torch.inf), against.masked_fill(chance < -0.8, -torch.inf)


@pytest.mark.parametrize("pairs_at_once", [2**18, 2000, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_best_pairs_are_those_of_an_exhaustive_search(kind, pairs_at_once, monkeypatch):
    monkeypatch.setattr(jsma, "PAIRS_AT_ONCE", pairs_at_once)
    toward, against = derivatives(kind)

    pairs, there = best_pairs(toward, against)

    rows = zip(toward.tolist(), against.tolist(), strict=True)
    expected = [slow_best_pair(a, b, [value > -torch.inf for value in a]) for a, b in rows]
    assert there.tolist() == [pair is not None for pair in expected]
    assert [tuple(pair) for pair in pairs[there].tolist()] == [pair for pair in expected if pair is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_steepest_pairs_are_the_best_where_both_respects_are_one(kind):
    toward, _ = derivatives(kind)

    pairs, there = steepest_pairs(toward)
    expected, expected_there = best_pairs(toward, toward)

    assert torch.equal(there, expected_there)
    assert torch.equal(pairs[there], expected[there])


def test_one_value_that_dominates_all_others_leaves_the_next_best_as_its_mate():
    toward, against = torch.tensor([[9.0, 1.0, 2.0, 1.5]]), torch.tensor([[9.0, 3.0, 1.0, 0.5]])

    pairs, there = best_pairs(toward, against)

    # (9 + 1) x (9 + 3) is over (9 + 2) x (9 + 1).
    assert there.tolist() == [True]
    assert pairs.tolist() == [[0, 1]]


def test_best_pairs_of_tiny_derivatives_do_not_underflow():
    toward = torch.tensor([[1e-30, 3e-30, 2e-30, -torch.inf]])

    pairs, there = best_pairs(toward, toward)

    assert there.tolist() == [True]
    assert pairs.tolist() == [[1, 2]]


@pytest.mark.parametrize("free", [0, 1])
def test_a_pair_takes_two_values(free):
    values = torch.full((1, 40), -torch.inf)
    values[:, :free] = 1.0

    for there in (best_pairs(values, values)[1], steepest_pairs(values)[1]):
        assert there.tolist() == [False]
    for there in (best_pairs(values[:, :1], values[:, :1])[1], steepest_pairs(values[:, :1])[1]):
        assert there.tolist() == [False]


@pytest.mark.parametrize("logits", [False, True], ids=["probabilities", "logits"])
def test_how_many_searches_run_at_once_changes_nothing(logits, monkeypatch):
    shape, n_classes = (3, 4, 4), 5
    network, images = mlp(shape, n_classes, seed=5), random_images(10, shape, seed=5)
    labels = network(images.double()).argmax(dim=1)
    settings = JSMASettings(gamma=0.6, theta=0.5, logits=logits)

    def run(batch_size=250):
        return JSMA(settings).run(
            wrapped(network, n_classes, batch_size=batch_size), images, labels, UNBUDGETED, seed=0
        )

    whole = run()
    assert (whole != images).any()
    for values_at_once in (40, 3 * 48, 9 * 48):
        monkeypatch.setattr(jsma, "VALUES_AT_ONCE", values_at_once)
        assert torch.equal(run(), whole)
        assert torch.equal(run(batch_size=3), whole)


@pytest.mark.parametrize(("logits", "backward"), [(False, 1), (True, 2)], ids=["probabilities", "logits"])
def test_a_step_costs_one_forward_and_one_or_two_backward_passes(logits, backward):
    shape = (1, 6, 6)
    network, images = mlp(shape, 4, seed=1), random_images(1, shape, seed=8)
    answer = int(network(images.double()).argmax(dim=1))
    passes, steps = [], []
    for shift in (1, 2, 3):
        target, classes = wrapped(network, 4), torch.tensor([(answer + shift) % 4])
        found = targeted_jsma(target, images, classes, JSMASettings(gamma=1.0, logits=logits))
        if (found != images).any():
            steps.append(int((found != images).sum()) // 2)
            passes.append((target.forward_passes, target.backward_passes))

    assert steps
    assert passes == [(taken + 1, backward * taken) for taken in steps]


@pytest.mark.parametrize(("logits", "backward"), [(False, 4), (True, 5)], ids=["probabilities", "logits"])
def test_all_searches_of_an_image_share_the_first_evaluation(logits, backward):
    shape = (1, 6, 6)
    network, images = mlp(shape, 5, seed=1), random_images(1, shape, seed=8)
    target = wrapped(network, 5)

    JSMA(JSMASettings(iterations=1, logits=logits)).run(
        target, images, network(images.double()).argmax(dim=1), UNBUDGETED, seed=0
    )

    assert target.forward_passes == 1 + 4
    assert target.backward_passes == backward


def test_images_that_are_wrong_when_clean_cost_one_pass_and_come_back(linear):
    target = linear.target()

    adversarial = JSMA().run(target, linear.images, (linear.labels + 1) % 4, UNBUDGETED, seed=0)

    assert torch.equal(adversarial, linear.images)
    assert target.forward_passes == len(linear.images)
    assert target.backward_passes == 0


def test_out_of_reach_comes_back_clean():
    images = torch.full((3, 1, 8, 8), 0.01)
    target = wrapped(MeanBrightness(), 2)

    adversarial = JSMA().run(target, images, torch.zeros(3, dtype=torch.long), UNBUDGETED, seed=0)

    assert torch.equal(adversarial, images)


def test_all_white_images_have_nothing_to_raise():
    images = torch.ones(3, 1, 8, 8)
    target = wrapped(MeanBrightness(), 2)

    raised, lowered = (
        JSMA(JSMASettings(gamma=1.0, increase=increase)).run(
            target, images, torch.ones(3, dtype=torch.long), UNBUDGETED, seed=0
        )
        for increase in (True, False)
    )

    assert torch.equal(raised, images)
    # 0.45 x 64 = 28.8 values must go.
    assert perturbation_norms(images, lowered, "l0").tolist() == [30, 30, 30]


def test_nearly_white_values_are_not_wasted_on():
    images = torch.full((1, 1, 8, 8), 0.5)
    images[0, 0, 0] = 253 / 255
    target, labels = wrapped(MeanBrightness(threshold=0.65), 2), torch.tensor([0])

    sparing, wasting = (
        JSMA(JSMASettings(gamma=1.0, room=room)).run(target, images, labels, UNBUDGETED, seed=0) for room in (0.01, 0.0)
    )

    # (0.65 x 64 - 28 - 8 x 253 / 255) / 0.5 = 11.3 values are missing.
    assert perturbation_norms(images, sparing, "l0").tolist() == [12]
    assert perturbation_norms(images, wasting, "l0").tolist() == [8 + 12]


def test_a_value_whose_derivative_is_not_finite_is_left_alone():
    class Root(nn.Module):
        def forward(self, x):
            excess = x.flatten(1).double().sqrt().sum(dim=1) - 11.5
            return torch.stack([-excess, excess], dim=1)

    images = torch.full((1, 1, 4, 4), 0.49)
    images[0, 0, 0] = 0

    adversarial = JSMA(JSMASettings(gamma=1.0)).run(wrapped(Root(), 2), images, torch.tensor([0]), UNBUDGETED, seed=0)

    assert (adversarial[0, 0, 0] == 0).all()
    # 12 x 0.7 = 8.4, and each value brings 0.3.
    assert perturbation_norms(images, adversarial, "l0").tolist() == [12]


def test_a_share_that_is_a_whole_number_of_steps_is_not_rounded_away():
    """0.58 x 100 values is 57.99... in floats."""
    black = torch.zeros(1, 1, 10, 10)
    target = wrapped(MeanBrightness(threshold=0.575), 2)

    few, enough = (
        JSMA(JSMASettings(gamma=gamma)).run(target, black, torch.tensor([0]), UNBUDGETED, seed=0)
        for gamma in (0.57, 0.58)
    )

    assert torch.equal(few, black)
    assert int(enough.sum()) == 58


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: JSMASettings(theta=0.0), r"theta must be in \(0, 1\], pixel units a step, got 0.0"),
        (lambda: JSMASettings(theta=255), r"theta must be in \(0, 1\], pixel units a step, got 255"),
        (lambda: JSMASettings(gamma=14.5), r"gamma must be in \(0, 1\], a share of the values, got 14.5"),
        (lambda: JSMASettings(gamma=float("nan")), r"gamma must be in \(0, 1\], a share of the values, got nan"),
        (lambda: JSMASettings(room=1.0), r"room must be in \[0, 1\), pixel units, got 1.0"),
        (lambda: JSMASettings(iterations=0), "iterations must be over 0, got 0"),
    ],
)
def test_parameters_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        settings()


def test_no_other_norm_than_l0(linear):
    with pytest.raises(ConfigError, match="attack 'jsma' works in l0, not in l2"):
        JSMA().run(linear.target(), linear.images, linear.labels, Budget(norm="l2"), seed=0)


def test_a_share_that_allows_no_pair_is_refused_and_is_no_survival():
    images = random_images(2, (1, 5, 5), seed=0)
    attack = JSMA(JSMASettings(gamma=0.07))

    with pytest.raises(ConfigError, match=r"gamma must allow a pair of the 25 values, at least 0\.08; got 0\.07"):
        attack.run(wrapped(mlp((1, 5, 5), 3, seed=0), 3), images, torch.zeros(2, dtype=torch.long), UNBUDGETED, seed=0)
