"""Whether the parts of a finished cache agree: tables with one another, views and teachers with the tables.

Every check yields (path, problem) and goes on; digests and checksums are `store.object_checks`'s business.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from store.contents import (
    array_problems,
    check_rows,
    check_view,
    signal_contents,
    table_arrays,
    teacher_contents,
    view_contents,
)
from store.durable import read_json
from store.errors import DamagedCacheError
from store.inputs.samples import CLASS, TEXT_KINDS, Split
from store.inputs.view import View
from store.kept_pixels import PIXEL_JPEG, check_spans
from store.layout import TableCounts, TeacherPlan, expected_rows, plan_path
from store.object_checks import ShardCheck, name_rows
from store.parts import Group, segment_folder
from store.publication import usable_videos
from store.segments import Tables
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
        """Whether every shard below `folder` is here, without a problem."""
        checks = [check for path in self.below(folder) for check in self._by_array.get(path, ())]
        return not any(check.problems or check.present is None for check in checks)

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


def check_tables(tables: Tables) -> Iterator[Problem]:
    """Lengths, strings, unique ids, texts' videos, splits, digests of segments; yields every problem."""
    problems = list(array_problems(tables.root, table_arrays(tables.datasets)))
    yield from problems
    if problems:
        return
    ids, texts = tables.video_ids, tables.texts
    if len(set(ids)) != len(ids):
        yield "videos/id_utf8", "holds an id twice"
    empty = np.array([row for row, text in enumerate(texts) if not text.strip()], dtype=np.int64)
    if len(empty):
        yield "texts/text_utf8", f"{name_rows(empty)} is empty"
    own, kind, label = tables.text_video, tables.text_kind, tables.video_class
    labelled = np.flatnonzero(label >= 0)
    wrong = labelled[kind[label[labelled]] != TEXT_KINDS.index(CLASS)]
    if len(wrong):
        yield "videos/class", f"{name_rows(wrong)}: a video's class is a text that is no class"
    odd = np.flatnonzero((own == -1) != (kind == TEXT_KINDS.index(CLASS)))
    if len(odd):
        yield "texts/kind", f"{name_rows(odd)}: a caption has a video, a class name has none"
    for name in tables.dataset["splits"]:
        yield from _check_split(f"splits/{name}", tables.split(name), own)
    yield from _check_digests(tables)


def _check_split(path: str, split: Split, text_video: np.ndarray) -> Iterator[Problem]:
    for column, found in (("video", split.video), ("text", split.text)):
        if (found[1:] <= found[:-1]).any():
            yield f"{path}/{column}", "is not ascending, each row once"
    own = text_video[split.text]
    strangers = np.flatnonzero(~np.isin(own, split.video) & (own >= 0))
    if len(strangers):
        yield f"{path}/text", f"{name_rows(strangers)}: the text's video is not in the split"


def _check_digests(tables: Tables) -> Iterator[Problem]:
    """The digests by which a dataset is known are those of the rows that are stored."""
    stated = [segment["sha256"] for segment in tables.dataset["segments"]]
    for number, (found, said) in enumerate(zip(tables.segment_digests(), stated, strict=True)):
        if found != said:
            where = f"{segment_folder(number)}zarr.json"
            yield where, f"states sha256 {said} for the rows of segment {number}, they have {found}"
            return  # the chain breaks here, what follows is another's for that reason alone
    for number, dataset in enumerate(tables.datasets):
        as_of_then = Tables(tables.root, tables.datasets[: number + 1])
        if as_of_then.splits_digest() != dataset["splits_sha256"]:
            where = f"{segment_folder(number)}zarr.json"
            yield where, "states a splits_sha256 that is not that of the splits"


def check_view_group(root: Path, view: View, videos: int, path: str, shards: ShardTable) -> Iterator[Problem]:
    """The view's attributes, its facts of every video, and that its arrays have a row a decoded video."""
    contents = view_contents(root, view, videos, path)
    problems = list(array_problems(root, contents))
    yield from problems
    if problems:
        return
    attributes = check_view(root, view, path)
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
        if f"{path}/{PIXEL_JPEG}" in contents:
            yield from check_spans(root, path)


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


def check_plan_group(tables: Tables, name: str) -> Iterator[Problem]:
    """The batch plan fits its attributes, and its rows are rows of the tables."""
    plan = read_batch_plan(tables.root, name)
    check_rows(f"{plan_path(name)}/video", plan.video.reshape(-1), 0, tables.dataset["videos"])
    check_rows(f"{plan_path(name)}/text", plan.text.reshape(-1), 0, tables.dataset["texts"])
    own = tables.text_video
    if (own[plan.text] != plan.video).any():
        yield f"{plan_path(name)}/video", "is not the video of the text beside it"


def check_teacher_group(
    tables: Tables, plan: TeacherPlan, counts: TableCounts, shards: ShardTable
) -> Iterator[Problem]:
    """The teacher's attributes and that every signal has a row for whatever did not fail.

    plan: of the teacher, or of one part of it, over the rows that `counts` tells of.
    """
    root, path = tables.root, plan.path
    expected = teacher_contents(root, plan, counts)
    problems = list(array_problems(root, expected))
    yield from problems
    for stray in sorted(set(shards.below(path)) - set(expected)):
        yield f"{stray}/zarr.json", "is an array of no signal of this teacher"
    if problems:
        return
    check_view(root, plan.view, plan.view_path)
    if plan.to_dict()["pair_scores"] != read_json(root / path / "zarr.json")["attributes"].get("pair_scores"):
        yield f"{path}/zarr.json", "states pair scores that do not follow from its signals"
    usable = usable_videos(root, plan.view.name, plan.part.segment)
    own = tables.text_video[counts.first_text : counts.first_text + counts.texts]
    for spec in plan.signals:
        yield from _check_errors(root, plan, spec.name)
        for array in signal_contents(root, plan, spec, counts):
            if shards.arrays[array].shard_rows is not None:
                rows = expected_rows(spec, usable, own, counts, array.rpartition("/")[2])
                yield from shards.coverage(array, rows)
            elif not np.isfinite(read_column(root, array)).all():
                yield array, "holds a value that is not finite"


def _check_errors(root: Path, plan: TeacherPlan, signal: str) -> Iterator[Problem]:
    """The measured error of the encoding is there and is a number that can be one."""
    path = f"{plan.path}/{signal}/zarr.json"
    attributes = read_json(root / path)["attributes"]
    for name, (low, high) in ERROR_RANGES.items():
        error = attributes.get(f"encoding_{name}")
        if not is_of(error, float) or not low <= error <= high:
            yield path, f"encoding_{name} is {error!r}, not a number from {low} to {high}"


def view_of(root: Path, group: Group) -> View:
    """The view that `group` describes; raises DamagedCacheError if it is another's."""
    attributes = read_json(root / group.path / "zarr.json")["attributes"]
    view = View.from_dict(attributes.get("view"))
    if view.name != group.name:
        raise DamagedCacheError(f"{group.path}/zarr.json describes view {view.name!r}; pull it again")
    return view
