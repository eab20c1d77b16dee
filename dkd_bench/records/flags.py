"""Red flags: reasons to suspect a number, and what to do about each. Only rows without one rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["suspicious", "invalid"]
"""Weight of a flag. ``invalid``: there is no number, or it is none of this defence. ``suspicious``: it may flatter."""

RowStatus = Literal["accepted", "suspicious", "invalid"]
"""Standing of a row with its flags; only accepted rows rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A reason not to believe a row."""

    name: str
    severity: Severity
    meaning: str
    remedy: str


NOT_ADAPTIVE = "not adaptively evaluated"
ZERO_GRADIENTS = "zero gradients"
BAD_GRADIENTS = "non-finite gradients"
RANDOM = "random without saying so"
OPTIMIZES = "optimises without saying so"
PROBABILITIES = "probabilities instead of logits"
SINGLE_STEP = "single step beats iterative"
NOT_FALLING = "accuracy does not fall with eps"
UNBOUNDED = "unbounded attack fails"
BLACK_BOX = "black-box beats white-box"
NOISE = "noise beats the attack"
MORE_STEPS = "more steps still help"
TRANSFER = "surrogate fooled, defence not"
BINARIZATION = "fails the binarisation test"
MISLEADING = "gradients lead nowhere"
ATTACK_ERROR = "attack error"
INTERRUPTED = "interrupted"
NOT_ADMITTED = "not admitted"
UNVERIFIED = "evidence not verified"

FLAGS: Mapping[str, Flag] = {
    flag.name: flag
    for flag in (
        Flag(
            name=NOT_ADAPTIVE,
            severity="suspicious",
            meaning="The run has no attack that sees the protection: no surrogate has gradients, or the defence "
            "rejects images and no attack looked at its detectors.",
            remedy="Return surrogates() with a gradient (BPDA), Detecting ones for a defence that abstains, and run "
            "with --attack all.",
        ),
        Flag(
            name=ZERO_GRADIENTS,
            severity="suspicious",
            meaning="On a share of clean images no surrogate has any gradient of the cross-entropy, so that attacks "
            "that follow gradients stand still: a saturated softmax, a rounding, a detached step.",
            remedy="Return logits before any scaling that saturates them, and give steps without gradient a backward "
            "pass of their own (BPDA).",
        ),
        Flag(
            name=BAD_GRADIENTS,
            severity="suspicious",
            meaning="On a share of clean images the gradient of a surrogate's cross-entropy is infinite or not a "
            "number, so that attacks that follow it go nowhere.",
            remedy="Keep logarithms and divisions away from zero: logsumexp for the logarithm of a sum of "
            "exponentials, an epsilon under a root.",
        ),
        Flag(
            name=MISLEADING,
            severity="suspicious",
            meaning="On most clean images a step along the gradient raises the cross-entropy of no surrogate more than "
            "random steps of the same length: there is a gradient, but it does not say where to go.",
            remedy="Look for rounding, thresholds and noise between image and logits, and give them a backward pass "
            "of their own (BPDA).",
        ),
        Flag(
            name=RANDOM,
            severity="invalid",
            meaning="The defence, or a surrogate of it, answers differently when asked again: it is random, or keeps "
            "a state. It does not declare it, so that attacks and scoring take one draw for the whole truth.",
            remedy="Declare randomized=True in the meta: attacks then average over draws (EOT), and scoring draws at "
            "least ten times. Keep no state between calls.",
        ),
        Flag(
            name=OPTIMIZES,
            severity="suspicious",
            meaning="The defence computes gradients while it answers, so that the gradient of its answer is not what "
            "an attack gets to see, but it does not declare it.",
            remedy="Declare optimizes=True in the meta, and return a surrogate with a backward pass of its own (BPDA).",
        ),
        Flag(
            name=PROBABILITIES,
            severity="suspicious",
            meaning="A network returns probabilities where logits are expected: losses on them take a softmax of a "
            "softmax, and their gradients vanish where the network is sure.",
            remedy="Return the values before the softmax.",
        ),
        Flag(
            name=SINGLE_STEP,
            severity="suspicious",
            meaning="An attack of one step fools images that all attacks of many steps together, in the same budget "
            "with the same sight, do not: the loss leads them astray (Carlini et al. 2019).",
            remedy="Look for steps without gradient and give them a backward pass (BPDA); try a loss on logit margins.",
        ),
        Flag(
            name=NOT_FALLING,
            severity="suspicious",
            meaning="Images that fall to an attack at one eps stand it at a larger one, or accuracy stays where it is "
            "although the budget doubles: the attack, not the defence, is at its end (Carlini et al. 2019).",
            remedy="Give the attack more steps and restarts, and see what its loss does; look for masked gradients.",
        ),
        Flag(
            name=UNBOUNDED,
            severity="suspicious",
            meaning="Images stand an attack that may change every pixel to any value. Nothing can stand that, so the "
            "attack does not work on this defence (Carlini et al. 2019).",
            remedy="Return surrogates() that answer as the defence does and have a gradient; until then no number of "
            "this attack says anything.",
        ),
        Flag(
            name=BLACK_BOX,
            severity="suspicious",
            meaning="Examples made with less sight of the defence fool images that those made with full sight do not: "
            "transferred ones, or ones made from scores and decisions alone (Carlini et al. 2019).",
            remedy="The attack with full sight is too weak: more steps and restarts, another surrogate or loss.",
        ),
        Flag(
            name=NOISE,
            severity="suspicious",
            meaning="Random points of the budget fool images that the attack with full sight did not.",
            remedy="The attack does not search; look for masked gradients, or a surrogate that is not the defence.",
        ),
        Flag(
            name=MORE_STEPS,
            severity="suspicious",
            meaning="With twice as many steps the attack still fools more images: it has not converged, and the "
            "number is an upper bound only.",
            remedy="Run with more steps, such as --set pgd.steps=200, until doubling them changes nothing.",
        ),
        Flag(
            name=TRANSFER,
            severity="suspicious",
            meaning="The attack fools the surrogate that it works on, and the defence answers right all the same: the "
            "surrogate is not the defence, so the attack was on something else.",
            remedy="Return a surrogate that does all that predict() does, preprocessing included.",
        ),
        Flag(
            name=BINARIZATION,
            severity="suspicious",
            meaning="The attack misses adversarial examples that are known to exist, put there by a read-out trained "
            "on the network's own features (Zimmermann et al. 2022).",
            remedy="Strengthen the attack until it passes: more steps, another loss, a backward pass of your own.",
        ),
        Flag(
            name=ATTACK_ERROR,
            severity="invalid",
            meaning="An attack failed on this defence: there is no number, since a failure is not survival.",
            remedy="Read the reason beside the row; the same command goes on from what was done.",
        ),
        Flag(
            name=INTERRUPTED,
            severity="invalid",
            meaning="The run was interrupted before it was through; what is missing might have changed its numbers.",
            remedy="The same command goes on from what was done.",
        ),
        Flag(
            name=NOT_ADMITTED,
            severity="invalid",
            meaning="The defence breaks a promise of the interface on clean images: answers that are not finite, one "
            "answer to everything, networks that torch cannot reach, a failure.",
            remedy="Read the reason beside the row; dkd_bench.testing checks a defence before a run does.",
        ),
        Flag(
            name=UNVERIFIED,
            severity="invalid",
            meaning="What an attack returned broke the box or the budget; or 'dkd-bench verify' found that the "
            "evidence does not bear out the record, or the record was changed since it was verified.",
            remedy="Read the reason beside the row, or what 'dkd-bench verify' finds in the run; make the run again.",
        ),
    )
}
"""Every flag by name."""


def row_status(names: Iterable[str]) -> RowStatus:
    """Return the standing of a row with these flags; one that this version does not know makes it suspicious."""
    severities = {FLAGS[name].severity if name in FLAGS else "suspicious" for name in names}
    return "invalid" if "invalid" in severities else "suspicious" if severities else "accepted"
