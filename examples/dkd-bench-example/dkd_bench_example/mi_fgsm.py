"""Momentum iterative FGSM (Dong et al. 2018)."""

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from dkd_bench.api import Attack, AttackMeta, ConfigError, project


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentumSettings:
    """What ``--set mi-fgsm.NAME=VALUE`` reaches."""

    steps: int = 10
    decay: float = 1.0

    def __post_init__(self):
        if self.steps < 1:
            raise ConfigError(f"steps must be at least 1, got {self.steps}")


class MomentumFGSM(Attack):
    """FGSM in small steps along the running mean of the gradients."""

    meta = AttackMeta(name="mi-fgsm", title="MI-FGSM", kind="fixed", norms=("linf",))
    Settings = MomentumSettings

    def _perturb(self, target, images, labels, budget):
        """Return the point of highest loss among those visited."""
        x, momentum = images, torch.zeros_like(images)
        best, best_loss = images, torch.full(labels.shape, -torch.inf, device=images.device)
        for step in range(self.settings.steps + 1):
            x = x.detach().requires_grad_()
            loss = cross_entropy(target(x), labels, reduction="none")
            better = loss.detach() > best_loss
            best = torch.where(better.view(-1, 1, 1, 1), x.detach(), best)
            best_loss = torch.where(better, loss.detach(), best_loss)
            if step < self.settings.steps:
                (gradient,) = torch.autograd.grad(loss.sum(), x)
                length = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
                momentum = self.settings.decay * momentum + gradient / length
                x = project(images, x + momentum.sign() * budget.eps / self.settings.steps, budget)
        return best
