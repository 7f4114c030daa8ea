"""The embedded demo: clips of a little world, rendered on this machine from a seed.

It can be retrieved by captions and recognised by motion: after the captions come six class names, which no
split lists, so that they are nobody's candidates in retrieval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from store.errors import MissingFileError
from store.inputs.datasets import table
from store.inputs.demo_clips import TABLE, clip_name, render, rendered_settings
from store.inputs.samples import CLASS, DatasetCard, Samples, Text
from store.inputs.scenes import MOTIONS, Scene, described_scenes

NEEDS = "nothing but a dump, which renders its clips"

SEED = 0
NAME_ALONE = "{}"
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
    samples = replace(table.load(data / TABLE, allow_missing), name="demo", card=CARD)
    rendered = rendered_settings(data)
    return samples if rendered is None else with_motions(samples, rendered[0])


def with_motions(samples: Samples, sizes: Mapping[str, int]) -> Samples:
    """The rows, with the motion of what each clip of `sizes` {split: count} describes as its class."""
    first = len(samples.texts)
    label = {name: first + number for number, name in enumerate(MOTIONS)}
    motions = {
        clip_name(split, place): Scene.number(int(scene)).motion
        for split, count in sizes.items()
        for place, scene in enumerate(described_scenes(split, count))
    }
    videos = tuple(replace(video, label=label[motions[video.id]]) for video in samples.videos)
    classes = tuple(Text(words[0], -1, CLASS) for words in MOTIONS.values())
    return replace(samples, videos=videos, texts=(*samples.texts, *classes), prompts=(NAME_ALONE,))
