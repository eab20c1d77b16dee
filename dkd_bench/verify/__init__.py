"""Audit behind ``dkd-bench verify``: evidence on disk, or a stranger's, re-scored and compared, image by image.

It knows a run only by its folder. How images are checked, outcomes counted and intervals drawn is written here once
more, on purpose: an error in ``verify``, ``score`` or ``statistics`` must not be able to confirm itself.

Some of it is shared with a run all the same: ``prepare`` and ``plan``, which turn the request into weights, crafts and
cells; how a file of evidence is read, and the name of a cell; the candidates that threat models derive from evidence;
the attacks, for evidence that is made again and for challenges; ``probe``, ``diagnosis`` and ``challenge``, which raise
the flags. Defences answer by their own code.
"""

from dkd_bench.verify._auditor import audit
from dkd_bench.verify._claim import Claim, ClaimReport, check_claim, read_claim
from dkd_bench.verify._keep import keep_verification
from dkd_bench.verify._render import Report, render_report
from dkd_bench.verify._report import AuditReport, Checked, RoundedCell

__all__ = [
    "AuditReport",
    "Checked",
    "Claim",
    "ClaimReport",
    "Report",
    "RoundedCell",
    "audit",
    "check_claim",
    "keep_verification",
    "read_claim",
    "render_report",
]
