"""RobustBench's zoo: with a small package in its place, and with the real one where that is installed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dkd_baselines.zoo import ZooSettings, zoo_lists, zoo_model
from dkd_bench.api import ConfigError, Defense, ImageSpec, PluginError, digest_module
from dkd_bench.errors import UnknownNameError

CIFAR10 = ImageSpec(channels=3, height=32, width=32, n_classes=10)
CIFAR100 = ImageSpec(channels=3, height=32, width=32, n_classes=100)
DIGITS = ImageSpec(channels=1, height=8, width=8, n_classes=10)


class Small(nn.Module):
    """Answers CIFAR images, after a preprocessing that its files may leave out."""

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__()
        self.linear = nn.Linear(3072, n_classes)
        self.register_buffer("mu", torch.full((1, 3, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear((x - self.mu).flatten(1))


class Three(nn.Module):
    """Answers with the mean of three."""

    def __init__(self) -> None:
        super().__init__()
        self.models = nn.ModuleList(Small() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([model(x) for model in self.models]).mean(dim=0)


class BenchmarkDataset(Enum):
    cifar_10 = "cifar10"
    cifar_100 = "cifar100"
    imagenet = "imagenet"


class ThreatModel(Enum):
    Linf = "Linf"
    L2 = "L2"
    corruptions = "corruptions"


def noisy() -> Small:
    sys.stdout.write("The classifier has 30730 parameters.")
    warnings.warn("soon to be gone", FutureWarning, stacklevel=1)
    return Small()


MODELS = {
    BenchmarkDataset.cifar_10: {
        ThreatModel.Linf: {
            "Carmon2019Unlabeled": {"model": noisy, "gdrive_id": "id-of-carmon"},
            "Both2020": {"model": Small, "gdrive_id": "id-linf"},
            "Three2020": {"model": Three, "gdrive_id": ["id-0", "id-1", "id-2"]},
            "Mixed2024": {"model": Small, "gdrive_id": ["id-0", "id-1"]},
            "Timm2022": {"model": Small, "gdrive_id": None},
        },
        ThreatModel.L2: {
            "Both2020": {"model": Small, "gdrive_id": "id-l2"},
            "Rony2019": {"model": Small, "gdrive_id": "id-rony"},
        },
    },
    BenchmarkDataset.cifar_100: {
        ThreatModel.Linf: {"Both2020": {"model": lambda: Small(100), "gdrive_id": "id-100"}},
    },
    BenchmarkDataset.imagenet: {ThreatModel.Linf: {"Salman2020Do_R18": {"model": Small, "gdrive_id": "id-imagenet"}}},
}

Fetch = Callable[[str, Path], None]


@pytest.fixture
def robustbench(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fetch], None]:
    """Put a small robustbench in the real one's place; returns a function that sets how it downloads."""

    def refuse(file_id: str, path: Path) -> None:
        raise AssertionError(f"downloads {file_id} to {path}")

    modules = {name: ModuleType(name) for name in ("robustbench", "robustbench.model_zoo", "robustbench.utils")}
    modules["robustbench.model_zoo"].model_dicts = MODELS  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    def downloads_by(fetch: Fetch) -> None:
        modules["robustbench.utils"].download_gdrive_new = fetch  # type: ignore[attr-defined]

    downloads_by(refuse)
    return downloads_by


def made(name: str, root: Path | None, images: ImageSpec = CIFAR10, **settings: str) -> Defense:
    return zoo_model(name)(images, ZooSettings(zoo_root=str(root or ""), **settings))


def keep(root: Path, where: str, state: Any = None) -> Path:
    """Save a state dict, by default a small network's, in the zoo's layout."""
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(Small().state_dict() if state is None else state, path)
    return path


def holds(defense: Defense, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(defense.members[0].state_dict()[name], tensor) for name, tensor in state.items())


@pytest.mark.usefixtures("robustbench")
class TestNames:
    def test_unknown(self) -> None:
        message = (
            r"^no model in RobustBench's zoo named 'Carmon2019Unlabelled'\. Did you mean 'Carmon2019Unlabeled'\? "
            r"Of those there: Carmon2019Unlabeled, Rony2019$"
        )
        with pytest.raises(UnknownNameError, match=message):
            zoo_model("Carmon2019Unlabelled")
        with pytest.raises(UnknownNameError, match=r"named 'x'\. Of those there: Both2020, Carmon2019Unlabeled, Mixed"):
            zoo_model("x")

    def test_none(self) -> None:
        with pytest.raises(ConfigError, match=r"^expected robustbench:NAME, .* such as Carmon2019Unlabeled; got no n"):
            zoo_model("")

    def test_meta(self) -> None:
        assert zoo_model("Salman2020Do_R18").meta.name == "robustbench-Salman2020Do_R18"
        assert zoo_model("Salman2020Do_R18").meta.title == "RobustBench Salman2020Do_R18"

    def test_another_dataset(self, tmp_path: Path) -> None:
        message = (
            r"^robustbench:Both2020 is for cifar10 and cifar100; the dataset has images of 1 x 8 x 8 in 10 classes; "
            r"choose another --dataset or model$"
        )
        with pytest.raises(ConfigError, match=message):
            made("Both2020", tmp_path, DIGITS)
        with pytest.raises(
            ConfigError, match=r"^robustbench:Salman2020Do_R18 is for imagenet; the dataset has images of 3"
        ):
            made("Salman2020Do_R18", tmp_path, CIFAR10)

    def test_another_threat_model(self, tmp_path: Path) -> None:
        message = "^robustbench has no cifar10 model Rony2019 for threat_model=Linf; it has one for L2$"
        with pytest.raises(ConfigError, match=message):
            made("Rony2019", tmp_path, threat_model="Linf")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"threat_model": "linf"}, "^threat_model must be auto, Linf, L2, corruptions, got 'linf'$"),
            ({"zoo_root": "no/where"}, "^no folder 'no/where'; --zoo-root takes the one with DATASET/THREAT/NAME.pt$"),
        ],
    )
    def test_settings(self, settings: dict[str, str], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            ZooSettings(**settings)


@pytest.mark.usefixtures("robustbench")
class TestWeights:
    def test_come_from_the_list_that_is_meant(self, tmp_path: Path) -> None:
        states = {}
        for where, n_classes in (("cifar10/Linf", 10), ("cifar10/L2", 10), ("cifar100/Linf", 100)):
            states[where] = Small(n_classes).state_dict()
            keep(tmp_path, f"{where}/Both2020.pt", states[where])
        assert holds(made("Both2020", tmp_path), states["cifar10/Linf"])
        assert holds(made("Both2020", tmp_path, threat_model="L2"), states["cifar10/L2"])
        assert holds(made("Both2020", tmp_path, CIFAR100), states["cifar100/Linf"])
        keep(tmp_path, "cifar10/L2/Rony2019.pt", states["cifar10/L2"])
        assert holds(made("Rony2019", tmp_path), states["cifar10/L2"])

    @pytest.mark.parametrize(
        "wrapped",
        [
            lambda state: {"state_dict": state, "epoch": 3},
            lambda state: {"last": state, "best": Small().state_dict()},
            lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
            lambda state: {"state_dict": {f"module.model.{name}": tensor for name, tensor in state.items()}},
            lambda state: {name: tensor for name, tensor in state.items() if name != "mu"},
            lambda state: state | {"linear.scores": torch.ones(1), "normalize.std": torch.ones(1)},
        ],
    )
    def test_as_the_zoo_keeps_them(self, tmp_path: Path, wrapped: Callable[[Any], Any]) -> None:
        state = Small().state_dict()
        keep(tmp_path, "cifar10/Linf/Both2020.pt", wrapped(state))
        assert holds(made("Both2020", tmp_path), state)

    def test_no_parameter_is_overlooked(self, tmp_path: Path) -> None:
        state = Small().state_dict()
        path = keep(tmp_path, "cifar10/Linf/Both2020.pt", {"linear.weight": state["linear.weight"]})
        with pytest.raises(
            PluginError, match=f"^the weights in {path} are of another network: it lacks 'linear.bias';"
        ):
            made("Both2020", tmp_path)
        keep(tmp_path, "cifar10/Linf/Both2020.pt", state | {"head.weight": state["linear.bias"]})
        with pytest.raises(PluginError, match=r"are of another network: it has 'head.weight';"):
            made("Both2020", tmp_path)

    def test_one_file_for_each_of_several(self, tmp_path: Path) -> None:
        states = [Small().state_dict() for _ in range(3)]
        for number, state in enumerate(states):
            keep(tmp_path, f"cifar10/Linf/Three2020.pt_m{number}.pt", state)
        whole = made("Three2020", tmp_path).members[0].state_dict()
        for number, state in enumerate(states):
            assert torch.equal(whole[f"models.{number}.linear.weight"], state["linear.weight"])

    def test_put_together_otherwise(self, tmp_path: Path) -> None:
        message = (
            r"^robustbench:Mixed2024 is put together from 2 files in a way of its own, which is not supported; write"
        )
        with pytest.raises(PluginError, match=message):
            made("Mixed2024", tmp_path)

    def test_not_in_the_zoo(self, tmp_path: Path) -> None:
        with pytest.raises(
            PluginError, match=r"^the zoo has no weights of robustbench:Timm2022, which another package"
        ):
            made("Timm2022", tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"<!doctype html>", "is an HTML page, not weights"),
            (b"\x80\x04\x95", "is (a pickle|damaged)"),
            (b"", "is an empty file, not weights"),
        ],
    )
    def test_something_else(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = keep(tmp_path, "cifar10/Linf/Both2020.pt")
        path.write_bytes(content)
        with pytest.raises(PluginError, match=f"^{path} {message}"):
            made("Both2020", tmp_path)

    def test_code_is_not_run(self, tmp_path: Path) -> None:
        keep(tmp_path, "cifar10/Linf/Both2020.pt", Small())
        with pytest.raises(
            PluginError, match=r"Both2020\.pt holds \S+\.Small, which takes running code to load, so it"
        ):
            made("Both2020", tmp_path)

    def test_the_same_weights_have_the_same_digests(self, tmp_path: Path) -> None:
        state = Small().state_dict()
        for root in ("a", "b"):
            keep(tmp_path, f"{root}/cifar10/Linf/Both2020.pt", state)
        keep(tmp_path, "c/cifar10/Linf/Both2020.pt")
        digests = [digest_module(made("Both2020", tmp_path / root)) for root in ("a", "b", "c")]
        assert digests[0] == digests[1] != digests[2]


class TestDownload:
    def test_into_the_layout_and_only_once(
        self, robustbench: Callable[[Fetch], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked: list[str] = []

        def fetch(file_id: str, path: Path) -> None:
            sys.stdout.write("Downloading")
            asked.append(file_id)
            torch.save(Small().state_dict(), path)

        robustbench(fetch)
        first, second = made("Carmon2019Unlabeled", tmp_path), made("Carmon2019Unlabeled", tmp_path)
        assert asked == ["id-of-carmon"]
        assert digest_module(first) == digest_module(second)
        assert [file.name for file in (tmp_path / "cifar10" / "Linf").iterdir()] == ["Carmon2019Unlabeled.pt"]
        assert capsys.readouterr().out == ""

    def test_into_the_cache_folder(
        self, robustbench: Callable[[Fetch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DKD_BENCH_CACHE", str(tmp_path))
        robustbench(lambda _, path: torch.save(Small().state_dict(), path))
        made("Both2020", None)
        assert (tmp_path / "robustbench" / "cifar10" / "Linf" / "Both2020.pt").is_file()

    def offline(self, _file_id: str, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise ConnectionError("no route to host\nand more")

    def page(self, _file_id: str, path: Path) -> None:
        path.write_text("<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title>", encoding="utf-8")

    def nothing(self, _file_id: str, _path: Path) -> None:
        pass

    @pytest.mark.parametrize(
        ("how", "cause"),
        [
            ("offline", "no route to host"),
            ("page", "what came is an HTML page"),
            ("nothing", "cannot read weights from"),
        ],
    )
    def test_that_fails_leaves_nothing(
        self, robustbench: Callable[[Fetch], None], tmp_path: Path, how: str, cause: str
    ) -> None:
        robustbench(getattr(self, how))
        path = tmp_path / "cifar10" / "Linf" / "Both2020.pt"
        message = (
            rf"^the weights of robustbench:Both2020 cannot be downloaded: {cause}.*; "
            rf"fetch Google Drive's file id-linf in a browser, and put it at {path}$"
        )
        with pytest.raises(PluginError, match=message):
            made("Both2020", tmp_path)
        assert list(path.parent.iterdir()) == []


class TestThePackage:
    def test_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("robustbench", "robustbench.model_zoo"):
            monkeypatch.setitem(sys.modules, name, None)
        message = r"^robustbench:NAME needs the package robustbench .*; pip install 'dkd-bench\[zoo\]'$"
        with pytest.raises(ConfigError, match=message):
            zoo_model("Carmon2019Unlabeled")

    def test_finds_autoattack_under_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It imports ``autoattack``, which is not on PyPI; whoever looks for that later must not find an alias."""
        package = tmp_path / "robustbench"
        package.mkdir()
        (package / "__init__.py").write_text(
            "from autoattack import AutoAttack\nfrom autoattack.state import EvaluationState\n", encoding="utf-8"
        )
        (package / "model_zoo.py").write_text("model_dicts = {}\n", encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        for name in [name for name in sys.modules if name.partition(".")[0] in {"robustbench", "autoattack"}]:
            monkeypatch.delitem(sys.modules, name)
        assert zoo_lists() == {}
        assert not {"autoattack", "autoattack.state"} & set(sys.modules)
        for name in ("robustbench", "robustbench.model_zoo"):
            del sys.modules[name]

    def test_itself_loads_the_same_network(self, tmp_path: Path) -> None:
        """With the real package, whose own loader is the measure."""
        try:
            lists = zoo_lists()
        except ConfigError as error:
            pytest.skip(str(error))
        from robustbench.utils import load_model

        state = lists["cifar10"]["Linf"]["Wong2020Fast"]["model"]().state_dict()
        kept = {f"module.{name}": tensor for name, tensor in state.items() if name not in {"mu", "sigma"}}
        keep(tmp_path, "cifar10/Linf/Wong2020Fast.pt", {"state_dict": kept})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = load_model("Wong2020Fast", model_dir=tmp_path, dataset="cifar10", threat_model="Linf")
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(made("Wong2020Fast", tmp_path).members[0](images), theirs(images))
