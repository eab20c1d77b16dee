"""What a defence declares decides which attacks it meets, and what it hides decides whether its row ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from dkd_bench.leaderboard import rank_runs
from dkd_bench.progress import SilentProgress
from dkd_bench.records import CellRecord, RunRecord
from dkd_bench.records.flags import NOT_ADAPTIVE, ZERO_GRADIENTS
from dkd_bench.verify import audit

PLUGINS = """
    import torch
    from torch import nn
    from dkd_bench.api import ABSTAIN, BPDA, Defense, DefenseMeta, Detecting, build_network, train_network


    class Rounded(nn.Module):
        def forward(self, x):
            return (x * 3).round() / 3


    class Rounding(Defense):
        meta = DefenseMeta(name="rounding", title="Rounding", non_differentiable=True)

        def __init__(self, images, settings=None):
            super().__init__(images, settings)
            self.network = build_network("auto", images)
            self.step = Rounded()

        @property
        def members(self):
            return [self.network]

        def fit(self, data, *, recipe, generator, progress):
            train_network(self.network, data, recipe=recipe, generator=generator, progress=progress)

        def predict(self, x, *, generator):
            return self.network(self.step(x)).argmax(dim=1)


    class Adapted(Rounding):
        meta = DefenseMeta(name="adapted", title="Adapted", non_differentiable=True)

        def surrogates(self):
            return {"bpda-identity": BPDA(self.step, self.network)}


    class Silent(Rounding):
        meta = DefenseMeta(name="silent", title="Silent")

        def surrogates(self):
            return {"whole": nn.Sequential(self.step, self.network)}


    class Guarded(Rounding):
        meta = DefenseMeta(name="guarded", title="Guarded", abstains=True)

        def predict(self, x, *, generator):
            labels = self.network(x).argmax(dim=1)
            return torch.where(self.rejections(x)["roughness"] > 0, ABSTAIN, labels)

        def rejections(self, x):
            return {"roughness": roughness(x)}

        def surrogates(self):
            return {"guarded": Guard(self.network)}


    class Guard(Detecting):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x)

        def rejections(self, x):
            return roughness(x).unsqueeze(1)


    def roughness(x):
        return 100 * ((x[..., :2, :1] - 0.02).clamp_min(0)).mean(dim=(1, 2, 3))
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    path = tmp_path / "plugins.py"
    path.write_text(dedent(PLUGINS))
    return path


def flags_of(record: RunRecord, defense: str) -> list[str]:
    return [flag.name for flag in record.manifest.defenses[defense].flags]


def joint(record: RunRecord, attack: str) -> CellRecord:
    (cell,) = [each for each in record.cells if (each.threat_model, each.attack) == ("joint", attack)]
    return cell


@pytest.mark.usefixtures("cache")
class TestWhatIsDeclared:
    def test_a_defence_that_rejects_meets_attacks_that_look_at_its_detectors(
        self, bench: Callable[..., RunRecord], plugins: Path, tmp_path: Path
    ) -> None:
        words = {"defenses": (f"{plugins}:Guarded",), "attacks": ("pgd", "detector-pgd"), "threat_models": ("joint",)}
        record = bench(settings=("detector-pgd.steps=20",), **words)
        naive, aware = joint(record, "pgd"), joint(record, "detector-pgd")
        assert naive.abstained is not None
        assert aware.abstained is not None
        assert naive.abstained > aware.abstained
        assert aware.robust_accuracy is not None
        assert naive.robust_accuracy is not None
        assert aware.robust_accuracy < naive.robust_accuracy
        (seen,) = naive.detectors
        assert (seen.detector, seen.candidate) == ("roughness", "guarded")
        assert seen.auc > 0.7
        assert flags_of(record, "guarded") == []
        assert "deployed" in record.manifest.defenses["guarded"].clean_rejected
        found = audit(tmp_path / "run", device="cpu", data_root=None, progress=SilentProgress())
        assert found.findings == ()

    def test_a_run_that_ignores_the_detectors_does_not_rank(
        self, bench: Callable[..., RunRecord], plugins: Path
    ) -> None:
        record = bench(defenses=(f"{plugins}:Guarded", "none"), attacks=("fgsm",), threat_models=("joint",))
        assert flags_of(record, "guarded") == [NOT_ADAPTIVE]
        rows = rank_runs([("run", record)]).groups[0].rows
        assert [(row.defense, row.rank) for row in rows] == [("none", 1), ("guarded", None)]

    def test_answers_alone_are_attacked_by_decisions(self, bench: Callable[..., RunRecord], plugins: Path) -> None:
        record = bench(
            defenses=(f"{plugins}:Rounding",),
            attacks=("fgsm", "hop-skip-jump"),
            threat_models=("joint",),
            n_examples=10,
            settings=("hop-skip-jump.steps=3",),
        )
        assert [flag.name for flag in joint(record, "fgsm").flags] == [NOT_ADAPTIVE]
        (found,) = [each for each in record.cells if each.attack == "hop-skip-jump" and each.eps is None]
        assert found.status == "ok"
        assert found.robust_accuracy == 0.0
        assert rank_runs([("run", record)]).groups[0].rows[0].rank is None

    def test_a_step_without_gradient_is_differentiated_as_the_identity(
        self, bench: Callable[..., RunRecord], plugins: Path
    ) -> None:
        record = bench(defenses=(f"{plugins}:Adapted",), attacks=("pgd", "square"), settings=("square.queries=20",))
        assert joint(record, "pgd").status == joint(record, "square").status == "ok"
        assert not [each for each in record.cells if each.attack == "square" and each.threat_model != "joint"]
        adaptive = joint(record, "pgd").robust_accuracy
        clean = joint(record, "pgd").clean_accuracy
        assert adaptive is not None
        assert clean is not None
        assert adaptive < clean - 0.3

    def test_what_hides_its_gradients_without_saying_so_is_flagged(
        self, bench: Callable[..., RunRecord], plugins: Path
    ) -> None:
        record = bench(defenses=(f"{plugins}:Silent", "none"), attacks=("fgsm",), threat_models=("joint",))
        assert ZERO_GRADIENTS in flags_of(record, "silent")
        assert flags_of(record, "none") == []
        rows = rank_runs([("run", record)]).groups[0].rows
        assert [(row.defense, row.rank) for row in rows] == [("none", 1), ("silent", None)]
