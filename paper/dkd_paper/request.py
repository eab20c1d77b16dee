"""Request of a reproduction, in words; every default of one stands here, and nothing slow is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dkd_bench.errors import ConfigError, FieldName
from dkd_bench.steps.request import DeviceName, RunRequest
from dkd_bench.steps.words import in_words

DEFENSES = ("none", "dkd", "kd", "ri")
"""Defences of the paper, and none beside them."""
N_SLOW = 1000
"""Number of images of the slow runs, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRequest:
    """Request of a reproduction: the dataset, the seeds, and where the runs are kept.

    Raises:
        ConfigError: if a number is out of range, or a seed is given twice.
    """

    dataset: str = field(
        default="mnist", metadata=in_words("mnist, cifar10, digits, or any other; as for 'run'.", metavar="NAME")
    )
    seeds: tuple[int, ...] = field(
        default=(0,), metadata=in_words("Of training, images and attacks; repeats.", option="seed", metavar="S")
    )
    n_examples: int | None = field(
        default=None, metadata=in_words("Caps the images of every run; else the whole test set.", metavar="N")
    )
    """Number of images of every run, at most; ``None`` for the whole test set."""
    n_slow: int = field(
        default=N_SLOW,
        metadata=in_words("Caps the images of table4's minimum-norm attacks and of figure5.", metavar="N"),
    )
    """Number of images of the slow runs, at most."""
    recipe: str = field(default="fast", metadata=in_words("How networks are trained.", choices=("fast", "paper")))
    device: DeviceName = field(default="auto", metadata=in_words("Where to compute."))
    data_root: Path | None = field(
        default=None, metadata=in_words("Where the datasets are; else DKD_BENCH_DATA, else downloaded.", metavar="DIR")
    )
    out: Path | None = field(
        default=None, metadata=in_words("Runs and reports; else runs/reproduce-<dataset>.", metavar="DIR")
    )
    existing: bool = field(
        default=False, metadata=in_words("Only read runs that are there; say which command makes the others.")
    )
    """Whether only runs that are there are read, and none is made."""

    def __post_init__(self) -> None:
        for seed in self.seeds:
            RunRequest(defenses=DEFENSES, seed=seed, device=self.device)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"each seed is given once, and at least one; got {', '.join(map(str, self.seeds))}")
        for name, cap in (("n_examples", self.n_examples), ("n_slow", self.n_slow)):
            if cap is not None and cap < 1:
                raise ConfigError(FieldName(name), f" must be at least 1, got {cap}")

    @property
    def folder(self) -> Path:
        """Folder where runs and reports are kept."""
        return self.out or Path("runs") / f"reproduce-{self.dataset}".replace(":", "-").replace("/", "-")

    def command(self, target: str) -> str:
        """Return the command that makes ``target`` and all its runs."""
        words = ["dkd-bench", "reproduce", target, "--dataset", self.dataset]
        words += [word for seed in self.seeds for word in ("--seed", str(seed))]
        words += ["--recipe", self.recipe] if self.recipe != "fast" else []
        words += ["--n-examples", str(self.n_examples)] if self.n_examples is not None else []
        words += ["--n-slow", str(self.n_slow)] if self.n_slow != N_SLOW else []
        words += ["--out", str(self.out)] if self.out is not None else []
        return " ".join(words)
