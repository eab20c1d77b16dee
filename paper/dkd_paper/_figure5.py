"""Figure 5 from a sweep over zeta: separation and accuracy, with RI and KD as levels."""

from __future__ import annotations

from dkd_bench import RunRequest
from dkd_bench.records import Interval
from dkd_bench.sweep import Sweep, SweepPoint, SweepRequest
from dkd_paper._paper import PaperDataset
from dkd_paper._tables import Tables
from dkd_paper._trends import Comparison, trend
from dkd_paper.record import Block, Entry, Estimate, Row, Trend
from dkd_paper.request import StudyRequest

ZETAS = ("0", "0.5", "0.7", "0.9", "0.95")
_PAPER_ZETA: dict[PaperDataset, str] = {"MNIST": "0.9", "CIFAR10": "0.5"}
"""Value of zeta that the paper chose from its figure, by dataset."""
_EPS = 0.1


def figure5_sweep(request: StudyRequest, n_test: int) -> SweepRequest:
    """Return the sweep that Figure 5 is drawn from."""
    return SweepRequest(
        run=RunRequest(
            defenses=("dkd",),
            attacks=("fgsm",),
            threat_models=("standalone", "joint"),
            dataset=request.dataset,
            eps=(_EPS,),
            n_examples=min(n_test, request.n_slow, request.n_examples or n_test),
            seed=request.seeds[0],
            recipe=request.recipe,
            device=request.device,
            data_root=request.data_root,
            out=request.folder / f"figure5-seed-{request.seeds[0]}",
        ),
        setting="zeta",
        values=ZETAS,
        levels=("ri", "kd"),
    )


def figure5(sweep: Sweep, paper: PaperDataset) -> Tables:
    """Return the sweep as tables, and what the paper reads from its figure."""
    labelled = [
        *((f"DKD, zeta {point.label}", point) for point in sweep.points),
        *((point.label.upper(), point) for point in sweep.levels),
    ]
    return Tables(
        title="Figure 5: latent space separation and accuracy against zeta",
        blocks=(
            Block(
                title="Latent space separation (LSS)",
                unit="margin",
                columns=("raw", "scale-free"),
                rows=tuple(Row(label=label, entries=_separation(point)) for label, point in labelled),
            ),
            Block(
                title=f"Accuracy, clean and under {sweep.attack} at {sweep.norm} {sweep.eps:g}",
                unit="percent",
                columns=("clean", *sweep.threat_models),
                rows=tuple(Row(label=label, entries=_accuracies(point, sweep)) for label, point in labelled),
            ),
        ),
        trends=(*_order(sweep, _PAPER_ZETA[paper]), *_along_zeta(sweep)),
        notes=(
            "Clean accuracy is that of the whole test set.",
            "Raw margins grow with the scale of the latents; only scale-free ones compare networks of unlike scale.",
        ),
    )


def _raw(point: SweepPoint) -> float | None:
    return None if point.separation is None else point.separation.margin


def _scaled(point: SweepPoint) -> float | None:
    return None if point.separation is None else point.separation.scaled_margin


def _order(sweep: Sweep, zeta: str) -> list[Trend]:
    levels = {point.label: point for point in sweep.levels}
    chosen = next(point for point in sweep.points if point.label == zeta)
    return [
        trend(
            f"LSS of DKD (zeta {zeta}) > RI > KD{called}.",
            [
                Comparison("DKD over RI", margin(chosen), margin(levels["ri"])),
                Comparison("RI over KD", margin(levels["ri"]), margin(levels["kd"])),
            ],
            digits=3,
        )
        for called, margin in ((", raw", _raw), (", scale-free (not in the paper)", _scaled))
    ]


def _along_zeta(sweep: Sweep) -> list[Trend]:
    steps = list(zip(sweep.points[1:], sweep.points, strict=False))
    first, last = sweep.points[0], sweep.points[-1]
    return [
        trend(
            "LSS, raw, rises with zeta.",
            [Comparison(f"zeta {one.label} over {other.label}", _raw(one), _raw(other)) for one, other in steps],
            digits=3,
        ),
        trend(
            "Clean accuracy falls as zeta rises.",
            [Comparison(f"zeta {first.label} over {last.label}", first.clean.value, last.clean.value)],
        ),
    ]


def _separation(point: SweepPoint) -> tuple[Entry, Entry]:
    found = point.separation
    margins = (None, None) if found is None else (found.margin, found.scaled_margin)
    n = 0 if found is None else found.n
    first, second = (
        None if margin is None else Estimate(value=margin, ci95=None, n=n, by_seed=(margin,), spread=None)
        for margin in margins
    )
    return Entry(measured=first, paper=None), Entry(measured=second, paper=None)


def _accuracies(point: SweepPoint, sweep: Sweep) -> tuple[Entry, ...]:
    robust = [point.robust.get(name) for name in sweep.threat_models]
    return (
        Entry(measured=_single(point.clean, point.n_test), paper=None),
        *(Entry(measured=None if found is None else _single(found, sweep.n), paper=None) for found in robust),
    )


def _single(found: Interval, n: int) -> Estimate:
    return Estimate(value=found.value, ci95=found.ci95, n=n, by_seed=(found.value,), spread=None)
