"""Named suites of attacks, and the fingerprint that rows must share to be ranked together.

Nothing here imports torch until a fingerprint is asked for, so that the command line answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dkd_bench.errors import ConfigError

if TYPE_CHECKING:
    from dkd_bench.attacks import Attack

ALL = "all"
"""Word that stands for every attack of the standard suite; among defences, for every installed one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Named set of attacks that belong together; another choice of attacks is another version."""

    name: str
    version: int
    attacks: tuple[str, ...]


STANDARD = Suite(
    name="standard",
    version=3,
    attacks=(
        "fgsm",
        "pgd",
        "deepfool",
        "cw",
        "jsma",
        "autoattack",
        "autoattack-rand",
        "square",
        "hop-skip-jump",
        "detector-pgd",
        "detector-cw",
        "latent",
    ),
)
"""Attacks that ``--attack all`` runs; plan leaves out those that do not apply to a defence. The last five are for
defences that hide their gradients, reject images, or answer for the nearest image of a generator."""


def resolve_attacks(names: Sequence[str]) -> tuple[str, ...]:
    """Return ``names`` with ``all`` replaced by the standard suite; order is kept, repetitions are dropped.

    Raises:
        ConfigError: if ``names`` is empty.
    """
    if not names:
        raise ConfigError(f"no attack is named; expected one of {', '.join(STANDARD.attacks)}, or {ALL!r}")
    chosen = [each for name in names for each in (STANDARD.attacks if name == ALL else (name,))]
    return tuple(dict.fromkeys(chosen))


def suite_fingerprint(attacks: Sequence[Attack], *, n_classes: int, eot_draws: int) -> str:
    """Return a digest of what ``attacks`` do against ``n_classes``: names, parameters, libraries, code.

    So do the draws averaged in each answer of a randomised target. The attacks' order does not matter.
    """
    from dkd_bench.store.digests import digest_json

    identities = [{**attack.identity(), "variant": list(attack.variant(n_classes))} for attack in attacks]
    attacks_in_order = sorted(identities, key=lambda identity: identity["name"])
    return digest_json({"attacks": attacks_in_order, "eot_draws": eot_draws})
