"""The demo as a dataset of actions: of each of its clips the moment that shows the described object, to be
recognised by its motion.

As in published datasets of actions, a clip is cut to what happens in it. In a whole clip of the demo two of
three frames show other objects that move as well.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from store.errors import MissingFileError
from store.inputs.datasets import table
from store.inputs.datasets.demo import CARD, SEED, SPLIT_SIZES, with_motions
from store.inputs.demo_clips import TABLE, render, rendered_settings
from store.inputs.protocol import RECOGNITION
from store.inputs.samples import CLASS, Samples, Split

NEEDS = "nothing but a dump, which renders its clips"


def prepare(data: Path) -> dict[str, float]:
    """Render the clips that are missing at `data`; the seconds that all took."""
    sizes, seed = rendered_settings(data) or (SPLIT_SIZES, SEED)
    return {"render": render(data, sizes, seed, cut=True)}


def load(data: Path, allow_missing: bool = False) -> Samples:
    """The clips with their motions as classes, without captions; raises MissingFileError before `prepare`."""
    rendered = rendered_settings(data)
    if rendered is None or not (data / TABLE).is_file():
        raise MissingFileError(
            f"no {TABLE} at {data}; it needs {NEEDS}: make dump-teacher DATASET=demo_motions"
        )
    captioned = with_motions(table.load(data / TABLE, allow_missing), rendered[0])
    classes = tuple(text for text in captioned.texts if text.kind == CLASS)
    first = len(captioned.texts) - len(classes)
    return replace(
        captioned,
        name="demo_motions",
        card=replace(CARD, title="moments of one object in motion"),
        videos=tuple(
            replace(video, moment_s=None, label=None if video.label is None else video.label - first)
            for video in captioned.videos
        ),
        texts=classes,
        splits={
            name: Split(split.video, np.arange(len(classes))) for name, split in captioned.splits.items()
        },
        protocol=RECOGNITION,
        missing={what: count for what, count in captioned.missing.items() if what.endswith("videos")},
    )
