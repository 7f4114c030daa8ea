"""The embedded demo: clips of a little world, rendered on this machine from a seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from store.errors import MissingFileError
from store.inputs.datasets import table
from store.inputs.demo_clips import TABLE, render, rendered_settings
from store.inputs.samples import DatasetCard, Samples

NEEDS = "nothing but a dump, which renders its clips"

SEED = 0
SPLIT_SIZES = {"train": 800, "val": 200, "test": 500}
CARD = DatasetCard(
    "scenes of one object that is in focus for a moment, with captions", "CC0-1.0", "rendered by this project"
)


def prepare(data: Path) -> dict[str, float]:
    """Render the clips that are missing at `data`; the seconds that all took. A foreign table stays."""
    rendered = rendered_settings(data)
    if (data / TABLE).exists() and rendered is None:
        return {}
    sizes, seed = rendered or (SPLIT_SIZES, SEED)
    return {"render": render(data, sizes, seed)}


def load(data: Path, allow_missing: bool = False) -> Samples:
    """The rows of the rendered table; raises MissingFileError before `prepare`."""
    if not (data / TABLE).is_file():
        raise MissingFileError(
            f"no {TABLE} at {data}; DATASET=demo needs {NEEDS}: make dump-teacher DATASET=demo"
        )
    return replace(table.load(data / TABLE, allow_missing), name="demo", card=CARD)
