"""Digests: what changes a result changes them, and nothing else does."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dkd_bench.store.code import code_digest
from dkd_bench.store.digests import digest_json, digest_module, digest_tensors, library_versions


def a_network(width: int = 4, *, seed: int = 0, slope: float = 0.1) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.LeakyReLU(slope))


def test_json_is_canonical() -> None:
    assert digest_json({"a": 1, "b": [1, 2]}) == digest_json({"b": [1, 2], "a": 1})
    assert digest_json({"a": [1, 2]}) != digest_json({"a": [2, 1]})
    assert digest_json({"a": None}) != digest_json({})
    assert digest_json({"eps": 0.1}) != digest_json({"eps": 0.1 + 1e-16 * 2})


def test_json_known_value() -> None:
    # printf '{"a":1}' | sha256sum
    assert digest_json({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        digest_json({"eps": value})


def test_tensors_by_name_type_shape_and_bytes() -> None:
    base = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    variants = [
        {"a": base},
        {"b": base},
        {"a": base.double()},
        {"a": base.flatten()},
        {"a": base.T},
        {"a": base + torch.finfo(torch.float32).eps * 4},
        {"a": base, "b": base},
        {},
        {"a": torch.zeros(0)},
    ]
    assert len({digest_tensors(each) for each in variants}) == len(variants)


def test_tensors_in_any_order_and_layout() -> None:
    a, b = torch.rand(2, 3, 4, 5), torch.rand(3)
    digest = digest_tensors({"a": a, "b": b})
    assert digest_tensors({"b": b, "a": a}) == digest
    assert digest_tensors({"a": a.to(memory_format=torch.channels_last), "b": b}) == digest
    assert digest_tensors({"a": a.clone().requires_grad_(), "b": b}) == digest


@pytest.mark.parametrize("tensor", [torch.tensor(3), torch.tensor([True, False]), torch.ones(2, dtype=torch.bfloat16)])
def test_tensors_of_any_type(tensor: torch.Tensor) -> None:
    assert digest_tensors({"a": tensor}) == digest_tensors({"a": tensor.clone()})


def test_a_network_equals_its_copy() -> None:
    assert digest_module(a_network()) == digest_module(a_network())


CHANGES: list[Callable[[nn.Sequential], Any]] = [
    lambda network: network[0].weight.data.view(-1)[5].add_(1e-6),
    lambda network: network[1].running_mean.add_(1),
    lambda network: network.append(nn.ReLU()),
    lambda network: setattr(network[1], "eps", 1e-3),
    lambda network: network.__setitem__(2, nn.LeakyReLU(0.2)),
    lambda network: network.__setitem__(2, nn.ReLU()),
]


@pytest.mark.parametrize(
    "change",
    CHANGES,
    ids=["weight", "buffer", "another layer", "constant of a layer", "slope", "another kind of layer"],
)
def test_a_network_by_what_it_computes(change: Callable[[nn.Sequential], Any]) -> None:
    network = a_network()
    before = digest_module(network)
    change(network)
    assert digest_module(network) != before


CONSEQUENTLY_EQUAL: list[Callable[[nn.Sequential], Any]] = [
    lambda network: network.to(memory_format=torch.channels_last),
    lambda network: network.eval(),
    lambda network: network.requires_grad_(False),
]


@pytest.mark.parametrize("change", CONSEQUENTLY_EQUAL, ids=["memory format", "mode", "frozen"])
def test_a_network_whatever_state_it_is_in(change: Callable[[nn.Sequential], Any]) -> None:
    network = a_network()
    before = digest_module(network)
    change(network)
    assert digest_module(network) == before


PLUGIN = """
from torch import nn

class Base(nn.Module):
    def forward(self, x):
        return {constant} * x

class Member(Base):
    pass
"""


def plugin_class(folder: Path, name: str, constant: int) -> type[nn.Module]:
    """Return a class from a file of its own, as a plugin's is."""
    file = folder / f"{name}.py"
    file.write_text(PLUGIN.format(constant=constant), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    found: type[nn.Module] = module.Member
    return found


def test_code_is_part_of_what_a_network_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("member_one", "member_two", "member_three"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    one, two, three = (
        plugin_class(tmp_path, name, constant)
        for name, constant in (("member_one", 1), ("member_two", 2), ("member_three", 1))
    )
    assert repr(one()) == repr(two())
    assert code_digest(one) != code_digest(two)
    assert code_digest(one) == code_digest(three), "the same code at another place is the same code"
    assert digest_module(one()) != digest_module(two())
    assert digest_module(nn.Sequential(one())) != digest_module(nn.Sequential(two()))


def test_library_versions() -> None:
    found = library_versions("torch", "dkd-bench")
    assert list(found) == ["dkd-bench", "torch"]
    assert torch.__version__.startswith(found["torch"])


class Quantised(nn.Module):
    def __init__(self, bits: int, offset: float) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("offset", torch.tensor(offset), persistent=False)


def test_plain_attributes_and_hidden_buffers_are_in_the_digest() -> None:
    assert digest_module(Quantised(1, 0.0)) == digest_module(Quantised(1, 0.0))
    assert digest_module(Quantised(1, 0.0)) != digest_module(Quantised(8, 0.0))
    assert digest_module(Quantised(1, 0.0)) != digest_module(Quantised(1, 0.5))


def test_training_mode_is_not_in_the_digest() -> None:
    assert digest_module(Quantised(1, 0.0).train()) == digest_module(Quantised(1, 0.0).eval())
