"""Interface for plugin authors: base classes, types, and the helpers that our own plugins are built from."""

from dkd_bench.attacks import Attack, AttackMeta
from dkd_bench.budget import Budget, Norm, perturbation_norms, project
from dkd_bench.data import Dataset, ImageSpec, Split
from dkd_bench.defense import ABSTAIN, NO_MAJORITY, Defense, DefenseMeta
from dkd_bench.defense.decisions import boosted, majority
from dkd_bench.defense.ensemble import VotingEnsemble
from dkd_bench.defense.single import SingleNetwork
from dkd_bench.errors import AttackError, ConfigError, DatasetError, DkdBenchError, PluginError, UnknownNameError
from dkd_bench.plugins.settings import NoSettings
from dkd_bench.progress import Progress
from dkd_bench.store.cache import cache_root
from dkd_bench.store.digests import digest_module
from dkd_bench.target import Target
from dkd_bench.target.surrogates import BPDA, Detecting, EnsembleSurrogate, OnManifold, ensemble_surrogates
from dkd_bench.threats import EachTarget, Roles, ThreatModel, ThreatModelMeta
from dkd_bench.training import (
    CrossEntropy,
    Objective,
    Recipe,
    TrainingBatch,
    TrainingSet,
    TrainingStep,
    captured_latent,
    outputs_on,
    train_network,
)
from dkd_bench.training.networks import build_network

__all__ = [
    "ABSTAIN",
    "BPDA",
    "NO_MAJORITY",
    "Attack",
    "AttackError",
    "AttackMeta",
    "Budget",
    "ConfigError",
    "CrossEntropy",
    "Dataset",
    "DatasetError",
    "Defense",
    "DefenseMeta",
    "Detecting",
    "DkdBenchError",
    "EachTarget",
    "EnsembleSurrogate",
    "ImageSpec",
    "NoSettings",
    "Norm",
    "Objective",
    "OnManifold",
    "PluginError",
    "Progress",
    "Recipe",
    "Roles",
    "SingleNetwork",
    "Split",
    "Target",
    "ThreatModel",
    "ThreatModelMeta",
    "TrainingBatch",
    "TrainingSet",
    "TrainingStep",
    "UnknownNameError",
    "VotingEnsemble",
    "boosted",
    "build_network",
    "cache_root",
    "captured_latent",
    "digest_module",
    "ensemble_surrogates",
    "majority",
    "outputs_on",
    "perturbation_norms",
    "project",
    "train_network",
]
