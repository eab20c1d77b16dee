"""Guards of MagNet in front of a classifier: a reformer, detectors, and the thresholds they reject by."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import cast, final

import torch
from torch import Tensor, nn

from dkd_bench.api import ABSTAIN, Defense, Detecting, Split

_BATCH = 250


@final
class Guard(Detecting):
    """Autoencoders in front of a classifier: the first reforms what is classified, each detects by its error."""

    def __init__(
        self,
        classifier: nn.Module,
        reconstructions: Sequence[nn.Module],
        *,
        norms: tuple[int, ...],
        temperatures: tuple[float, ...],
        thresholds: Tensor,
    ) -> None:
        """Put the parts together.

        Args:
            classifier: logits ``(N, K)`` out of images.
            reconstructions: reconstructed images out of images; the first is the reformer.
            norms: the power of the error of each of ``reconstructions``.
            temperatures: one for each detector by divergence.
            thresholds: the largest mark that passes, for each norm and each temperature in turn.
        """
        super().__init__()
        self.classifier = classifier
        self.reconstructions = nn.ModuleList(reconstructions)
        self.norms = norms
        self.temperatures = temperatures
        self.register_buffer("thresholds", thresholds)
        self.thresholds: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the classifier's logits ``(N, K)`` for the reformed images."""
        logits: Tensor = self.classifier(self.reconstructions[0](x))
        return logits

    def rejections(self, x: Tensor) -> Tensor:
        """Return by how much each mark is beyond its threshold, in units of the threshold, ``(N, D)``."""
        # Where a threshold is 0 the marks are: the unit only keeps the sign then.
        return (self.marks(x) - self.thresholds) / self.thresholds.clamp_min(1e-12)

    def marks(self, x: Tensor) -> Tensor:
        """Return the marks of each image by detector, ``(N, D)``: how unlike the training images it is.

        Errors are ``mean |x - AE(x)|^p``; divergences those of the classifier's answers to the image and to its
        reconstruction, softened by a temperature.
        """
        reconstructed = [each(x) for each in self.reconstructions]
        marks = [
            (x - each).abs().pow(norm).flatten(1).mean(dim=1)
            for each, norm in zip(reconstructed, self.norms, strict=True)
        ]
        if self.temperatures:
            before, after = self.classifier(x), self.classifier(reconstructed[0])
            marks += [jensen_shannon(before / each, after / each) for each in self.temperatures]
        return torch.stack(marks, dim=1)

    def extra_repr(self) -> str:
        """Show what decides the marks."""
        return f"norms={self.norms}, temperatures={self.temperatures}"


@final
class DrawnGuard(Detecting):
    """Guard drawn for each answer out of several, from torch's global generator; all of them detect.

    An image that passes every guard passes whichever is drawn: what Carlini and Wagner ask of theirs.
    """

    def __init__(self, guards: Sequence[Guard]) -> None:
        """Take the guards to draw from."""
        super().__init__()
        self.guards = nn.ModuleList(guards)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(N, K)`` of the images as one guard reforms them, the same for all images."""
        drawn = int(torch.randint(len(self.guards), ()))
        logits: Tensor = self.guards[drawn](x)
        return logits

    def rejections(self, x: Tensor) -> Tensor:
        """Return the rejections of all guards, ``(N, guards * D)``."""
        return torch.cat([guard.rejections(x) for guard in cast("Iterable[Guard]", self.guards)], dim=1)


class GuardedClassifier(Defense, ABC):
    """A classifier behind guards, one of which is on duty; authors set ``classifier`` and ``thresholds``.

    The class is defined beside the guards so that a defence's code, which its weights are known by, is theirs too.
    """

    classifier: nn.Module
    thresholds: Tensor
    """Buffer with the largest mark that passes, ``(guards, D)``."""

    @property
    def members(self) -> Sequence[nn.Module]:
        """The classifier, without its guards."""
        return [self.classifier]

    @property
    @abstractmethod
    def guards(self) -> Sequence[Guard]:
        """The defence as it is with each guard on duty."""

    @property
    @abstractmethod
    def detectors(self) -> Sequence[str]:
        """The names of a guard's detectors, in the order of its marks."""

    def answer(self, guard: Guard, x: Tensor) -> Tensor:
        """Return the labels ``(N,)`` of the images with ``guard`` on duty."""
        labels = guard(x).argmax(dim=1)
        rejected = (guard.rejections(x) > 0).any(dim=1)
        return torch.where(rejected, ABSTAIN, labels)

    def rejections(self, x: Tensor) -> Mapping[str, Tensor]:
        """Return the excess of each mark over its threshold, by detector, and by guard if there are several."""
        excess = {index: guard.rejections(x) for index, guard in enumerate(self.guards, start=1)}
        return {
            name if len(excess) == 1 else f"{name} of autoencoder {index}": each[:, position]
            for index, each in excess.items()
            for position, name in enumerate(self.detectors)
        }

    @torch.no_grad()
    def set_thresholds(self, validation: Split, rates: Sequence[float]) -> None:
        """Make each guard's detectors reject their rate of the ``validation`` images."""
        for index, guard in enumerate(self.guards):
            batches = (validation.batch(each)[0] for each in torch.arange(len(validation)).split(_BATCH))
            marks = torch.cat([guard.marks(images.to(self.thresholds.device)) for images in batches])
            for detector, rate in enumerate(rates):
                self.thresholds[index, detector] = threshold(marks[:, detector], rate)


def threshold(marks: Tensor, rate: float) -> Tensor:
    """Return the largest mark that passes when ``rate`` of the ``marks`` of clean images are rejected.

    With ``m = int(len(marks) * rate)`` the authors pass marks below the m-th largest. Where there are so few images
    that m is 0 the largest is taken (m = 1).
    """
    rejected = max(1, int(len(marks) * rate))
    smallest_rejected = marks.sort(descending=True).values[rejected - 1]
    # A mark at the threshold passes, so the threshold is the float just below the smallest that must not.
    return smallest_rejected.nextafter(torch.full_like(smallest_rejected, -torch.inf))


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of two softmaxes from their logits ``(N, K)``, in nats, ``(N,)``.

    In double precision, since it is the small difference of large terms; no logarithm of 0 at underflow.
    """
    p, q = first.double().log_softmax(dim=1), second.double().log_softmax(dim=1)
    mean = torch.logaddexp(p, q) - math.log(2)
    return 0.5 * (p.exp() * (p - mean) + q.exp() * (q - mean)).sum(dim=1).to(first.dtype)
