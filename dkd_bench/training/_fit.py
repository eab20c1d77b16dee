"""Training loop of one network, whatever its objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from dkd_bench.data import Split
from dkd_bench.errors import ConfigError
from dkd_bench.progress import Progress, SilentProgress, Task
from dkd_bench.store.code import code_digest
from dkd_bench.store.digests import digest_json, digest_module, library_versions
from dkd_bench.store.files import TensorStore
from dkd_bench.training._recipes import Recipe

EVALUATION_BATCH = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBatch:
    """Batch as an objective sees it after the network's forward pass."""

    indices: Tensor
    """Positions in the training split, int64, shape ``(n,)``, on the CPU."""
    labels: Tensor
    logits: Tensor
    """Logits of the batch, shape ``(n, K)``."""
    latent: Tensor | None
    """Flattened output of the objective's latent layer, shape ``(n, D)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStep:
    """Batch as an objective sees it before the network's forward pass."""

    indices: Tensor
    """Positions in the training split, int64, shape ``(n,)``, on the CPU."""
    images: Tensor
    """float32 in [0, 1], shape ``(n, C, H, W)``."""
    labels: Tensor
    progress: float
    """Fraction of all training steps that are done, in [0, 1)."""
    generator: torch.Generator
    """Source of all randomness of training, on the CPU."""


class Objective(ABC):
    """Objective of a network's training: ``loss`` of a batch, unless ``step_loss`` needs the network itself."""

    latent_layer: str | None = None
    """Name of the layer whose output the objective wants beside the logits."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return all that determines the objective, as plain values, for the weights' key."""

    @abstractmethod
    def loss(self, batch: TrainingBatch) -> Tensor:
        """Return the loss of a batch, a scalar."""

    def step_loss(self, network: nn.Module, step: TrainingStep) -> Tensor:
        """Return the loss of one step, a scalar; adversarial training looks for its own images here."""
        if self.latent_layer is None:
            logits, latent = network(step.images), None
        else:
            with captured_latent(network, self.latent_layer) as captured:
                logits = network(step.images)
            latent = captured[0].flatten(1)
        return self.loss(TrainingBatch(indices=step.indices, labels=step.labels, logits=logits, latent=latent))


@final
class CrossEntropy(Objective):
    """Cross-entropy with the labels (paper, Eq. 1)."""

    def identity(self) -> dict[str, Any]:
        """Return its name: it has no parameters."""
        return {"objective": "cross-entropy"}

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Return the mean cross-entropy."""
        return nn.functional.cross_entropy(batch.logits, batch.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Training images, with the networks that were trained on them before."""

    split: Split
    digest: str
    """Digest of the dataset."""
    networks: TensorStore | None = None
    """Cache of trained networks: the main model of DKD and of KD is one computation."""


def train_network(  # noqa: PLR0913
    network: nn.Module,
    data: TrainingSet,
    *,
    recipe: Recipe,
    generator: torch.Generator,
    objective: Objective | None = None,
    progress: Progress | None = None,
    description: str = "training",
) -> None:
    """Train ``network`` in place, on the device it is on, and leave it in evaluation mode.

    A network that was trained before from the same weights, on the same images, by the same recipe, objective
    and random numbers is loaded instead.
    """
    objective = objective or CrossEntropy()
    # Drawn also if the network is loaded, so that the next one trained begins from the same random numbers.
    seed = int(torch.randint(2**62, (), generator=generator))
    key = digest_json(
        {
            "network": digest_module(network),
            "dataset": data.digest,
            "recipe": asdict(recipe),
            "objective": objective.identity() | {"code": code_digest(type(objective))},
            "seed": seed,
            "libraries": library_versions("torch"),
        }
    )
    # Trained or loaded, the network is left in one memory format, or those trained against it would differ.
    network.requires_grad_(True).to(memory_format=torch.channels_last)
    task = (progress or SilentProgress()).start(description, recipe.epochs)
    known = data.networks.get(key) if data.networks else None
    if known is not None:
        network.load_state_dict(known)
        task.advance(recipe.epochs, "trained before")
    else:
        _optimise(network, data.split, recipe, objective, torch.Generator().manual_seed(seed), task)
        if data.networks:
            data.networks.put(key, network.state_dict())
    network.eval()


def _optimise(
    network: nn.Module,
    split: Split,
    recipe: Recipe,
    objective: Objective,
    generator: torch.Generator,
    task: Task,
) -> None:
    device = next(network.parameters()).device
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    total_steps = recipe.epochs * -(-len(split) // recipe.batch_size)
    done = 0
    schedule = (
        torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=total_steps)
        if recipe.schedule == "one-cycle"
        else None
    )
    for _ in range(recipe.epochs):
        total = torch.zeros((), device=device)
        order = torch.randperm(len(split), generator=generator)
        for indices in order.split(recipe.batch_size):
            images, labels = split.batch(indices)
            loss = objective.step_loss(
                network,
                TrainingStep(
                    indices=indices,
                    images=images.to(device),
                    labels=labels.to(device),
                    progress=done / total_steps,
                    generator=generator,
                ),
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            total += loss.detach() * len(indices)
            done += 1
        task.advance(note=f"loss {float(total) / len(split):.4f}")


@contextmanager
def captured_latent(network: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Collect the outputs of ``layer`` while the network runs: one tensor for each forward pass.

    Raises:
        ConfigError: if the network has no layer of that name.
    """
    modules = dict(network.named_modules())
    if layer not in modules or not layer:
        known = ", ".join(name for name in modules if name)
        raise ConfigError(f"the network has no layer {layer!r} to take latents from; its layers: {known}")
    captured: list[Tensor] = []
    handle = modules[layer].register_forward_hook(lambda _module, _inputs, output: captured.append(output))
    try:
        yield captured
    finally:
        handle.remove()


@torch.no_grad()
def outputs_on(network: nn.Module, split: Split, *, latent_layer: str | None = None) -> Tensor:
    """Return a frozen network's logits ``(N, K)``, or its flattened latents ``(N, D)``, on a whole split."""
    device = next(network.parameters()).device
    network.eval()
    pieces = []
    for indices in torch.arange(len(split)).split(EVALUATION_BATCH):
        images = split.batch(indices)[0].to(device)
        if latent_layer is None:
            pieces.append(network(images))
            continue
        with captured_latent(network, latent_layer) as captured:
            network(images)
        pieces.append(captured[0].flatten(1))
    return torch.cat(pieces)
