"""The datasets: one module each, whose name is the dataset's (contract: base.py)."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from store.inputs.datasets.base import Published
from store.inputs.samples import Samples
from store.lookup import check_name, load_plugin, plugin_names


def load_dataset(name: str, data: Path, allow_missing: bool = False) -> Samples:
    """All rows of dataset `name`, <module> or <module>-<variant>, whose files lie at `data`.

    allow_missing: take what is there, and record what is not. Raises UnknownNameError
    listing the datasets, MissingFileError, InputError.
    """
    from store.inputs.published import load_published  # it needs this package's base.py first

    found = find_dataset(name)
    if isinstance(found, Published):
        return load_published(found, data, allow_missing)
    samples: Samples = found.load(data, allow_missing)
    return samples


def prepare_dataset(name: str, data: Path) -> dict[str, float]:
    """Let a dataset that can make its own files make those that are missing; seconds by phase.

    A dataset without `prepare` needs nothing; finished work costs nothing again, and its seconds are
    those that it took.
    """
    found = find_dataset(name)
    seconds: dict[str, float] = found.prepare(data) if hasattr(found, "prepare") else {}
    return seconds


def dataset_names() -> list[str]:
    """Every name that DATASET=... may be, sorted."""
    return sorted(_all_datasets())


def find_dataset(name: str) -> Published | ModuleType:
    """The published dataset, or the module of a dataset of one's own; raises UnknownNameError listing all."""
    found = _all_datasets()
    check_name("dataset", name, found)
    return found[name]


def _all_datasets() -> dict[str, Published | ModuleType]:
    folder = sys.modules[__name__]
    found: dict[str, Published | ModuleType] = {}
    for name in plugin_names(folder):
        module = load_plugin(folder, "dataset", name)
        if hasattr(module, "VARIANTS"):
            found.update({dataset.name: dataset for dataset in module.VARIANTS.values()})
        else:
            found[name] = module
    return found
