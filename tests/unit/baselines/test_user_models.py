"""Networks of one's own: what is taken in, in which form, and the sentence for what is not."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dkd_baselines.user_models import UserModel, UserSettings, torch_model
from dkd_bench.api import ConfigError, Defense, ImageSpec, PluginError, Target, digest_module
from dkd_bench.errors import UnknownNameError
from dkd_bench.plugins import registry
from dkd_bench.plugins.settings import settings_as_json
from dkd_bench.steps.weights import ready_for_inference
from dkd_bench.store.code import code_digest
from dkd_bench.testing import DefenseContract, checks_of

DIGITS = ImageSpec(channels=1, height=8, width=8, n_classes=10)
COLOUR = ImageSpec(channels=3, height=4, width=4, n_classes=2)

MODULE = """
import torch
from torch import nn
from sklearn.datasets import load_digits

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def colour():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))

def nearest_mean():
    digits = load_digits()
    images, labels = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
    means = torch.stack([images[labels == label].mean(0) for label in range(10)])
    network = linear()
    network[1].weight.data, network[1].bias.data = 8 * means, -4 * (means**2).sum(1)
    return network

def needs_size(size):
    return linear()

def no_network():
    return "weights.pt"

class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 10)

    def forward(self, x):
        x = self.convolution(x)
        return self.linear(x.view(len(x), -1))

class InPlace(nn.Module):
    def forward(self, x):
        x -= 0.5
        return x.flatten(1)[:, :10]

class Pair(nn.Module):
    def forward(self, x):
        return x, x

class Flat(nn.Module):
    def forward(self, x):
        return x.flatten()

made = linear()
VERSION = 3
"""

Make = Callable[..., Defense]


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the current folder, with a module ``nets`` in it; afterwards both are forgotten."""
    (tmp_path / "nets.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def make(importable: Path) -> Make:
    """Return a function that builds the defence of a factory in ``nets``."""

    def build(factory: str, images: ImageSpec = DIGITS, **settings: str) -> Defense:
        return torch_model(f"nets:{factory}")(images, UserSettings(**settings))

    return build


def linear() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def saved(value: Any, path: Path) -> str:
    torch.save(value, path)
    return str(path)


# The reference.


@pytest.mark.parametrize("argument", ["", "nets", "nets:", ":linear", "nets:linear.x", "a b:f", "nets.py:", "x/y:f"])
def test_a_reference_is_module_and_function(argument: str) -> None:
    told = f"torch:{argument}" if argument else "torch alone"
    message = rf"^expected torch:package\.module:factory, a function .* that returns a torch\.nn\.Module; got {told}$"
    with pytest.raises(ConfigError, match=message):
        torch_model(argument)


def test_no_such_module(importable: Path) -> None:
    with pytest.raises(ConfigError, match=r"^no module 'netz', neither installed nor in .*; expected torch:package"):
        torch_model("netz:linear")
    with pytest.raises(ConfigError, match=r"^no module 'nets\.inner', neither installed nor in"):
        torch_model("nets.inner:linear")


def test_no_such_function(importable: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"^no function in nets named 'liner'\. Did you mean 'linear'\? Defined"):
        torch_model("nets:liner")
    with pytest.raises(UnknownNameError, match=r"^no function in nets named 'VERSION'\."):
        torch_model("nets:VERSION")
    with pytest.raises(ConfigError, match=r"^nets:made is a network already; expected torch:package"):
        torch_model("nets:made")


def test_the_current_folder_is_importable(importable: Path) -> None:
    assert str(importable) not in sys.path
    torch_model("nets:linear")
    torch_model("nets:colour")
    assert sys.path.count(str(importable)) == 1
    assert sys.path[0] == str(importable)


def test_a_module_that_breaks_is_the_plugin_s_fault(importable: Path) -> None:
    (importable / "broken.py").write_text("import no_such_module_anywhere", encoding="utf-8")
    message = r"^defence 'torch:broken:f' cannot be loaded: ModuleNotFoundError: No module named 'no_such_module_anywh"
    with pytest.raises(PluginError, match=message):
        registry.load("defenses", "torch:broken:f")


def test_names_are_one_word_and_apart(importable: Path) -> None:
    (importable / "pack").mkdir()
    (importable / "pack" / "nets.py").write_text(MODULE, encoding="utf-8")
    arguments = ["nets:linear", "nets:colour", "pack.nets:linear"]
    names = [torch_model(argument).meta.name for argument in arguments]
    assert names == ["torch-nets-linear", "torch-nets-colour", "torch-pack-nets-linear"]


def test_the_code_digest_finds_its_source(importable: Path) -> None:
    assert code_digest(torch_model("nets:linear")) == code_digest(torch_model("nets:colour"))
    assert code_digest(torch_model("nets:linear")) != code_digest(UserModel)


# The network.


def test_what_a_factory_must_return(make: Make) -> None:
    with pytest.raises(
        PluginError, match=r"^the factory of 'torch-nets-no_network' must return a .*, got 'weights\.pt'"
    ):
        make("no_network")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'size'"):
        make("needs_size")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "colour",
            r"fails on the dataset's images, 1 x 8 x 8 \(channels x height x width\): RuntimeError: .*mat1 and mat2"
            r" .*; choose the --dataset that it was made for$",
        ),
        ("Pair", r"must return logits as a tensor, got tuple$"),
        ("Flat", r"must return logits of shape \(2, 10\) for 2 images of 1 x 8 x 8, got \(128,\)$"),
        ("InPlace", r"changes the images that it is given; write x = x - mean, not x -=$"),
    ],
)
def test_a_network_that_does_not_fit(make: Make, factory: str, message: str) -> None:
    with pytest.raises(PluginError, match=rf"^the network of 'torch-nets-{factory}' {message}"):
        make(factory)


def test_the_wrong_number_of_logits(make: Make) -> None:
    twelve = ImageSpec(channels=1, height=8, width=8, n_classes=12)
    with pytest.raises(PluginError, match=r"must return 12 logits for each image, one for each class .*, got 10$"):
        make("linear", twelve)


@pytest.mark.parametrize("factory", ["linear", "Viewing"])
def test_it_answers_alike_in_the_state_in_which_it_is_attacked(make: Make, factory: str) -> None:
    """Defences are put into channels-last order, in which ``view`` fails on what a convolution returns."""
    defense = make(factory)
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    (member,) = defense.members
    before = member(images)
    ready_for_inference(defense)
    torch.testing.assert_close(member(images), before)
    assert not any(parameter.requires_grad for parameter in defense.parameters())


@pytest.mark.parametrize("check", checks_of(DefenseContract))
def test_it_keeps_the_contract(importable: Path, check: str) -> None:
    members = {"defense": torch_model("nets:nearest_mean"), "settings": UserSettings(mean="0.1", std="0.5")}
    getattr(type("TestModel", (DefenseContract,), members)(), check)()


# Preprocessing.


def test_attacks_see_raw_pixels(make: Make, tmp_path: Path) -> None:
    bare = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    weights = saved(bare.state_dict(), tmp_path / "w.pt")
    defense = make("colour", COLOUR, mean="0.1,0.2,0.3", std="0.5,0.25,0.1", weights=weights)
    ready_for_inference(defense)
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.5, 0.25, 0.1]).view(3, 1, 1)
    logits = Target(defense.members[0], name="it", n_classes=2)(images)
    torch.testing.assert_close(logits, bare((images - mean) / std))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), images)
    expected = (bare[1].weight[0].detach().view(3, 4, 4) / std).expand(2, 3, 4, 4)
    torch.testing.assert_close(gradient, expected)


def test_one_value_is_for_every_channel_and_either_may_be_left_out(make: Make) -> None:
    shown = torch.full((1, 3, 4, 4), 0.75)
    for settings, expected in (({"mean": "0.5"}, 0.25), ({"std": "0.5"}, 1.5), ({}, 0.75)):
        seen: list[Tensor] = []
        (member,) = make("colour", COLOUR, **settings).members
        member.get_submodule("network").register_forward_pre_hook(lambda _module, given, seen=seen: seen.extend(given))
        member(shown)
        assert seen[0].unique().tolist() == [expected]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": "0.5,a"}, r"^mean must be numbers separated by commas, such as 0\.485,0\.456,0\.406, got '0\.5,a'$"),
        ({"mean": "nan"}, "^mean must be numbers"),
        ({"std": "0.5,,1"}, "^std must be numbers"),
        ({"std": "0.5,0"}, "^std must be positive for every channel, got '0.5,0'$"),
        ({"weights": "no/where.pt"}, r"^no file 'no/where\.pt'; --weights takes a state dict, \.pt or \.safetensors$"),
    ],
)
def test_settings_are_checked_before_anything_is_built(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UserSettings(**settings)


def test_a_value_for_each_channel(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"^mean must have 1 or 3 values, the images' channels, got 2$"):
        make("colour", COLOUR, mean="0.1,0.2")


# The weights.


def test_weights_are_found_in_what_people_save(make: Make, tmp_path: Path) -> None:
    state = linear().state_dict()
    state_file = saved(state, tmp_path / "state.pt")
    save_file(state, tmp_path / "state.safetensors")
    files = {
        "safetensors": str(tmp_path / "state.safetensors"),
        "checkpoint": saved({"net": state, "epoch": 3, "optimizer": {"param_groups": [{}]}}, tmp_path / "net.pt"),
        "preferred": saved({"state_dict": state, "ema": linear().state_dict()}, tmp_path / "ema.pth"),
        "parallel": saved({f"module.{name}": each for name, each in state.items()}, tmp_path / "parallel.pt"),
        "lightning": saved({"state_dict": {f"model.{name}": each for name, each in state.items()}}, tmp_path / "pl.pt"),
    }
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    files["old"] = str(tmp_path / "old.pt")
    expected = make("linear", weights=state_file).state_dict()
    for how, weights in files.items():
        loaded = make("linear", weights=weights).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items()), how


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def _truncated(path: Path) -> None:
    torch.save(linear().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])


def _truncated_safetensors(path: Path) -> None:
    save_file(linear().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-20])


def _script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(linear()), str(path))


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("page.pt", lambda p: p.write_text("\n<!DOCTYPE html><html>Sign in"), "is an HTML page, not weights; fetch it"),
        ("page.safetensors", lambda p: p.write_text("<html>"), "is an HTML page, not weights; fetch it again"),
        ("none.pt", lambda p: p.touch(), "is an empty file, not weights; fetch it again"),
        (
            "lfs.pt",
            lambda p: p.write_text("version https://git-lfs.github.com/spec/v1"),
            "is a pointer of Git LFS, not",
        ),
        ("cut.pt", _truncated, r"is damaged or truncated \(.*\); expected a state dict as torch\.save writes it$"),
        ("cut.safetensors", _truncated_safetensors, "is not a whole safetensors file: .*; fetch it again$"),
        ("text.pt", lambda p: p.write_text("hello world"), r"is neither of torch\.save nor of safetensors, not we"),
        ("bytes.pt", lambda p: p.write_bytes(b"\x00\x01" * 99), "is neither of torch.save nor of safetensors, not w"),
        ("code.pt", lambda p: torch.save({"a": Evil(p.with_name("ran"))}, p), "holds .*, which takes running code to"),
        ("pickle.pt", lambda p: p.write_bytes(pickle.dumps(Evil(p.with_name("ran")))), "is a pickle, which takes runn"),
        ("module.pt", lambda p: torch.save(linear(), p), r"holds torch\.nn\.\S+, which takes running code to load, so"),
        ("script.pt", _script, "is a TorchScript archive; expected a state dict"),
        ("list.pt", lambda p: torch.save([1], p), "holds an object of type list; expected a state dict$"),
        (
            "two.pt",
            lambda p: torch.save({"a": linear().state_dict(), "b": linear().state_dict()}, p),
            "holds 'a', 'b'; e",
        ),
        ("numbers.pt", lambda p: torch.save({"epoch": 3, "lr": 0.1}, p), "holds 'epoch', 'lr'; expected a state dict"),
    ],
)
def test_what_is_no_state_dict(
    make: Make, tmp_path: Path, name: str, write: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(PluginError, match=rf"^{path} ({message})") as caught:
        make("linear", weights=str(path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_network(make: Make, tmp_path: Path) -> None:
    state = linear().state_dict()
    fewer = saved({"1.weight": state["1.weight"], "head": state["1.bias"]}, tmp_path / "fewer.pt")
    message = r"fewer\.pt are of another network: it lacks '1\.bias', and it has 'head'; expected the names in the net"
    with pytest.raises(PluginError, match=message):
        make("linear", weights=fewer)
    extra = saved(state | {f"layer{number}": state["1.bias"] for number in range(5)}, tmp_path / "extra.pt")
    with pytest.raises(PluginError, match=r"network: it has 'layer0', 'layer1', 'layer2' and 2 more; expected"):
        make("linear", weights=extra)
    other = saved(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).state_dict(), tmp_path / "other.pt")
    with pytest.raises(PluginError, match=r"of another network: size mismatch for 1\.weight: .*\[5, 64\]"):
        make("linear", weights=other)


# The identity.


def test_the_same_weights_have_the_same_digests(make: Make, tmp_path: Path) -> None:
    state = linear().state_dict()
    save_file(state, tmp_path / "b.safetensors")
    first = make("linear", weights=saved(state, tmp_path / "a.pt"))
    second = make("linear", weights=str(tmp_path / "b.safetensors"))
    assert digest_module(first) == digest_module(second)
    assert digest_module(first.members[0]) == digest_module(second.members[0])


def test_what_makes_another_network_makes_another_digest(make: Make, importable: Path) -> None:
    weights = saved(linear().state_dict(), importable / "a.pt")
    other = saved(linear().state_dict(), importable / "b.pt")
    targets = [
        make("linear", weights=weights),
        make("linear", weights=other),
        make("linear", weights=weights, mean="0.5"),
        make("linear", weights=weights, std="0.5"),
    ]
    (importable / "edited.py").write_text(MODULE + "\nEDITED = True", encoding="utf-8")
    targets.append(torch_model("edited:linear")(DIGITS, UserSettings(weights=weights)))
    assert len({digest_module(defense.members[0]) for defense in targets}) == len(targets)


def test_settings_are_in_the_record(make: Make, tmp_path: Path) -> None:
    weights = saved(linear().state_dict(), tmp_path / "a.pt")
    settings = make("linear", weights=weights, mean="0.5").settings
    assert settings_as_json(settings) == {"weights": weights, "mean": "0.5", "std": ""}
