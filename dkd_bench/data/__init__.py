"""Datasets: their types, the loaders that come with dkd-bench, and the images that a run takes of one."""

from dkd_bench.data._dataset import Dataset, DatasetLoader, ImageSpec, Split, data_root, select_balanced
from dkd_bench.data._images import CHUNK_SIZE, Chunk, RunImages
from dkd_bench.data._load import load_dataset

__all__ = [
    "CHUNK_SIZE",
    "Chunk",
    "Dataset",
    "DatasetLoader",
    "ImageSpec",
    "RunImages",
    "Split",
    "data_root",
    "load_dataset",
    "select_balanced",
]
