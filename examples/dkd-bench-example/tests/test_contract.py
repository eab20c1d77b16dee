"""All plugins keep the contract of dkd-bench."""

from dkd_bench_example.averaged import Averaged
from dkd_bench_example.bit_depth import BitDepth
from dkd_bench_example.mi_fgsm import MomentumFGSM

from dkd_bench.testing import AttackContract, DefenseContract, ThreatModelContract


class TestBitDepth(DefenseContract):
    """The defence."""

    defense = BitDepth


class TestMomentumFGSM(AttackContract):
    """The attack."""

    attack = MomentumFGSM


class TestAveraged(ThreatModelContract):
    """The threat model."""

    threat_model = Averaged
