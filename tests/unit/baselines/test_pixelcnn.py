"""PixelCNN++: conditionals that sum to 1 and see nothing they should not; purification with a cache and without."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from dkd_baselines._pixelcnn import (
    BitsPerDimension,
    Mixture,
    PixelCNN,
    PixelCNNSize,
    levels_of,
    parameters_per_logistic,
)
from dkd_baselines._pixelcnn_cached import GreedyPurifier, likeliest
from dkd_bench.api import ConfigError, ImageSpec, Split, TrainingSet, TrainingStep, train_network
from dkd_bench.target.randomness import isolated_randomness
from dkd_bench.training import Recipe

EVERY_LEVEL = torch.arange(256, dtype=torch.float64)


def a_density(channels: int = 1, side: int = 8, *, gain: float = 2.0, **size: float) -> PixelCNN:
    """Return a small network with weights large enough for pixels to matter to each other."""
    values = {"filters": 5, "resnets": 1, "resolutions": 2, "mixtures": 3} | size
    with isolated_randomness(0):
        network = PixelCNN(ImageSpec(channels=channels, height=side, width=side, n_classes=10), PixelCNNSize(**values))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= gain
    return network.eval().requires_grad_(False)


def noise(n: int, channels: int = 1, side: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


def mixtures(n: int, channels: int, m: int = 4, spread: float = 1.0) -> Mixture:
    """Return mixtures of leading shape ``(n, 1)`` with parameters drawn at random."""
    generator = torch.Generator().manual_seed(0)
    shape = (n, 1, m * parameters_per_logistic(channels))
    return Mixture.of(spread * torch.randn(shape, generator=generator, dtype=torch.float64), channels)


def one_logistic(level: float, log_scale: float) -> Mixture:
    parameters = torch.tensor([[[0.0, level / 127.5 - 1, log_scale]]], dtype=torch.float64)
    return Mixture.of(parameters, 1)


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_the_256_probabilities_of_each_channel_sum_to_one(spread):
    mixture = mixtures(6, 3, spread=spread)
    for channel in range(3):
        total = mixture.log_probabilities(channel, EVERY_LEVEL.view(1, 256, 1)).exp().sum(dim=1)
        assert (total - 1).abs().max() < 1e-12
        mixture = mixture.given(channel, torch.full((6, 1, 1), 40.0 * channel, dtype=torch.float64))


def test_a_probability_is_the_difference_of_the_distribution_function_between_middles():
    mixture = mixtures(5, 1)
    weights, means = mixture.log_weights.exp(), mixture.means[..., 0, :]
    scales = mixture.log_scales[..., 0, :].exp()

    def below(edge: float) -> Tensor:
        return (weights * torch.sigmoid((edge / 127.5 - 1 - means) / scales)).sum(dim=-1)

    for level, lower, upper in ((0, -math.inf, 0.5), (1, 0.5, 1.5), (100, 99.5, 100.5), (255, 254.5, math.inf)):
        expected = below(upper) - below(lower)
        found = mixture.log_probabilities(0, torch.full((5, 1, 1), float(level), dtype=torch.float64)).exp()
        assert torch.allclose(found, expected, rtol=1e-9)


def test_probabilities_far_in_a_tail_keep_their_order_and_their_gradient():
    parameters = torch.tensor([[[0.0, -1.0, -20.0]]], requires_grad=True)
    found = Mixture.of(parameters, 1).log_probabilities(0, EVERY_LEVEL.float().view(1, 256, 1))

    assert found.isfinite().all()
    assert (found.diff(dim=1) < 0).all()
    (gradient,) = torch.autograd.grad(found.sum(), parameters)
    assert gradient.isfinite().all()


def test_channels_are_told_by_one_mixture_whose_means_follow_earlier_channels():
    """The chain of conditionals is the authors' joint mixture: ``sum_k w_k p_k(r) p_k(g | r) p_k(b | r, g)``."""
    mixture = mixtures(3, 3)
    values = torch.tensor([30.0, 130.0, 220.0], dtype=torch.float64)
    moved = values / 127.5 - 1
    red, green, blue = mixture.means.unbind(dim=-2)
    means = [
        red,
        green + mixture.links[..., 0, :] * moved[0],
        blue + mixture.links[..., 1, :] * moved[0] + mixture.links[..., 2, :] * moved[1],
    ]
    joint = mixture.log_weights.exp()
    for channel, mean in enumerate(means):
        scale = mixture.log_scales[..., channel, :].exp()
        upper, lower = ((moved[channel] + sign / 255 - mean) / scale for sign in (1, -1))
        joint = joint * (upper.sigmoid() - lower.sigmoid())

    chain = torch.zeros(3, 1, dtype=torch.float64)
    for channel in range(3):
        value = values[channel].view(1, 1, 1)
        chain = chain + mixture.log_probabilities(channel, value)
        mixture = mixture.given(channel, value)

    assert torch.allclose(chain.exp(), joint.sum(dim=-1), rtol=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolutions", [1, 2, 3])
def test_a_pixel_depends_on_those_before_it_and_on_no_others(channels, resolutions):
    network = a_density(channels, resolutions=resolutions).double()
    levels = levels_of(noise(1, channels).double())
    before = network(levels)
    moved = torch.zeros(64, 64, dtype=torch.bool)
    for place in range(64):
        changed = levels.clone()
        changed[0, :, place // 8, place % 8] = 255 - changed[0, :, place // 8, place % 8]
        moved[place] = (network(changed) != before).any(dim=1).flatten()

    assert not moved.tril().any()
    next_pixel = moved.diagonal(1)
    at_row_ends = torch.arange(63) % 8 == 7
    assert next_pixel[~at_row_ends].all()
    assert moved.diagonal(8).all()


def test_bits_per_dimension_are_those_of_the_conditionals():
    network = a_density(3).double()
    levels = levels_of(noise(2, 3).double())
    parameters = network(levels)
    bits = torch.zeros(2, dtype=torch.float64)
    for row in range(8):
        for column in range(8):
            mixture = network.mixture(parameters[:, :, row, column])
            for channel in range(3):
                value = levels[:, channel, row, column, None]
                bits -= mixture.log_probabilities(channel, value) / math.log(2) / 192
                mixture = mixture.given(channel, value)

    assert torch.allclose(network.bits_per_dimension(levels), bits)


def test_training_finds_what_images_have_in_common_and_touches_no_global_generator():
    state = torch.random.get_rng_state()
    bits, of_shuffled_pixels = bits_of_shades(0)

    assert bits < 6.5
    assert of_shuffled_pixels > 8
    assert torch.equal(torch.random.get_rng_state(), state)


def bits_of_shades(seed):
    """Train on images of one shade each; return the bits of such images, and of their pixels shuffled."""
    generator = torch.Generator().manual_seed(seed)
    shade = torch.randint(0, 256, (64, 1, 1, 1), generator=generator)
    split = Split(images=shade.expand(64, 1, 8, 8).to(torch.uint8), labels=torch.zeros(64, dtype=torch.int64))
    network = a_density(gain=1.0, filters=6, resolutions=1)
    train_network(
        network,
        TrainingSet(split=split, digest="shades"),
        recipe=Recipe(name="brief", epochs=25, batch_size=16, learning_rate=2e-2, schedule="one-cycle"),
        generator=generator,
        objective=BitsPerDimension(),
    )

    levels = split.images.float()
    shuffled = levels.flatten()[torch.randperm(levels.numel(), generator=generator)].view_as(levels)
    with torch.no_grad():
        return [float(network.bits_per_dimension(each).mean()) for each in (levels, shuffled)]


def test_dropout_draws_from_the_step_alone():
    network = a_density(dropout=0.5).train()
    images = noise(2)

    def loss(seed: int) -> float:
        step = TrainingStep(
            indices=torch.arange(2),
            images=images,
            labels=torch.zeros(2, dtype=torch.int64),
            progress=0.0,
            generator=torch.Generator().manual_seed(seed),
        )
        return float(BitsPerDimension().step_loss(network, step))

    state = torch.random.get_rng_state()
    assert loss(1) == loss(1) != loss(2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(network(images), network(images))


def test_sides_must_be_halved_as_often_as_there_are_resolutions():
    with pytest.raises(ConfigError, match="3 resolutions need sides that 4 divides, got 6 x 6"):
        a_density(side=6, resolutions=3)


@pytest.mark.parametrize(("name", "value"), [("filters", 0), ("mixtures", -1), ("dropout", 1.0)])
def test_impossible_sizes_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        a_density(**{name: value})


def plainly_purified(network: PixelCNN, images: Tensor, reach: int) -> Tensor:
    """Purify with a whole forward pass for each value."""
    network = copy.deepcopy(network).double()
    given = levels_of(images.double())
    levels = given.clone()
    for row in range(levels.shape[2]):
        for column in range(levels.shape[3]):
            for channel in range(levels.shape[1]):
                mixture = network.mixture(network(levels)[:, :, row, column].unsqueeze(1))
                for earlier in range(channel):
                    mixture = mixture.given(earlier, levels[:, earlier, row, column].view(-1, 1, 1))
                log_probabilities = mixture.log_probabilities(channel, EVERY_LEVEL.view(1, 256, 1))
                too_far = (EVERY_LEVEL - given[:, channel, row, column, None]).abs() > reach
                levels[:, channel, row, column] = (
                    log_probabilities.masked_fill(too_far, -math.inf).argmax(dim=1).double()
                )
    return (levels / 255).to(images.dtype)


@pytest.mark.parametrize(
    ("channels", "resolutions", "resnets"), [(1, 1, 2), (1, 2, 1), (1, 3, 1), (3, 1, 1), (3, 2, 2)]
)
def test_purification_with_a_cache_is_purification_without(channels, resolutions, resnets):
    network = a_density(channels, resolutions=resolutions, resnets=resnets)
    images = noise(5, channels)

    found = GreedyPurifier(network, eps=0.2)(images)

    assert torch.equal(found, plainly_purified(network, images, 51))
    assert ((found - images).abs() > 1 / 255).double().mean() > 0.5


def test_purified_images_do_not_depend_on_the_batch_nor_on_the_memory_format():
    network = a_density()
    images = noise(12)
    purifier = GreedyPurifier(network, eps=0.3)
    together = purifier(images)

    assert torch.equal(together, torch.cat([purifier(image.unsqueeze(0)) for image in images]))
    assert torch.equal(together, torch.cat([purifier(piece) for piece in images.split(5)]))
    network.to(memory_format=torch.channels_last)
    assert torch.equal(together, purifier(images.contiguous(memory_format=torch.channels_last)))
    assert purifier(images[:0]).shape == (0, 1, 8, 8)


@pytest.mark.parametrize("eps", [0.0, 16 / 255, 0.1, 0.3])
def test_purified_values_stay_within_the_levels_that_cover_eps(eps):
    images = noise(6)
    moved = (255 * GreedyPurifier(a_density(), eps)(images) - levels_of(images)).abs()
    assert round(float(moved.max())) == math.ceil(255 * eps - 1e-9)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(90, 110, 100), (101, 140, 101), (20, 99, 99), (200, 255, 200), (0, 50, 50)]
)
def test_the_likeliest_candidate_is_the_nearest_to_a_single_logistic(low, high, expected):
    candidates = torch.arange(low, high + 1, dtype=torch.float64).view(1, 1, -1)
    for log_scale in (-7.0, -3.0):
        assert int(likeliest(one_logistic(100, log_scale), candidates)) == expected


def test_later_channels_follow_the_purified_value_of_earlier_ones():
    """Green is linked to red with weight 1, so that its likeliest level is red's."""
    parameters = torch.tensor([[[0.0, 0.0, 0.0, 0.0, -5.0, -5.0, -5.0, 20.0, 0.0, 0.0]]], dtype=torch.float64)
    candidates = torch.stack([torch.arange(180, 200), torch.arange(180, 200), torch.arange(120, 140)]).double()
    pixel = likeliest(Mixture.of(parameters, 3), candidates.unsqueeze(0))
    assert pixel.tolist()[0][:2] == [180, 180]
    assert pixel.tolist()[0][2] in (127, 128)


def test_purification_needs_no_mode_and_leaves_density_and_images_alone():
    network = a_density().requires_grad_(True)
    images = noise(2)
    shown, weights = images.clone(), copy.deepcopy(network.state_dict())
    found = GreedyPurifier(network, eps=0.1)(images.requires_grad_())

    assert not found.requires_grad
    assert found.dtype == images.dtype
    assert torch.equal(images, shown)
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
