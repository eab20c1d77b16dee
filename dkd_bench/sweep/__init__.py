"""Sweep: one defence at several values of a setting, with other defences as levels beside it (Figure 5)."""

from dkd_bench.sweep._measure import carry_out, runs_of, sweep_of
from dkd_bench.sweep._record import Sweep, SweepPoint
from dkd_bench.sweep._report import render_sweep, save_sweep
from dkd_bench.sweep._request import SweepRequest, in_folder_of_its_own

__all__ = [
    "Sweep",
    "SweepPoint",
    "SweepRequest",
    "carry_out",
    "in_folder_of_its_own",
    "render_sweep",
    "runs_of",
    "save_sweep",
    "sweep_of",
]
