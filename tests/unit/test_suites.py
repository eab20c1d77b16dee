"""The suite that ``--attack all`` stands for, and the fingerprint of what ran."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dkd_bench.attacks.autoattack import AutoAttackStandard
from dkd_bench.attacks.foolbox.table import FGSM, PGD, PGDSettings
from dkd_bench.errors import ConfigError
from dkd_bench.plugins.suites import STANDARD, resolve_attacks, suite_fingerprint


def test_all_is_the_standard_suite():
    assert resolve_attacks(["all"]) == STANDARD.attacks
    assert STANDARD.attacks == (
        *("fgsm", "pgd", "deepfool", "cw", "jsma", "autoattack", "autoattack-rand"),
        *("square", "hop-skip-jump", "detector-pgd", "detector-cw", "latent"),
    )
    assert STANDARD.version == 3


def test_order_is_kept_and_repetitions_are_dropped():
    assert resolve_attacks(["pgd", "mine.py:Mine", "pgd"]) == ("pgd", "mine.py:Mine")
    assert resolve_attacks(["cw", "all"]) == (
        "cw",
        *(name for name in STANDARD.attacks if name != "cw"),
    )


def test_no_attack_at_all_is_refused():
    with pytest.raises(ConfigError, match="no attack is named; expected one of fgsm, pgd"):
        resolve_attacks([])


def test_fingerprint_knows_parameters_and_not_order():
    def fingerprint(*attacks, n_classes=10, eot_draws=16):
        return suite_fingerprint(attacks, n_classes=n_classes, eot_draws=eot_draws)

    assert fingerprint(FGSM(), PGD()) == fingerprint(PGD(), FGSM())
    assert fingerprint(PGD()) != fingerprint(PGD(PGDSettings(steps=41)))
    assert fingerprint(PGD()) != fingerprint(FGSM(), PGD())
    assert fingerprint(PGD(), n_classes=3) == fingerprint(PGD(), n_classes=10)
    assert fingerprint(PGD(), eot_draws=4) != fingerprint(PGD())


def test_fingerprint_knows_that_autoattack_is_another_suite_below_four_classes():
    assert suite_fingerprint([AutoAttackStandard()], n_classes=3, eot_draws=16) != suite_fingerprint(
        [AutoAttackStandard()], n_classes=10, eot_draws=16
    )


def test_names_are_resolved_without_torch():
    subprocess.run(
        [sys.executable, "-c", "import sys, dkd_bench.plugins.suites; assert 'torch' not in sys.modules"], check=True
    )
