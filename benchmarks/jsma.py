"""JSMA against the JSMA of two libraries: the same network, images, classes to reach, theta and gamma.

    pip install "dkd-bench[peers]"
    python benchmarks/jsma.py [--dataset mnist|digits] [--n-images N] [--rounds N] [--data-root DIR]

The Adversarial Robustness Toolbox (ART) takes the two values with the steepest logit of the class aimed at,
whatever they do to the others; torchattacks compares all pairs by the logits, as ours does when told to, one image
at a time. Every attack gets the undefended network
with frozen weights in channels-last order, which spares the libraries the gradients of the weights. They take
turns, each round on other classes. Prints for each attack the images per second and how many times as fast ours
is (medians of the rounds), and the share of images that reached their class with the values it took. Both
libraries go up to two values over gamma; as a success counts what is in it.

torchattacks pins requests to 2.25, so an environment of its own is the place for the peers.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from dkd_bench.attacks.jsma import JSMASettings, targeted_jsma
from dkd_bench.budget import perturbation_norms
from dkd_bench.data import select_balanced
from dkd_bench.progress import SilentProgress
from dkd_bench.steps.request import TrainRequest
from dkd_bench.steps.resolve import resolve
from dkd_bench.steps.train import train
from dkd_bench.target import Target

SETTINGS = JSMASettings()
ART_BATCH_SIZE = 1
"""Its default, and the fastest from 1 to 64: in a batch it pays a backward pass for each class that occurs."""

Craft = Callable[[Tensor, Tensor], Tensor]
"""From clean images and the classes to reach to adversarial images."""


def ours(network: nn.Module, n_classes: int, *, logits: bool = False) -> Craft:
    """Return our attack."""
    settings = replace(SETTINGS, logits=logits)
    return lambda images, classes: targeted_jsma(
        Target(network, name="none", n_classes=n_classes), images, classes, settings
    )


def art(network: nn.Module, n_classes: int, shape: tuple[int, ...]) -> Craft:
    """Return the attack of the Adversarial Robustness Toolbox."""
    from art.attacks.evasion import SaliencyMapMethod
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model=network,
        loss=nn.CrossEntropyLoss(),
        input_shape=shape,
        nb_classes=n_classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = SaliencyMapMethod(
        classifier, theta=SETTINGS.theta, gamma=SETTINGS.gamma, batch_size=ART_BATCH_SIZE, verbose=False
    )
    return lambda images, classes: torch.from_numpy(attack.generate(images.numpy().copy(), classes.numpy()))


def torchattacks(network: nn.Module) -> Craft:
    """Return the attack of torchattacks."""
    from torchattacks import JSMA

    attack = JSMA(network, theta=SETTINGS.theta, gamma=SETTINGS.gamma)
    attack.set_mode_targeted_by_label(quiet=True)
    return lambda images, classes: attack(images, classes)


def crafts(network: nn.Module, n_classes: int, shape: tuple[int, ...]) -> dict[str, Craft]:
    """Return the attacks that are installed, ours first; say how to install the others."""
    found = {"dkd-bench": ours(network, n_classes), "dkd-bench, logits": ours(network, n_classes, logits=True)}
    if importlib.util.find_spec("art"):
        found["ART"] = art(network, n_classes, shape)
    if importlib.util.find_spec("torchattacks"):
        found["torchattacks"] = torchattacks(network)
    if len(found) < 4:
        print('not all peers are installed: pip install "dkd-bench[peers]"')
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=["mnist", "digits"], default="mnist")
    parser.add_argument("--n-images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data-root", type=Path)
    words = parser.parse_args()
    request = TrainRequest(defenses=("none",), dataset=words.dataset, data_root=words.data_root, device="cpu")
    trained = train(resolve(request), SilentProgress())
    network, test = trained.defenses["none"].defense.members[0], trained.dataset.test
    images, labels = test.batch(select_balanced(test.labels, n_examples=words.n_images, seed=0))
    n_classes = trained.dataset.n_classes
    attacks = crafts(network, n_classes, tuple(images.shape[1:]))
    generator = torch.Generator().manual_seed(0)
    speeds: dict[str, list[float]] = {name: [] for name in attacks}
    hits: dict[str, list[Tensor]] = {name: [] for name in attacks}
    values: dict[str, list[Tensor]] = {name: [] for name in attacks}
    for number in range(1, words.rounds + 1):
        classes = (labels + torch.randint(1, n_classes, labels.shape, generator=generator)) % n_classes
        for name, craft in attacks.items():
            start = perf_counter()
            adversarial = craft(images, classes)
            speeds[name].append(len(images) / (perf_counter() - start))
            changed = perturbation_norms(images, adversarial, "l0")
            hit = (network(adversarial).argmax(dim=1) == classes) & (changed <= SETTINGS.gamma * images[0].numel())
            hits[name].append(hit)
            values[name].append(changed[hit])
        print(f"round {number}: " + ", ".join(f"{name} {speeds[name][-1]:.1f} images/s" for name in attacks))
    print(f"\n{words.dataset}, {len(images)} images, theta {SETTINGS.theta:g}, gamma {SETTINGS.gamma:g}, ", end="")
    print(f"{torch.get_num_threads()} threads\n")
    print(f"| {'attack':<17} | images/s | ours is faster by | reached | median values |")
    print("|:------------------|---------:|------------------:|--------:|--------------:|")
    for name in attacks:
        ratio = median(mine / theirs for mine, theirs in zip(speeds["dkd-bench"], speeds[name], strict=True))
        reached, taken = torch.cat(hits[name]).double().mean(), torch.cat(values[name]).median()
        print(f"| {name:<17} | {median(speeds[name]):8.1f} | {ratio:17.1f} | {reached:7.1%} | {taken:13.0f} |")


if __name__ == "__main__":
    main()
