"""Averaged: the mean of the perturbations that were found on each member."""

from dkd_bench.api import ThreatModel, ThreatModelMeta, project


class Averaged(ThreatModel):
    """The mean of the members' perturbations, judged by the whole defence."""

    meta = ThreatModelMeta(
        name="averaged",
        title="Averaged",
        sees="part",
        legend="examples made on each member alone, and their perturbations averaged.",
        place=35,
    )

    def targets(self, roles):
        """Ask for the members, which the standalone threat model attacks too: nothing is crafted twice."""
        return roles.members

    def candidates(self, clean, crafted, budget):
        """Yield where the mean leads to, inside the budget and the box."""
        mean = sum(adversarial - clean for adversarial in crafted.values()) / len(crafted)
        yield "mean", project(clean, clean + mean, budget)
