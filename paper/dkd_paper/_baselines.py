"""Published defences with known answers: attacked as their authors did and as those who broke them did.

Examples made on the bare classifier, which is all that an adversary without knowledge of the protection sees, are
the standalone threat model; those made on the whole defence are the joint one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dkd_bench.api import Norm
from dkd_bench.records import RunRecord
from dkd_paper import _paper
from dkd_paper._measurements import Measurements
from dkd_paper._paper import WHITE_BOX_SETTINGS, PaperDataset
from dkd_paper._tables import Tables
from dkd_paper._trends import Comparison, trend
from dkd_paper.record import Block, Entry, Estimate, Row, Trend
from dkd_paper.study import Part

NAMES = {
    "none": "none",
    "magnet": "MagNet",
    "pixel-defend": "PixelDefend",
    "defense-gan": "Defense-GAN",
    "at": "PGD training",
    "trades": "TRADES",
}
"""Names of the baselines, and what Table 4 calls them."""

_DETERMINISTIC = ("none", "magnet", "pixel-defend", "at", "trades")
_GAN = "defense-gan"
_RULE = "deployed"
EPS = 0.3
"""Linf budget of the robust references and of the oblivious attacks beside Table 4's."""
GAN_L2 = 1.98
"""The L2 norm of a mean squared change of 0.005, the distortion at which Defense-GAN was broken (28 x 28 pixels)."""
MAGNET_L2 = 4.0
"""The L2 norm within which MagNet must fall."""
PURIFIED_L2 = 3.0
"""An L2 norm in which some values may change by more than PixelDefend can take back."""
_PURIFIED: tuple[tuple[Norm, float], ...] = (("linf", EPS), ("l2", PURIFIED_L2))
N_PURIFIED = 100
"""Number of images of the parts in which a purifier answers at every step of an attack."""
N_AVERAGED = 25
"""Number of images of the part in which Defense-GAN searches eight times at every step."""
N_SEARCHED = 50
"""Number of images of the parts that Defense-GAN answers by ten searches each."""
LATENT_KAPPA = 6.0
"""Lead, in logits, of a wrong class on the generated image: room for the neighbour that the search finds."""


def _oblivious(attack: str, defenses: tuple[str, ...], *, settings: tuple[str, ...] = (), n: int | None = None) -> Part:
    return Part(
        name=f"oblivious-{attack}" + ("-gan" if defenses == (_GAN,) else ""),
        attack=attack,
        threat_models=("standalone",),
        defenses=defenses,
        settings=settings,
        eps=(0.04, 0.08, EPS) if attack == "fgsm" else (),
        n=n,
        slow=True,
    )


_SETTINGS = {
    "fgsm": (),
    "jsma": ("jsma.iterations=200", "jsma.gamma=1"),
    "cw": ("cw.steps=200",),
    "deepfool": ("deepfool.steps=200",),
}

BASELINE_PARTS = (
    *(_oblivious(attack, _DETERMINISTIC, settings=settings) for attack, settings in _SETTINGS.items()),
    *(_oblivious(attack, (_GAN,), settings=settings, n=N_SEARCHED) for attack, settings in _SETTINGS.items()),
    Part(
        name="robust-pgd",
        attack="pgd",
        threat_models=("joint",),
        defenses=("none", "at", "trades"),
        eps=(EPS,),
        slow=True,
    ),
    Part(
        name="robust-autoattack",
        attack="autoattack",
        threat_models=("joint",),
        defenses=("at", "trades"),
        eps=(EPS,),
        slow=True,
    ),
    Part(
        name="adaptive-magnet-cw",
        attack="detector-cw",
        threat_models=("joint",),
        defenses=("magnet",),
        norm="l2",
        eps=(MAGNET_L2,),
        slow=True,
        n=200,
    ),
    Part(
        name="adaptive-magnet-pgd",
        attack="detector-pgd",
        threat_models=("joint",),
        defenses=("magnet",),
        eps=(EPS,),
        slow=True,
        n=200,
    ),
    *(
        Part(
            name=f"adaptive-pixel-defend-{norm}",
            attack="pgd",
            threat_models=("joint",),
            defenses=("pixel-defend",),
            settings=("pgd.steps=20", "pgd.rel_stepsize=0.125"),
            norm=norm,
            eps=(eps,),
            slow=True,
            n=N_PURIFIED,
        )
        for norm, eps in _PURIFIED
    ),
    Part(
        name="adaptive-gan",
        attack="pgd",
        threat_models=("joint",),
        defenses=(_GAN,),
        settings=("pgd.steps=40", "pgd.rel_stepsize=0.1"),
        norm="l2",
        eps=(GAN_L2,),
        eot_draws=8,
        slow=True,
        n=N_AVERAGED,
    ),
    Part(
        name="latent-gan",
        attack="latent",
        threat_models=("joint",),
        defenses=(_GAN,),
        settings=(f"latent.kappa={LATENT_KAPPA:g}",),
        slow=True,
        n=N_SEARCHED,
    ),
)
"""Runs of every defence as its authors attacked it, and as those who broke it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """Number that is known before it is measured."""

    defense: str
    label: str
    part: str
    threat_model: str
    eps: float | None
    published: float | None
    """Published number as a fraction; ``None`` where none is at hand."""


_CLAIMS = (
    _Known(
        defense="magnet",
        label="MagNet, C&W on the classifier (authors)",
        part="oblivious-cw",
        threat_model="standalone",
        eps=None,
        published=0.995,
    ),
    _Known(
        defense="magnet",
        label="MagNet, DeepFool on the classifier (authors)",
        part="oblivious-deepfool",
        threat_model="standalone",
        eps=None,
        published=0.994,
    ),
    _Known(
        defense="pixel-defend",
        label="PixelDefend, FGSM 0.3 on the classifier",
        part="oblivious-fgsm",
        threat_model="standalone",
        eps=EPS,
        published=None,
    ),
    _Known(
        defense=_GAN,
        label="Defense-GAN, FGSM 0.3 on the classifier (authors: on the whole, unrolled)",
        part="oblivious-fgsm-gan",
        threat_model="standalone",
        eps=EPS,
        published=0.988,
    ),
)
_BREAKS = (
    _Known(
        defense="magnet",
        label=f"MagNet, detector-aware C&W, L2 up to {MAGNET_L2:g} (Carlini and Wagner 2017)",
        part="adaptive-magnet-cw",
        threat_model="joint",
        eps=MAGNET_L2,
        published=0.01,
    ),
    _Known(
        defense="magnet",
        label="MagNet, detector-aware PGD, Linf 0.3",
        part="adaptive-magnet-pgd",
        threat_model="joint",
        eps=EPS,
        published=None,
    ),
    _Known(
        defense="pixel-defend",
        label="PixelDefend, PGD with BPDA, Linf 0.3 (Athalye et al. 2018: CIFAR10, 0.031)",
        part="adaptive-pixel-defend-linf",
        threat_model="joint",
        eps=EPS,
        published=0.09,
    ),
    _Known(
        defense="pixel-defend",
        label=f"PixelDefend, PGD with BPDA, L2 {PURIFIED_L2:g}",
        part="adaptive-pixel-defend-l2",
        threat_model="joint",
        eps=PURIFIED_L2,
        published=None,
    ),
    _Known(
        defense=_GAN,
        label=f"Defense-GAN, PGD with BPDA, L2 {GAN_L2:g} (Athalye et al. 2018)",
        part="adaptive-gan",
        threat_model="joint",
        eps=GAN_L2,
        published=0.55,
    ),
    _Known(
        defense=_GAN,
        label="Defense-GAN, in latent space, any L2 (Athalye et al. 2018: 0 in theory)",
        part="latent-gan",
        threat_model="joint",
        eps=None,
        published=0.0,
    ),
)
_REFERENCES = tuple(
    _Known(
        defense=defense,
        label=f"{NAMES[defense]}, {called}, Linf 0.3",
        part=part,
        threat_model="joint",
        eps=EPS,
        published=published,
    )
    for part, called, numbers in (
        ("robust-pgd", "PGD-40", {"none": None, "at": None, "trades": 0.9607}),
        ("robust-autoattack", "AutoAttack", {"at": None, "trades": None}),
    )
    for defense, published in numbers.items()
)


def baselines(runs: Mapping[tuple[str, int], RunRecord], paper: PaperDataset) -> Tables:
    """Return the known answers, and Table 4's rows of the baselines, measured."""
    found = Measurements(runs)
    answers = {
        "Attacked without sight of the protection (the authors' claims)": _CLAIMS,
        "Attacked by what is known to break them (the breakers' numbers)": _BREAKS,
        "Robust references (published)": _REFERENCES,
    }
    blocks = (
        *(
            Block(
                title=title,
                unit="percent",
                columns=("ours (published)",),
                rows=tuple(_row(found, known) for known in group),
            )
            for title, group in answers.items()
        ),
        Block(
            title="Table 4 for the baselines: examples made on the bare classifier",
            unit="percent",
            columns=("clean", *WHITE_BOX_SETTINGS),
            rows=tuple(_table4_row(found, defense, paper) for defense in NAMES),
        ),
    )
    return Tables(
        title="Baselines and what breaks them",
        blocks=blocks,
        trends=_answers(found),
        notes=(
            "Budgets are those of MNIST, whatever the images.",
            "PixelDefend's reach is 0.3: on images that are nearly black and white it takes back what stays within it "
            "in Linf, as a thresholding does; what L2 allows goes beyond.",
            "Minimum-norm examples made on the bare classifier go just over its boundary; that a defence answers them "
            "rightly says that they do not transfer, not that it is robust.",
            "A rejected adversarial image counts as withstood, a rejected clean image as an error.",
            "MagNet's detectors, a purifier's answers and a generator's are part of what the adaptive attacks see.",
            "AutoAttack's and PGD's numbers for PGD training and TRADES are of a small network trained for minutes; "
            "the published one is of a larger network trained for 100 epochs.",
        ),
    )


def _measured(found: Measurements, known: _Known) -> Estimate:
    return found.robust(known.part, known.defense, _RULE, known.threat_model, known.eps)


def _row(found: Measurements, known: _Known) -> Row:
    return Row(label=known.label, entries=(Entry(measured=_measured(found, known), paper=known.published),))


def _table4_row(found: Measurements, defense: str, paper: PaperDataset) -> Row:
    suffix = "-gan" if defense == _GAN else ""
    entries = [found.clean(f"oblivious-fgsm{suffix}", defense, _RULE)]
    for setting in WHITE_BOX_SETTINGS:
        attack, _, value = setting.partition(" ")
        part = {"FGSM": "fgsm", "JSMA": "jsma", "C&W": "cw", "DeepFool": "deepfool"}[attack]
        eps = float(value) if value else None
        entries.append(found.robust(f"oblivious-{part}{suffix}", defense, _RULE, "standalone", eps))
    columns = ("clean", *WHITE_BOX_SETTINGS)
    return Row(
        label=NAMES[defense],
        entries=tuple(
            Entry(measured=each, paper=_paper.white_box_accuracy(paper, NAMES[defense], column))
            for each, column in zip(entries, columns, strict=True)
        ),
    )


def _answers(found: Measurements) -> tuple[Trend, ...]:
    """Return the known answers as claims that our numbers confirm or contradict."""
    known = {(each.part, each.defense): _measured(found, each).value for each in (*_CLAIMS, *_BREAKS, *_REFERENCES)}
    undefended = found.robust("oblivious-fgsm", "none", _RULE, "standalone", EPS).value
    oblivious = known["oblivious-fgsm", "pixel-defend"]
    magnet, gan = known["adaptive-magnet-cw", "magnet"], known["adaptive-gan", _GAN]
    purified = {norm: known[f"adaptive-pixel-defend-{norm}", "pixel-defend"] for norm, _ in _PURIFIED}
    return (
        trend(
            "MagNet stands C&W and DeepFool made on its classifier: above 90 %.",
            [
                Comparison("C&W", known["oblivious-cw", "magnet"], 0.9),
                Comparison("DeepFool", known["oblivious-deepfool", "magnet"], 0.9),
            ],
        ),
        trend(
            f"MagNet falls to the detector-aware attack: under 10 % within L2 {MAGNET_L2:g}.",
            [Comparison("10 % over MagNet", 0.1, magnet)],
        ),
        trend(
            "PixelDefend is far above no defence against FGSM 0.3 made on its classifier: by more than 30 points.",
            [Comparison("PixelDefend less 30 points", oblivious - 0.3, undefended)],
        ),
        trend(
            "PixelDefend is near no defence under BPDA: under 10 %.",
            [Comparison(f"10 % over PixelDefend in {norm}", 0.1, value) for norm, value in purified.items()],
        ),
        trend(
            "Defense-GAN stands FGSM 0.3 made on its classifier: above 80 %.",
            [Comparison("Defense-GAN", known["oblivious-fgsm-gan", _GAN], 0.8)],
        ),
        trend(
            f"Defense-GAN is at most at its breaker's 55 % under BPDA at L2 {GAN_L2:g}.",
            [Comparison("55.5 % over Defense-GAN", 0.555, gan)],
        ),
        trend(
            "PGD training and TRADES stand PGD-40 at Linf 0.3: at least 85 %.",
            [Comparison(NAMES[defense], known["robust-pgd", defense], 0.85 - 1e-9) for defense in ("at", "trades")],
        ),
        trend(
            "AutoAttack is below PGD-40 on both.",
            [
                Comparison(NAMES[defense], known["robust-pgd", defense], known["robust-autoattack", defense])
                for defense in ("at", "trades")
            ],
        ),
    )
