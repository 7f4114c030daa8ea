"""Whether the parts of a finished cache agree: tables with one another, views and teachers with the tables.

Every check yields (path, problem) and goes on; digests and checksums are `store.object_checks`'s business.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from store.contents import (
    array_problems,
    check_rows,
    check_view,
    read_plan,
    signal_contents,
    table_arrays,
    teacher_contents,
    view_contents,
)
from store.durable import read_json
from store.errors import DamagedCacheError
from store.inputs.samples import CLASS, TEXT_KINDS
from store.inputs.view import View
from store.kept_pixels import PIXEL_JPEG
from store.layout import TableCounts, TeacherPlan, expected_rows, plan_path, teacher_path, view_path
from store.object_checks import ShardCheck, name_rows
from store.sharded_rows import ShardedRows
from store.shards import RowsArray
from store.tables import read_batch_plan, read_column, read_strings
from store.untrusted import is_of

Problem = tuple[str, object]
BLOCK_ROWS = 4096
ERROR_RANGES = {
    "relative_l2": (0.0, sys.float_info.max),
    "max_abs": (0.0, sys.float_info.max),
    "mean_cosine": (-1.001, 1.001),
    "min_cosine": (-1.001, 1.001),
}


class ShardTable:
    """What the shards of every array held, by array; `arrays` are those that the manifests list."""

    def __init__(self, arrays: Mapping[str, RowsArray], checks: list[ShardCheck]) -> None:
        self.arrays = arrays
        self._by_array: dict[str, list[ShardCheck]] = {}
        for check in checks:
            self._by_array.setdefault(check.array, []).append(check)

    def below(self, folder: str) -> list[str]:
        return [path for path in self.arrays if path.startswith(f"{folder}/")]

    def is_whole(self, folder: str) -> bool:
        """Whether no shard below `folder` has a problem."""
        return not any(c.problems for path in self.below(folder) for c in self._by_array.get(path, ()))

    def coverage(self, path: str, expected: np.ndarray | None) -> Iterator[Problem]:
        """Hold the rows present in the array at `path` to `expected`, bool [rows]; None: any may be."""
        array, checks = self.arrays[path], self._by_array.get(path, [])
        if len(checks) != array.shard_count:
            yield path, f"has {array.shard_count} shards, the manifest lists {len(checks)}"
            return
        for check in checks:
            if check.present is None or expected is None:
                continue
            first = check.number * (array.shard_rows or 0)
            wanted = expected[first : first + len(check.present)]
            missing = first + np.flatnonzero(wanted & ~check.present)
            surplus = first + np.flatnonzero(check.present & ~wanted)
            if len(missing):
                yield path, f"lacks {name_rows(missing)}: neither written nor listed as a failure"
            if len(surplus):
                yield path, f"has {name_rows(surplus)}, of a failed video or a text without one"


def check_tables(root: Path, dataset: Mapping[str, Any]) -> Iterator[Problem]:
    """Lengths, strings, unique ids, texts' videos, splits; yields every problem."""
    problems = list(array_problems(root, table_arrays(dataset)))
    yield from problems
    if problems:
        return
    ids, texts = read_strings(root, "videos/id"), read_strings(root, "texts/text")
    if len(set(ids)) != len(ids):
        yield "videos/id_utf8", "holds an id twice"
    empty = np.array([row for row, text in enumerate(texts) if not text.strip()], dtype=np.int64)
    if len(empty):
        yield "texts/text_utf8", f"{name_rows(empty)} is empty"
    own, kind = read_column(root, "texts/video"), read_column(root, "texts/kind")
    check_rows("texts/video", own, -1, len(ids))
    label = check_rows("videos/class", read_column(root, "videos/class"), -1, len(texts))
    labelled = np.flatnonzero(label >= 0)
    wrong = labelled[kind[label[labelled]] != TEXT_KINDS.index(CLASS)]
    if len(wrong):
        yield "videos/class", f"{name_rows(wrong)}: a video's class is a text that is no class"
    check_rows("texts/kind", kind.astype(np.int64), 0, len(TEXT_KINDS))
    odd = np.flatnonzero((own == -1) != (kind == TEXT_KINDS.index(CLASS)))
    if len(odd):
        yield "texts/kind", f"{name_rows(odd)}: a caption has a video, a class name has none"
    for split in dataset["splits"]:
        yield from _check_split(root, f"splits/{split}", len(ids), own)


def _check_split(root: Path, path: str, videos: int, text_video: np.ndarray) -> Iterator[Problem]:
    rows = {"video": (videos, read_column(root, f"{path}/video"))}
    rows["text"] = (len(text_video), read_column(root, f"{path}/text"))
    for column, (count, found) in rows.items():
        check_rows(f"{path}/{column}", found, 0, count)
        if (found[1:] <= found[:-1]).any():
            yield f"{path}/{column}", "is not ascending, each row once"
    own = text_video[rows["text"][1]]
    strangers = np.flatnonzero(~np.isin(own, rows["video"][1]) & (own >= 0))
    if len(strangers):
        yield f"{path}/text", f"{name_rows(strangers)}: the text's video is not in the split"


def check_view_group(root: Path, view: View, videos: int, shards: ShardTable) -> Iterator[Problem]:
    """The view's attributes, its facts of every video, and that its arrays have a row a decoded video."""
    path = view_path(view.name)
    contents = view_contents(root, view, videos)
    problems = list(array_problems(root, contents))
    yield from problems
    if problems:
        return
    attributes = check_view(root, view)
    failed, reasons = read_column(root, f"{path}/failed"), read_strings(root, f"{path}/failure")
    read_strings(root, f"{path}/decoding_route")
    if attributes.get("failures") != int(failed.sum()):
        yield f"{path}/zarr.json", f"states {attributes.get('failures')} failures, {failed.sum()} are listed"
    odd = np.flatnonzero(failed != np.array([bool(reason) for reason in reasons], dtype=bool))
    if len(odd):
        yield f"{path}/failure_utf8", f"{name_rows(odd)}: a failure has a reason, and nothing else has"
    if (read_column(root, f"{path}/duration_s") < 0).any():
        yield f"{path}/duration_s", "holds a negative duration"
    if (read_column(root, f"{path}/skipped_packets") < 0).any():
        yield f"{path}/skipped_packets", "holds a negative count"
    for name in contents:
        if shards.arrays[name].shard_rows is not None:
            is_block = name.endswith(f"/{PIXEL_JPEG}")  # its rows are pieces of JPEGs, not videos
            yield from shards.coverage(name, None if is_block else ~failed)
    if shards.is_whole(path):
        yield from _check_frames(root, path, np.flatnonzero(~failed))


def _check_frames(root: Path, path: str, rows: np.ndarray) -> Iterator[Problem]:
    """Every decoded video has a valid frame, and every valid frame a time."""
    times, valid = ShardedRows(root, f"{path}/frame_time_s"), ShardedRows(root, f"{path}/frame_valid")
    rows = rows[times.present[rows] & valid.present[rows]]
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        valid_VRM, times_VRM = valid.read(block), times.read(block)
        blind = block[~valid_VRM.reshape(len(block), -1).any(axis=1)]
        timeless = block[(valid_VRM & ~np.isfinite(times_VRM)).reshape(len(block), -1).any(axis=1)]
        if len(blind):
            yield f"{path}/frame_valid", f"{name_rows(blind)} decoded and has no valid frame"
        if len(timeless):
            yield f"{path}/frame_time_s", f"{name_rows(timeless)} has a valid frame without a time"


def check_plan_group(root: Path, name: str, counts: TableCounts) -> Iterator[Problem]:
    """The batch plan fits its attributes, and its rows are rows of the tables."""
    plan = read_batch_plan(root, name)
    check_rows(f"{plan_path(name)}/video", plan.video.reshape(-1), 0, counts.videos)
    check_rows(f"{plan_path(name)}/text", plan.text.reshape(-1), 0, counts.texts)
    own = read_column(root, "texts/video")
    if (own[plan.text] != plan.video).any():
        yield f"{plan_path(name)}/video", "is not the video of the text beside it"


def check_teacher_group(
    root: Path, teacher: str, counts: TableCounts, shards: ShardTable
) -> Iterator[Problem]:
    """The teacher's attributes and that every signal has a row for whatever did not fail."""
    path, plan = teacher_path(teacher), read_plan(root, teacher)
    expected = teacher_contents(root, plan, counts)
    problems = list(array_problems(root, expected))
    yield from problems
    for stray in sorted(set(shards.below(path)) - set(expected)):
        yield f"{stray}/zarr.json", "is an array of no signal of this teacher"
    if problems:
        return
    check_view(root, plan.view)
    if plan.to_dict()["pair_scores"] != read_json(root / path / "zarr.json")["attributes"].get("pair_scores"):
        yield f"{path}/zarr.json", "states pair scores that do not follow from its signals"
    usable = ~read_column(root, f"{view_path(plan.view.name)}/failed")
    own = read_column(root, "texts/video")
    for spec in plan.signals:
        yield from _check_errors(root, plan, spec.name)
        rows = expected_rows(spec, usable, own, counts)
        for array in signal_contents(root, plan, spec, counts):
            if shards.arrays[array].shard_rows is not None:
                yield from shards.coverage(array, rows)
            elif not np.isfinite(read_column(root, array)).all():
                yield array, "holds a value that is not finite"


def _check_errors(root: Path, plan: TeacherPlan, signal: str) -> Iterator[Problem]:
    """The measured error of the encoding is there and is a number that can be one."""
    path = f"{teacher_path(plan.name)}/{signal}/zarr.json"
    attributes = read_json(root / path)["attributes"]
    for name, (low, high) in ERROR_RANGES.items():
        error = attributes.get(f"encoding_{name}")
        if not is_of(error, float) or not low <= error <= high:
            yield path, f"encoding_{name} is {error!r}, not a number from {low} to {high}"


def view_of(root: Path, name: str) -> View:
    """The view that the group views/<name> describes; raises DamagedCacheError if it is another's."""
    attributes = read_json(root / view_path(name) / "zarr.json")["attributes"]
    view = View.from_dict(attributes.get("view"))
    if view.name != name:
        raise DamagedCacheError(f"{view_path(name)}/zarr.json describes view {view.name!r}; pull it again")
    return view
