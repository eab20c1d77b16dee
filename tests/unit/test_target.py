"""What an attack sees: counted, frozen, float32, and never NaN."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dkd_bench.errors import AttackError
from dkd_bench.target import AUTO_BATCH_SIZE, Target

N_CLASSES = 3


def linear(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, N_CLASSES)).to(dtype)


def a_target(module: nn.Module | None = None, *, batch_size: int = AUTO_BATCH_SIZE, draws: int = 1) -> Target:
    return Target(module or linear(), name="it", n_classes=N_CLASSES, batch_size=batch_size, draws=draws)


def images(n: int = 5) -> Tensor:
    return torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(1))


class Says(nn.Module):
    """Answers with a function of the images."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(x)  # type: ignore[operator,no-any-return]


def test_counts_images_forward_and_backward() -> None:
    target = a_target()
    with torch.no_grad():
        target(images(5))
    assert (target.forward_passes, target.backward_passes) == (5, 0)
    x = images(7).requires_grad_()
    logits = target(x)
    assert (target.forward_passes, target.backward_passes) == (12, 0)
    torch.autograd.grad(logits.sum(), x, retain_graph=True)
    torch.autograd.grad(logits[:, 0].sum(), x)
    assert (target.forward_passes, target.backward_passes) == (12, 14)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 8])
def test_batch_size_changes_neither_answers_nor_counts(batch_size: int) -> None:
    whole, split = a_target(), a_target(batch_size=batch_size)
    found = []
    for target in (whole, split):
        x = images(7).requires_grad_()
        logits = target(x)
        (gradient,) = torch.autograd.grad(logits.square().sum(), x)
        found.append((logits, gradient))
        assert (target.forward_passes, target.backward_passes) == (7, 7)
    torch.testing.assert_close(found[0], found[1])


def test_batch_size_bounds_what_the_module_is_given() -> None:
    sizes: list[int] = []

    def answer(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return torch.zeros(len(x), N_CLASSES)

    a_target(Says(answer), batch_size=3)(images(7))
    assert sizes == [3, 3, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_answers_must_be_finite(value: float) -> None:
    def answer(x: Tensor) -> Tensor:
        return torch.zeros(len(x), N_CLASSES).index_fill(0, torch.tensor([len(x) - 1]), value)

    with pytest.raises(AttackError, match=r"^it returned logits that are not finite; no attack on it can be scored"):
        a_target(Says(answer))(images())


@pytest.mark.parametrize("shape", [(5, 4), (4, 3), (5,), (5, 3, 1)])
def test_answers_must_have_the_shape_of_logits(shape: tuple[int, ...]) -> None:
    with pytest.raises(AttackError, match=r"^it must return logits of shape \(5, 3\), got \("):
        a_target(Says(lambda x: torch.zeros(shape)))(images())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_answers_are_float32_whatever_is_computed_in(dtype: torch.dtype) -> None:
    seen: list[torch.dtype] = []
    module = linear(dtype)
    module[0].register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].dtype))
    x = images().requires_grad_()
    logits = a_target(module)(x)
    assert seen == [dtype]
    assert logits.dtype == torch.float32
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert gradient.dtype == torch.float32


def test_parameters_are_frozen_and_the_module_evaluates() -> None:
    module = linear().train()
    target = a_target(module)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in target.parameters())
    x = images().requires_grad_()
    target(x).sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert all(parameter.grad is None for parameter in module.parameters())


def test_draws_are_averaged_and_counted() -> None:
    answers = iter([1.0, 2.0, 6.0])
    target = a_target(Says(lambda x: next(answers) * x.flatten(1)[:, :N_CLASSES]), draws=3)
    x = images().requires_grad_()
    logits = target(x)
    torch.testing.assert_close(logits, 3 * x.flatten(1)[:, :N_CLASSES])
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    torch.testing.assert_close(gradient.flatten(1)[:, :N_CLASSES], torch.full((5, N_CLASSES), 3.0))
    assert (target.forward_passes, target.backward_passes) == (15, 15)
