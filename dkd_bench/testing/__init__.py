"""Contract suite: what every defence, attack and threat model must keep, as tests that a plugin's author runs.

from dkd_bench.testing import AttackContract, DefenseContract, ThreatModelContract

class TestMyDefense(DefenseContract):
    defense = MyDefense

class TestMyAttack(AttackContract):
    attack = MyAttack

class TestMyThreatModel(ThreatModelContract):
    threat_model = MyThreatModel
"""

from importlib.util import find_spec

if find_spec("pytest") is None:
    raise ImportError("dkd_bench.testing runs under pytest, which is not installed; run 'pip install pytest'")

from dkd_bench.testing._attack import AttackContract
from dkd_bench.testing._common import QUICK_RECIPE, checks_of, quick_dataset
from dkd_bench.testing._defense import DefenseContract
from dkd_bench.testing._threat_model import ThreatModelContract

__all__ = ["QUICK_RECIPE", "AttackContract", "DefenseContract", "ThreatModelContract", "checks_of", "quick_dataset"]
