"""Study behind a reproduction: its runs, where they are kept, and how the missing ones are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dkd_bench import RunRequest, load_run
from dkd_bench.api import ConfigError, Norm, Progress
from dkd_bench.data import load_dataset
from dkd_bench.errors import EvidenceError, FieldName
from dkd_bench.pipeline import run_whole
from dkd_bench.records import RunRecord
from dkd_bench.records.rundir import RESULTS
from dkd_bench.sweep import in_folder_of_its_own
from dkd_paper.request import DEFENSES, StudyRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Run of a reproduction: one attack with its settings."""

    name: str
    attack: str
    threat_models: tuple[str, ...]
    defenses: tuple[str, ...] = DEFENSES
    settings: tuple[str, ...] = ()
    norm: Norm = "linf"
    eps: tuple[float, ...] = ()
    """Budgets in [0, 1] pixel units, in l0 numbers of values; empty for a minimum-norm attack."""
    eot_draws: int = 16
    n: int | None = None
    """Number of images, at most, of a part whose defence takes seconds for each of them."""
    slow: bool = False
    """Whether it takes hundreds of evaluations of every network for an image, and so runs on fewer images."""


_WHITE_BOX = ("standalone", "aggregated", "joint")
_SETTINGS = {
    "deepfool": "deepfool.steps={iterations}",
    "cw": "cw.steps={iterations}",
    "jsma": "jsma.iterations={iterations} jsma.gamma=1",
}
"""Settings for the paper's number of iterations, by attack; with gamma=1 nothing else ends JSMA's search."""


def _settings(attack: str, iterations: int) -> tuple[str, ...]:
    return tuple(_SETTINGS[attack].format(iterations=iterations).split())


BLACK_BOX_PARTS = (
    *(
        Part(
            name=f"black-box-{attack}-{iterations}",
            attack=attack,
            threat_models=("black-box",),
            settings=_settings(attack, iterations),
        )
        for attack in ("deepfool", "cw", "jsma")
        for iterations in (1, 200)
    ),
    Part(name="black-box-fgsm", attack="fgsm", threat_models=("black-box",), eps=(0.04, 0.08, 0.1)),
)
"""Runs of Tables 2 and 3: examples made on the reference network."""

WHITE_BOX_PARTS = (
    Part(name="white-box-fgsm", attack="fgsm", threat_models=_WHITE_BOX, eps=(0.04, 0.08)),
    *(
        Part(
            name=f"white-box-{attack}-200",
            attack=attack,
            threat_models=_WHITE_BOX,
            settings=_settings(attack, 200),
            slow=True,
        )
        for attack in ("jsma", "cw", "deepfool")
    ),
)
"""Runs of Table 4, and of the joint threat model beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Dataset of a study, as far as its requests and reports need it."""

    name: str
    n_test: int
    channels: int


def ground_of(request: StudyRequest) -> Ground:
    """Return the facts on the study's dataset; raises as ``load_dataset`` does."""
    dataset = load_dataset(request.dataset, root=request.data_root)
    return Ground(name=dataset.name, n_test=len(dataset.test), channels=dataset.image_spec.channels)


def study_runs(
    request: StudyRequest, target: str, parts: tuple[Part, ...], ground: Ground, progress: Progress
) -> Mapping[tuple[str, int], RunRecord]:
    """Return the record of each part under each seed, by the part's name and the seed.

    What was run before is found again; what is missing is made, unless the request says only to read.

    Raises:
        ConfigError: if a run is missing that may not be made; says which command makes it.
        AttackError: if a run fails; what was computed is kept, and the same command goes on from there.
        EvidenceError: if the runs that are there are of unlike data or weights.
    """
    asked = list(_requests(request, parts, ground))
    if request.existing:
        return _consistent({key: finished_run(each, request, target) for key, each in asked})
    task = progress.start(target, len(asked))
    records = {}
    for key, each in asked:
        records[key] = run_whole(each, progress=progress)
        task.advance(note=f"{key[0]}, seed {key[1]}")
    return _consistent(records)


def _consistent(records: Mapping[tuple[str, int], RunRecord]) -> Mapping[tuple[str, int], RunRecord]:
    """Return ``records`` if all are of one dataset, and all of one seed attacked the same weights.

    Raises:
        EvidenceError: if not; names the parts.
    """
    first: dict[tuple[object, ...], tuple[str, str]] = {}
    for (part, seed), record in records.items():
        digests: dict[tuple[object, ...], str] = {("the dataset",): record.manifest.dataset.digest}
        digests |= {(name, "under seed", seed): each.weights_sha256 for name, each in record.manifest.defenses.items()}
        for what, digest in digests.items():
            other_part, other = first.setdefault(what, (part, digest))
            if digest != other:
                raise EvidenceError(
                    f"{' '.join(map(str, what))} is not the same in {other_part} and {part}; "
                    "delete the older run and run again without ",
                    FieldName("existing"),
                )
    return records


def _requests(
    request: StudyRequest, parts: tuple[Part, ...], ground: Ground
) -> Iterator[tuple[tuple[str, int], RunRequest]]:
    for seed in request.seeds:
        for part in parts:
            slow = request.n_slow if part.slow else None
            caps = [cap for cap in (request.n_examples, slow, part.n) if cap is not None]
            asked = RunRequest(
                defenses=part.defenses,
                attacks=(part.attack,),
                norm=part.norm,
                eot_draws=part.eot_draws,
                threat_models=part.threat_models,
                dataset=request.dataset,
                eps=part.eps,
                n_examples=min([ground.n_test, *caps]),
                seed=seed,
                recipe=request.recipe,
                settings=part.settings,
                device=request.device,
                data_root=request.data_root,
            )
            yield (part.name, seed), in_folder_of_its_own(asked, request.folder, f"{part.name}-seed-{seed}")


def finished_run(asked: RunRequest, request: StudyRequest, target: str) -> RunRecord:
    """Return the record of a run that is there, whole.

    Raises:
        ConfigError: if it is not; says which command makes it.
    """
    assert asked.out is not None, "every run of a study has its folder"
    record = load_run(asked.out) if (asked.out / RESULTS).is_file() else None
    if record is None or record.manifest.request != asked.as_json() or not record.complete:
        raise ConfigError(f"no finished run of {target} in {asked.out}; make it with '{request.command(target)}'")
    return record
