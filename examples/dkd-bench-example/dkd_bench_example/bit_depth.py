"""Bit-depth reduction: a network sees pixels rounded to few bits (Xu et al. 2018, feature squeezing)."""

from dataclasses import dataclass

from torch import nn

from dkd_bench.api import ConfigError, Defense, DefenseMeta, build_network, train_network


@dataclass(frozen=True, slots=True, kw_only=True)
class BitDepthSettings:
    """What ``--set bit-depth.NAME=VALUE`` reaches."""

    bits: int = 2

    def __post_init__(self):
        if not 1 <= self.bits <= 8:
            raise ConfigError(f"bits must be from 1 to 8, got {self.bits}")


class BitDepth(Defense):
    """Bit-depth reduction before one network."""

    meta = DefenseMeta(name="bit-depth", title="Bit depth", paper="arXiv:1704.01155", non_differentiable=True)
    Settings = BitDepthSettings

    def __init__(self, images, settings=None):
        """Build the network."""
        super().__init__(images, settings)
        self.network = build_network("auto", images)

    @property
    def members(self):
        """The network, without the rounding."""
        return [self.network]

    def fit(self, data, *, recipe, generator, progress):
        """Train the network on the images as they are."""
        train_network(self.network, data, recipe=recipe, generator=generator, progress=progress)

    def predict(self, x, *, generator):
        """Round, then classify."""
        return self.network(rounded(x, self.settings.bits)).argmax(dim=1)

    def surrogates(self):
        """Offer the same with a gradient (BPDA, Athalye et al. 2018)."""
        return {"bpda": StraightThrough(self.network, self.settings.bits)}


class StraightThrough(nn.Module):
    """Rounds on the way forward, and lets the gradient through as if it had not."""

    def __init__(self, network, bits):
        """Wrap ``network``."""
        super().__init__()
        self.network, self.bits = network, bits

    def forward(self, x):
        """Return the logits of the rounded images."""
        return self.network(x + (rounded(x, self.bits) - x).detach())

    def extra_repr(self):
        """Show the setting: the harness knows a target by its weights, its code and its ``repr``."""
        return f"bits={self.bits}"


def rounded(x, bits):
    """Return images of ``2 ** bits`` gray levels."""
    levels = 2**bits - 1
    return (x * levels).round() / levels
