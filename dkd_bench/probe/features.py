"""Features of a network, still differentiable: the inputs of its last linear layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from dkd_bench.errors import AttackError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One evaluation of a linear layer."""

    read: Tensor
    node: Any
    """Node of its output in the graph of gradients; ``None`` without one."""


@final
class LinearInputs(nn.Module):
    """A network's features: the inputs of the linear layers behind which no other one stands.

    Of an ensemble these are those of every member, side by side. Where the logits do not come from such layers
    alone, the logits themselves are the features.
    """

    def __init__(self, network: nn.Module, image: Tensor) -> None:
        """Find the layers of ``network`` on ``image``, shape ``(1, C, H, W)``."""
        super().__init__()
        self.network = network
        dtype = next((each.dtype for each in network.parameters()), torch.float32)
        leaf = image.detach().to(dtype, copy=True).requires_grad_()
        with torch.enable_grad(), _calls(network) as calls:
            logits: Tensor = network(leaf)
        self._dtype = dtype
        self._n_calls = len(calls)
        self._last = _last_calls(calls, logits, leaf)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features ``(N, D)`` and the network's logits ``(N, K)``.

        Raises:
            AttackError: if the network does not run the same layers on these images, one row for each.
        """
        with _calls(self.network) as calls:
            logits: Tensor = self.network(x.to(self._dtype))
        if not self._last:
            return logits, logits
        if len(calls) != self._n_calls or any(len(calls[each].read) != len(x) for each in self._last):
            raise AttackError(
                "the features of a network must come from the same linear layers for every image, one row for each; "
                f"this one runs {self._n_calls} of them on one image and {len(calls)} on {len(x)} others"
            )
        return torch.cat([calls[each].read.flatten(1) for each in self._last], dim=1), logits


@contextmanager
def _calls(network: nn.Module) -> Iterator[list[_Call]]:
    """Collect the evaluations of linear layers in order while the network runs."""
    calls: list[_Call] = []

    def keep(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(_Call(read=inputs[0], node=output.grad_fn))

    handles = [each.register_forward_hook(keep) for each in network.modules() if isinstance(each, nn.Linear)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _last_calls(calls: list[_Call], logits: Tensor, leaf: Tensor) -> tuple[int, ...]:
    """Return the calls that are met first on all ways back from the logits; none if a way passes by them all.

    A network without gradients has no ways back: there it is the last call.
    """
    if logits.grad_fn is None:
        return (len(calls) - 1,) if calls else ()
    position = {call.node: number for number, call in enumerate(calls) if call.node is not None}
    met: set[int] = set()
    seen: set[Any] = set()
    ahead: list[Any] = [logits.grad_fn]
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in position:
            met.add(position[node])
        elif getattr(node, "variable", None) is leaf:
            return ()
        else:
            ahead += [before for before, _ in node.next_functions if before is not None]
    return tuple(sorted(met))
