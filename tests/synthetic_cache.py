"""A small cache written through the store alone: no teacher, no video, every number from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from store.calibration import Moments, SignalCodec, fit
from store.durable import ObjectRecord
from store.inputs.samples import DatasetCard, Samples, Split, Text, Video
from store.inputs.view import View
from store.layout import (
    TableCounts,
    TeacherPlan,
    expected_rows,
    part_path,
    signal_arrays,
    teacher_path,
    view_arrays,
    view_path,
)
from store.ledger import Commit, VideoFacts
from store.shards import RowsArray, ShardFile
from store.signals import Reduction, SignalSpec
from store.tables import write_column
from store.writer import CacheWriter

FRAMES, WIDTH = 4, 8
SIGNALS = (
    SignalSpec("frame_embedding", {"R": 1, "M": FRAMES, "D": WIDTH}),
    SignalSpec("vit_layers/1", {"R": 1, "M": FRAMES, "L": 3, "D": 2}),
    SignalSpec("text_embedding", {"D": WIDTH}),
    SignalSpec("frame_relevance", {"R": 1, "M": FRAMES}, attributes={"temperature": 0.1}),
    SignalSpec("video_text_logits", {}, attributes={"logit_scale": 20.0}),
)


def synthetic_samples(videos: int = 12, captions: int = 1, name: str = "synthetic") -> Samples:
    """`videos` videos, the last quarter in split test, the quarter before in val, the rest in train."""
    rows = tuple(Video(f"clip_{row:03d}", Path(f"clip_{row:03d}.mp4"), (0.0, 2.0)) for row in range(videos))
    texts = tuple(
        Text(f"caption {number} of clip {row}", row) for row in range(videos) for number in range(captions)
    )
    bounds = {
        "train": (0, videos // 2),
        "val": (videos // 2, videos * 3 // 4),
        "test": (videos * 3 // 4, videos),
    }
    splits = {
        split: Split(np.arange(start, stop), np.arange(start * captions, stop * captions))
        for split, (start, stop) in bounds.items()
    }
    return Samples(name, DatasetCard("made in a test", "CC0-1.0", "none"), rows, texts, splits)


def synthetic_plan(
    samples: Samples,
    teacher: str = "synthetic",
    shard_rows: int = 5,
    signals: tuple[SignalSpec, ...] = SIGNALS,
) -> TeacherPlan:
    phases = {spec.name: spec.row_axis for spec in signals}
    execution = {"phase_of": phases, "shard_rows": dict.fromkeys(("V", "T", "S", "videos"), shard_rows)}
    identity = {"weights_sha256": "0" * 64, "logit_scale": 20.0}
    return TeacherPlan(teacher, identity, View("uniform_4x8", FRAMES, 8), signals, execution, {"numpy": "2"})


def synthetic_values(
    samples: Samples, signals: tuple[SignalSpec, ...] = SIGNALS, seed: int = 0
) -> dict[str, np.ndarray]:
    """Values of every signal, float32; the frame features of a video resemble its texts."""
    counts = TableCounts(len(samples.videos), len(samples.texts))
    generator = np.random.default_rng(seed)
    values = {}
    for spec in signals:
        whole = replace(spec, encoding=spec.kind.encodings[0], reduction=Reduction())
        values[spec.name] = generator.normal(size=signal_arrays(whole, counts, 1)[""].shape).astype(
            np.float32
        )
    if {"frame_embedding", "text_embedding"} <= set(values):
        own = np.array([text.video for text in samples.texts])
        values["text_embedding"] += 2 * values["frame_embedding"][own].mean((1, 2))
    return values


Task = tuple[str, str, int]
"""What is written, of which signal or view array, and the shard's number."""


def shard_tasks(samples: Samples, plan: TeacherPlan) -> list[Task]:
    """Everything to be written, in an order in which it can be."""
    counts = TableCounts(len(samples.videos), len(samples.texts))
    shard_rows = plan.execution["shard_rows"]["V"]
    tasks = [("fitted", spec.name, 0) for spec in plan.signals if spec.is_calibrated]
    for spec in plan.signals:
        arrays = signal_arrays(spec, counts, shard_rows)
        tasks += [("signal", spec.name, number) for number in range(next(iter(arrays.values())).shard_count)]
    for name, array in view_arrays(plan.view, counts.videos, shard_rows).items():
        tasks += [("view", name, number) for number in range(array.shard_count)]
    return [*tasks, ("facts", "", 0)]


def run_task(
    root: Path,
    samples: Samples,
    plan: TeacherPlan,
    task: Task,
    failed: frozenset[int] = frozenset(),
    values: dict[str, np.ndarray] | None = None,
) -> Commit:
    """Write one task's objects; equal arguments give equal bytes, in any process."""
    what, name, number = task
    counts = TableCounts(len(samples.videos), len(samples.texts))
    shard_rows = plan.execution["shard_rows"]["V"]
    usable = np.array([row not in failed for row in range(counts.videos)])
    done = f"{plan.name}/{what} {name}/{number}"
    if what == "facts":
        reasons = ["broken file" if row in failed else "" for row in range(counts.videos)]
        facts = (VideoFacts(row, reason, 4.0, "random_access") for row, reason in enumerate(reasons))
        return Commit(done, (), {}, tuple(facts))
    if what == "view":
        array = view_arrays(plan.view, counts.videos, shard_rows)[name]
        filled = np.ones(array.shape, array.dtype)
        if name == "frame_time_s":
            filled[:] = np.arange(plan.view.frames)
        path = f"{view_path(plan.view.name)}/{name}"
        stored = filled[number * shard_rows :]
        return Commit(done, (write_shard(root, path, array, number, stored, usable),))
    spec = next(spec for spec in plan.signals if spec.name == name)
    path = f"{teacher_path(plan.name)}/{name}"
    whole = (values or synthetic_values(samples, plan.signals))[name]
    fitted = fitted_numbers(spec, whole)
    if what == "fitted":
        written = [
            record
            for column_name, column in fitted.items()
            for record in write_column(root, f"{path}/{column_name}", column, ("D_full", "D")[-column.ndim :])
        ]
        return Commit(done, tuple(written))
    own_video = np.array([text.video for text in samples.texts])
    there = expected_rows(spec, usable, own_video, counts)
    rows = np.arange(number * shard_rows, min((number + 1) * shard_rows, len(whole)))
    parts, error = SignalCodec(spec, fitted).encode(whole[rows], rows)
    records = [
        write_shard(root, part_path(path, part), array, number, parts[part], there)
        for part, array in signal_arrays(spec, counts, shard_rows).items()
    ]
    return Commit(done, tuple(records), {name: error})


def fitted_numbers(spec: SignalSpec, values: np.ndarray) -> dict[str, np.ndarray]:
    if not spec.is_calibrated:
        return {}
    moments = Moments(values.shape[-1], covariance=spec.reduction.width is not None)
    moments.add(values)
    return fit(spec, moments)


def write_shard(
    root: Path, path: str, array: RowsArray, number: int, stored: np.ndarray, there: np.ndarray
) -> ObjectRecord:
    assert array.shard_rows is not None
    first = number * array.shard_rows
    with ShardFile(root, path, array, number) as shard:
        for row in range(first, min(first + array.shard_rows, array.shape[0])):
            if there[row]:
                shard.append(row, stored[row - first])
        return shard.finish()


def shard_commits(
    root: Path,
    samples: Samples,
    plan: TeacherPlan,
    failed: frozenset[int] = frozenset(),
    values: dict[str, np.ndarray] | None = None,
) -> Iterator[Commit]:
    """Run every task of the plan, one after another; values: those of `synthetic_values` if not given."""
    for task in shard_tasks(samples, plan):
        yield run_task(root, samples, plan, task, failed, values)


def write_synthetic_cache(
    root: Path,
    samples: Samples | None = None,
    teacher: str = "synthetic",
    failed: frozenset[int] = frozenset(),
    **plan,
) -> Path:
    """A complete cache at `root`; video rows in `failed` are listed failures."""
    samples = samples or synthetic_samples()
    made = synthetic_plan(samples, teacher, **plan)
    with CacheWriter(root, samples) as writer:
        writer.plan(made)
        tasks = []
        for commit in shard_commits(root, samples, made, failed):
            tasks.append(commit.task)
            if commit.task not in writer.ledger:
                writer.commit(commit)
        writer.complete(made, tasks)
    return root
