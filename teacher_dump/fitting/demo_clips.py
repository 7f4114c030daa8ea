"""The clips that the demo's teachers are fitted on.

They show none of the scenes of the demo's test split; their val split is the demo's.
"""

from __future__ import annotations

from pathlib import Path

from store.inputs.demo_clips import WORLD_VERSION, render

DATASET = "demo"
DATA = Path("data/demo-fit")
SPLITS = {"train": 4000, "val": 200}
TOLD = {"world": WORLD_VERSION}


def prepare(data: Path) -> None:
    """Render those that are missing at `data`."""
    render(data, SPLITS)
