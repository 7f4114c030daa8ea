"""The embedded demo: clips of a little world, rendered on this machine from a seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from store.inputs.datasets import table
from store.inputs.demo_clips import TABLE, render, rendering_seconds
from store.inputs.samples import DatasetCard, Samples

NEEDS = "nothing: the clips are rendered where they are missing"

SPLIT_SIZES = {"train": 800, "val": 200, "test": 500}
CARD = DatasetCard(
    "scenes of one object that is in focus for a moment, with captions", "CC0-1.0", "rendered by this project"
)


def prepare(data: Path) -> dict[str, float]:
    """Render the clips at `data` unless a table of clips lies there; the seconds it took, then or now."""
    if (data / TABLE).exists():
        return rendering_seconds(data)
    return {"render": render(data, SPLIT_SIZES)}


def load(data: Path) -> Samples:
    """The rows of the rendered table."""
    return replace(table.load(data / TABLE), name="demo", card=CARD)
