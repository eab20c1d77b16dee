"""The contract suite: what every defence and every attack must keep, as tests that a plugin's author runs.

from dkd_bench.testing import AttackContract, DefenseContract

class TestMyDefense(DefenseContract):
    defense = MyDefense

class TestMyAttack(AttackContract):
    attack = MyAttack
"""

from importlib.util import find_spec

if find_spec("pytest") is None:
    raise ImportError("dkd_bench.testing runs under pytest, which is not installed; run 'pip install pytest'")

from dkd_bench.testing._attack import AttackContract
from dkd_bench.testing._common import QUICK_RECIPE, checks_of, quick_dataset
from dkd_bench.testing._defense import DefenseContract

__all__ = ["QUICK_RECIPE", "AttackContract", "DefenseContract", "checks_of", "quick_dataset"]
