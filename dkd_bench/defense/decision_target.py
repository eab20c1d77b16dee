"""Target of last resort: a defence's answers, for attacks that need no more."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from dkd_bench.defense import ABSTAIN, Defense
from dkd_bench.target.surrogates import Detecting


@final
class Decision(Detecting):
    """The deployed decision as logits: 1 for the class answered, 0 for all others; no gradient.

    A reject, and a vote that failed, are 0 for every class; ``rejections`` tells the first from the second.
    """

    def __init__(self, defense: Defense) -> None:
        """Ask ``defense``; its parameters and code are in this module's digest."""
        super().__init__()
        self.defense = defense

    def forward(self, x: Tensor) -> Tensor:
        """Return one-hot answers, shape ``(N, K)``."""
        labels = self._answers(x)
        n_classes = self.defense.images.n_classes
        one_hot = nn.functional.one_hot(labels.clamp_min(0), n_classes)
        return (one_hot * (labels >= 0).unsqueeze(1)).to(x.dtype)

    def rejections(self, x: Tensor) -> Tensor:
        """Return 1 for a reject and -1 for any other answer, shape ``(N, 1)``."""
        return torch.where(self._answers(x) == ABSTAIN, 1.0, -1.0).unsqueeze(1)

    @torch.no_grad()
    def _answers(self, x: Tensor) -> Tensor:
        """Draw from torch's global generator, which attacks seed, as every random target does."""
        generator = torch.Generator(device=x.device).manual_seed(int(torch.randint(2**62, ())))
        answers: Tensor = self.defense.predict(x, generator=generator)
        return answers
