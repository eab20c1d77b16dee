"""Loading of the dataset that the words after ``--dataset`` name."""

from __future__ import annotations

from pathlib import Path

from dkd_bench.data._dataset import Dataset, data_root
from dkd_bench.errors import PluginError
from dkd_bench.plugins import registry


def load_dataset(reference: str, *, root: Path | None = None) -> Dataset:
    """Return the dataset called ``reference``: a plugin's name, ``npz:FILE`` or ``imagefolder:DIR``.

    Raises:
        UnknownNameError: if no dataset of that name is installed.
        DatasetError: if its files are missing or corrupt.
        PluginError: if the plugin returns something other than a dataset.
    """
    is_file = ".py:" in reference
    name, argument = (reference, "") if is_file else reference.partition(":")[::2]
    loader = registry.load("datasets", name)
    dataset = loader(argument=argument or None, root=data_root(root))
    if not isinstance(dataset, Dataset):
        raise PluginError(f"dataset {name!r} must return a Dataset, got {type(dataset).__name__}")
    return dataset
