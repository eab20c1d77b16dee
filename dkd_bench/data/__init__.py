"""Datasets: what they are, and the loaders that come with dkd-bench."""

from dkd_bench.data._dataset import Dataset, DatasetLoader, ImageSpec, Split, data_root, select_balanced
from dkd_bench.data._load import load_dataset

__all__ = ["Dataset", "DatasetLoader", "ImageSpec", "Split", "data_root", "load_dataset", "select_balanced"]
