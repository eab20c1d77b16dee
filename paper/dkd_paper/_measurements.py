"""Measurements from the runs of a study: one estimate for each question, over the seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev

from dkd_bench.errors import EvidenceError
from dkd_bench.records import SURVIVED, CellRecord, Fraction, RunRecord
from dkd_bench.records.statistics import mean_interval
from dkd_paper.record import Estimate


def estimate(values: Sequence[Fraction], n: int) -> Estimate:
    """Return the mean of one share of ``n`` images for each seed, with its Wilson interval and its spread.

    The images are the same, or as many, under each seed, so the interval is that of ``n`` images, not of all.
    """
    mean = fmean(values)
    return Estimate(
        value=mean,
        ci95=mean_interval([mean] * n).ci95,
        n=n,
        by_seed=tuple(values),
        spread=stdev(values) if len(values) > 1 else None,
    )


class Measurements:
    """Measurements of one defence, threat model and attack at a time, from the runs of a study."""

    def __init__(self, runs: Mapping[tuple[str, int], RunRecord]) -> None:
        """Take the records by part and seed."""
        self._runs = runs

    def robust(self, part: str, defense: str, rule: str, threat_model: str, eps: float | None) -> Estimate:
        """Return the accuracy under attack, per image the worst over the candidates."""
        return self._share(part, defense, rule, threat_model, eps, lambda cell: cell.robust_accuracy)

    def mean_robust(self, part: str, defense: str, rule: str, threat_model: str, eps: float | None) -> Estimate:
        """Return the accuracy under attack, the mean over the candidates: over the members, when standalone."""
        return self._share(part, defense, rule, threat_model, eps, lambda cell: cell.mean_robust_accuracy)

    def failed_majorities(self, part: str, defense: str, rule: str, threat_model: str, eps: float | None) -> Estimate:
        """Return the share of images on which the vote failed."""
        return self._share(
            part,
            defense,
            rule,
            threat_model,
            eps,
            lambda cell: None if cell.failed_majorities is None else cell.failed_majorities / cell.n,
        )

    def gain(self, part: str, defense: str, threat_model: str, eps: float | None) -> Estimate:
        """Return the share of images that the boosted vote gets right and the majority vote does not."""
        gains = []
        n = 0
        for record in self._of_part(part):
            boosted = _cell(record, defense, "boosted", threat_model, eps)
            majority = _cell(record, defense, "majority", threat_model, eps)
            pairs = zip(boosted.outcomes, majority.outcomes, strict=True)
            gains.append(sum(one in SURVIVED and other not in SURVIVED for one, other in pairs) / boosted.n)
            n = boosted.n
        return estimate(gains, n)

    def clean(self, part: str, defense: str, rule: str) -> Estimate:
        """Return the clean accuracy on the images of a part."""
        records = self._of_part(part)
        values = [record.manifest.defenses[defense].clean_accuracy[rule].value for record in records]
        return estimate(values, records[0].manifest.dataset.n)

    def _share(
        self,
        part: str,
        defense: str,
        rule: str,
        threat_model: str,
        eps: float | None,
        value: Callable[[CellRecord], Fraction | None],
    ) -> Estimate:
        cells = [_cell(record, defense, rule, threat_model, eps) for record in self._of_part(part)]
        values = []
        for cell in cells:
            found = value(cell)
            assert found is not None, "a cell that is ok has its numbers"
            values.append(found)
        return estimate(values, cells[0].n)

    def _of_part(self, part: str) -> list[RunRecord]:
        return [record for (name, _), record in sorted(self._runs.items()) if name == part]


def _cell(record: RunRecord, defense: str, rule: str, threat_model: str, eps: float | None) -> CellRecord:
    asked = (defense, rule, threat_model, eps)
    for cell in record.cells:
        if (cell.defense, cell.decision, cell.threat_model, cell.eps) == asked and cell.status == "ok":
            return cell
    raise EvidenceError(
        f"the run '{record.manifest.command}' has no number for {defense}/{rule}/{threat_model} at eps {eps}; "
        "it was edited or its defence changed, delete it and run again"
    )
