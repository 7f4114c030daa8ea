"""A small, real cache of made-up signals from which a student learns something within a second.

Each video has a meaning; its visible frames show it together with a marker that says so, the others show
some other meaning. Texts tell the meaning with noise. The teacher knows meanings and visible frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from store.inputs.samples import DatasetCard, Samples, Split, Text, Video
from store.inputs.view import View
from store.layout import TeacherPlan
from store.signals import SignalSpec
from store.writer import CacheWriter
from tests.synthetic_cache import shard_commits

FRAMES, WIDTH, VISIBLE = 6, 16, 2
SIGNALS = (
    SignalSpec("frame_embedding", {"R": 1, "M": FRAMES, "D": WIDTH}),
    SignalSpec("text_embedding", {"D": WIDTH}),
    SignalSpec("frame_relevance", {"R": 1, "M": FRAMES}, attributes={"temperature": 0.2}),
    SignalSpec("video_text_logits", {}, attributes={"logit_scale": 20.0}),
)
SPLITS = {"train": 48, "val": 20, "test": 40}


def learnable_samples(
    splits: Mapping[str, int] = SPLITS, captions: int = 1, known_moments: bool = True
) -> Samples:
    """`splits`: videos of each split. A frame comes every second, two of six show the described thing."""
    count = sum(splits.values())
    first_visible = np.random.default_rng(0).integers(0, FRAMES - VISIBLE + 1, count).tolist()
    moments = [(first, first + VISIBLE) if known_moments else None for first in first_visible]
    videos = tuple(
        Video(f"clip_{row:03d}", Path(f"clip_{row:03d}.mp4"), moment) for row, moment in enumerate(moments)
    )
    texts = tuple(
        Text(f"meaning {row}, told {n} times before", row) for row in range(count) for n in range(captions)
    )
    bounds = np.cumsum([0, *splits.values()]).tolist()
    rows = {
        name: Split(np.arange(start, stop), np.arange(start * captions, stop * captions))
        for name, start, stop in zip(splits, bounds, bounds[1:], strict=False)
    }
    return Samples("meanings", DatasetCard("made in a test", "CC0-1.0", "none"), videos, texts, rows)


def learnable_values(samples: Samples) -> dict[str, np.ndarray]:
    """float32 values of every signal."""
    rng = np.random.default_rng(1)
    count = len(samples.videos)
    own = np.array([text.video for text in samples.texts])
    first_visible = np.random.default_rng(0).integers(0, FRAMES - VISIBLE + 1, count)
    since_VM = np.arange(FRAMES) - first_visible[:, None]
    visible_VM = (since_VM >= 0) & (since_VM < VISIBLE)
    meaning_VD, marker_D = rng.normal(size=(count, WIDTH)), rng.normal(size=WIDTH)
    turn_DD = 0.5 * np.eye(WIDTH) + 0.5 * np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    frames_VMD = rng.normal(size=(count, FRAMES, WIDTH))
    frames_VMD[visible_VM] = np.repeat(meaning_VD, VISIBLE, axis=0) + marker_D
    told_TD = meaning_VD[own] + 0.2 * rng.normal(size=(len(own), WIDTH))
    values = {
        "frame_embedding": frames_VMD[:, None],
        "text_embedding": told_TD @ turn_DD,
        "frame_relevance": (visible_VM[own] + 0.1 * rng.normal(size=(len(own), FRAMES)))[:, None],
        "video_text_logits": 20 * unit(meaning_VD) @ unit(told_TD).T,
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_learnable_cache(
    root: Path,
    samples: Samples | None = None,
    failed: frozenset[int] = frozenset(),
    signals: tuple[SignalSpec, ...] = SIGNALS,
    teachers: tuple[str, ...] = ("oracle",),
    shard_rows: int | None = None,
) -> Path:
    """A complete cache at `root`; videos in `failed` are listed failures. shard_rows: None for one shard."""
    samples = samples or learnable_samples()
    values = learnable_values(samples)
    with CacheWriter(root, samples) as writer:
        for teacher in teachers:
            plan = learnable_plan(samples, teacher, signals, shard_rows)
            writer.plan(plan)
            tasks = []
            for commit in shard_commits(root, samples, plan, failed, values):
                tasks.append(commit.task)
                writer.commit(commit)
            writer.complete(plan, tasks)
    return root


def learnable_plan(
    samples: Samples, teacher: str, signals: tuple[SignalSpec, ...], shard_rows: int | None = None
) -> TeacherPlan:
    rows = shard_rows or len(samples.texts)
    phases = {spec.name: spec.row_axis for spec in signals}
    execution = {"phase_of": phases, "shard_rows": {"V": rows, "T": rows, "videos": rows}}
    identity = {"weights_sha256": "0" * 64, "logit_scale": 20.0}
    return TeacherPlan(teacher, identity, View(f"{teacher}_view", FRAMES, 8), signals, execution, {})
