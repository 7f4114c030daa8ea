"""The datasets: one module each, whose name is the dataset's (contract: base.py)."""

from __future__ import annotations

import sys
from pathlib import Path

from store.inputs.samples import Samples
from store.lookup import load_plugin


def load_dataset(name: str, data: Path) -> Samples:
    """All rows of dataset `name` whose files lie at `data`.

    Raises UnknownNameError listing the datasets, MissingFileError, InputError.
    """
    samples: Samples = load_plugin(sys.modules[__name__], "dataset", name).load(data)
    return samples


def prepare_dataset(name: str, data: Path) -> dict[str, float]:
    """Let a dataset that can make its own files make those that are missing; seconds by phase.

    A dataset without `prepare` needs nothing; finished work costs nothing again, and its seconds are
    those that it took.
    """
    module = load_plugin(sys.modules[__name__], "dataset", name)
    seconds: dict[str, float] = module.prepare(data) if hasattr(module, "prepare") else {}
    return seconds
