"""Red flags: what makes a number suspicious, and what to do about it. A row with one does not rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A reason not to believe a row."""

    name: str
    meaning: str
    remedy: str


NOT_ADAPTIVE = "not adaptively evaluated"
ZERO_GRADIENTS = "zero gradients"
RANDOM = "random without saying so"
OPTIMIZES = "optimises without saying so"
PROBABILITIES = "probabilities instead of logits"

FLAGS: Mapping[str, Flag] = {
    flag.name: flag
    for flag in (
        Flag(
            name=NOT_ADAPTIVE,
            meaning="The run has no attack that sees the protection: no surrogate has gradients, or the defence "
            "rejects images and no attack looked at its detectors.",
            remedy="Return surrogates() with a gradient (BPDA), Detecting ones for a defence that abstains, and run "
            "with --attack all.",
        ),
        Flag(
            name=ZERO_GRADIENTS,
            meaning="On a share of clean images no surrogate has any gradient of the cross-entropy, so that attacks "
            "that follow gradients stand still: a saturated softmax, a rounding, a detached step.",
            remedy="Return logits before any scaling that saturates them, and give steps without gradient a backward "
            "pass of their own (BPDA).",
        ),
        Flag(
            name=RANDOM,
            meaning="A surrogate answers differently when asked again, but the defence is not declared randomised, so "
            "that attacks take one draw for the whole truth.",
            remedy="Declare randomized=True in the meta: attacks then average over draws (EOT).",
        ),
        Flag(
            name=OPTIMIZES,
            meaning="The defence computes gradients while it answers, so that the gradient of its answer is not what "
            "an attack gets to see, but it does not declare it.",
            remedy="Declare optimizes=True in the meta, and return a surrogate with a backward pass of its own (BPDA).",
        ),
        Flag(
            name=PROBABILITIES,
            meaning="A network returns probabilities where logits are expected: losses on them take a softmax of a "
            "softmax, and their gradients vanish where the network is sure.",
            remedy="Return the values before the softmax.",
        ),
    )
}
"""Every flag by name."""
