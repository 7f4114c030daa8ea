"""What a finished cache consists of: which arrays, of which shape, and which rows of them.

`open_cache` and `verify` both ask here, so a cache that opens is one whose shapes follow from its tables,
and those from the size of files that are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from store.calibration import PROJECTION_BASIS, fitted_names
from store.durable import is_sha256, read_json
from store.errors import DamagedCacheError
from store.identity import require_same
from store.inputs.protocol import PROTOCOLS
from store.inputs.samples import NO, YES
from store.inputs.view import View
from store.kept_pixels import PIXEL_JPEG_SPAN, KeptPixels
from store.layout import (
    COMPLETE,
    TableCounts,
    TeacherPlan,
    group_json,
    part_path,
    signal_arrays,
    view_arrays,
)
from store.partial import Partial
from store.parts import FIRST, TEACHERS, Group, Part, segment_folder
from store.shards import RowsArray
from store.signals import SignalSpec
from store.tables import column_array
from store.untrusted import is_count, is_path_name, shown

CARD_FIELDS = ("name", "title", "licence", "source")


def read_attributes(root: Path, group: str) -> dict[str, Any]:
    """The attributes of the group `group` ("" for the root); raises DamagedCacheError if it is none."""
    file = root / group / "zarr.json"
    document = read_json(file) if file.is_file() else None
    attributes = document.get("attributes") if isinstance(document, dict) else None
    if not isinstance(attributes, dict) or document != group_json(attributes):
        where = f"{group}/zarr.json" if group else "zarr.json"
        raise DamagedCacheError(f"{where} of {root.name} is not a group of format 1; pull it again")
    return attributes


def check_dataset(dataset: Any) -> None:
    """Raise DamagedCacheError unless `dataset`, of the root's attributes, has its fields in their types."""
    fields = dataset if isinstance(dataset, dict) else {}
    prompts, missing, splits = (fields.get(key) for key in ("prompts", "missing", "splits"))
    sound = {
        **{key: isinstance(fields.get(key), str) for key in CARD_FIELDS},
        "share": fields.get("share", YES) in (YES, NO),
        "videos and texts": _has_counts(fields),
        "segments": _has_counts(fields) and _are_segments(fields.get("segments"), fields),
        "splits_sha256": is_sha256(fields.get("splits_sha256")),
        "protocol": fields.get("protocol") in PROTOCOLS,
        "prompts": isinstance(prompts, list) and all(isinstance(prompt, str) for prompt in prompts),
        "missing": isinstance(missing, dict) and all(type(count) is int for count in missing.values()),
        "splits": isinstance(splits, dict)
        and all(is_path_name(name) and _has_counts(split) for name, split in splits.items()),
    }
    if not all(sound.values()):
        wrong = ", ".join(field for field, is_sound in sound.items() if not is_sound)
        raise DamagedCacheError(
            f"the dataset in zarr.json says nothing usable of {wrong}; pull it again, or if an earlier "
            "release wrote it, dump it anew"
        )


def _are_segments(segments: Any, dataset: Mapping[str, Any]) -> bool:
    """Whether `segments` are runs of rows, one behind the other, over both tables from end to end."""
    if not isinstance(segments, list) or not segments:
        return False
    for segment in segments:
        if not isinstance(segment, dict) or not is_sha256(segment.get("sha256")):
            return False
    return all(
        _is_chain([segment.get(axis) for segment in segments], dataset[count])
        for axis, count in (("video", "videos"), ("text", "texts"))
    )


def _is_chain(runs: list[Any], count: int) -> bool:
    end = 0
    for run in runs:
        if not (
            isinstance(run, list) and len(run) == 2 and all(map(is_count, run)) and run[0] == end <= run[1]
        ):
            return False
        end = run[1]
    return end == count


def _has_counts(fields: Any) -> bool:
    return isinstance(fields, dict) and all(is_count(fields.get(key)) for key in ("videos", "texts"))


def table_arrays(datasets: Sequence[Mapping[str, Any]]) -> dict[str, RowsArray]:
    """The columns of the tables whose length the dataset's counts decide, by path.

    datasets: as the cache began, then with each segment that was appended.
    """
    found: dict[str, RowsArray] = {}
    before: Mapping[str, Any] = {"videos": 0, "texts": 0, "splits": {}}
    for number, dataset in enumerate(datasets):
        columns = _segment_columns(dataset, before)
        found |= {f"{segment_folder(number)}{path}": array for path, array in columns.items()}
        before = dataset
    return found


def _segment_columns(dataset: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, RowsArray]:
    videos, texts = dataset["videos"] - before["videos"], dataset["texts"] - before["texts"]
    found = {
        "videos/id_offset": RowsArray((videos + 1,), "int64", ("V_plus_1",), None),
        "videos/moment_s": RowsArray((videos, 2), "float32", ("V", "start_end"), None),
        "videos/class": RowsArray((videos,), "int64", ("V",), None),
        "texts/text_offset": RowsArray((texts + 1,), "int64", ("T_plus_1",), None),
        "texts/video": RowsArray((texts,), "int64", ("T",), None),
        "texts/kind": RowsArray((texts,), "uint8", ("T",), None),
    }
    for name, split in dataset["splits"].items():
        for column, axis in (("video", "V_of_split"), ("text", "T_of_split")):
            rows = split[f"{column}s"] - before["splits"].get(name, {}).get(f"{column}s", 0)
            found[f"splits/{name}/{column}"] = RowsArray((rows,), "int64", (axis,), None)
    return found


def table_counts(root: Path, dataset: Mapping[str, Any], groups: Iterable[str]) -> TableCounts:
    """Lengths of the row axes; the steps of a batch plan are as many as its stored rows."""
    plans = sorted(group for group in groups if group.startswith("plans/"))
    steps = {plan.split("/")[1]: _column(root, f"{plan}/text").shape[0] for plan in plans}
    return TableCounts(dataset["videos"], dataset["texts"], steps)


def _column(root: Path, path: str) -> RowsArray:
    try:
        return column_array(root, path)
    except FileNotFoundError as error:
        raise DamagedCacheError(f"{path} is missing ({error.strerror}); pull it again") from None


def view_contents(root: Path, view: View, videos: int, path: str) -> dict[str, RowsArray]:
    """Arrays and columns below `path` of a view over V videos, by path, the pixels that it keeps included.

    Of sharded ones, shard_rows means nothing. Raises DamagedCacheError if it can't tell of its pixels.
    """
    columns = {
        "failed": RowsArray((videos,), "bool", ("V",), None),
        "failure_offset": RowsArray((videos + 1,), "int64", ("V_plus_1",), None),
        "decoding_route_offset": RowsArray((videos + 1,), "int64", ("V_plus_1",), None),
        "duration_s": RowsArray((videos,), "float64", ("V",), None),
        "skipped_packets": RowsArray((videos,), "int64", ("V",), None),
    }
    told = read_attributes(root, path).get("pixels")
    kept, shard_rows = (None, 1) if told is None else (KeptPixels.from_dict(told), 1)
    if kept is not None and (root / path / PIXEL_JPEG_SPAN / "zarr.json").is_file():
        span = read_json(root / path / PIXEL_JPEG_SPAN / "zarr.json")
        shard_rows = RowsArray.from_zarr_json(span, f"{path}/{PIXEL_JPEG_SPAN}").shard_rows or 1
    arrays = {**columns, **view_arrays(view, videos, shard_rows, kept)}
    return {f"{path}/{name}": array for name, array in arrays.items()}


def signal_contents(
    root: Path, plan: TeacherPlan, spec: SignalSpec, counts: TableCounts
) -> dict[str, RowsArray]:
    """The arrays of one of the plan's signals, by path, and the columns fitted to it, axes not told.

    Of sharded ones, shard_rows means nothing. Raises DamagedCacheError if a projection has no basis.
    """
    path = f"{plan.path}/{spec.name}"
    found = {part_path(path, part): array for part, array in signal_arrays(spec, counts, 1).items()}
    for name in fitted_names(spec) if plan.part.segment == 0 else ():
        shape: tuple[int, ...] = (spec.sizes["D"],)
        if name.startswith("projection"):
            full = _column(root, f"{path}/{PROJECTION_BASIS}").shape[0]
            shape = (full, *shape) if name == PROJECTION_BASIS else (full,)
        found[f"{path}/{name}"] = RowsArray(shape, "float32", (), None)
    return found


def teacher_contents(root: Path, plan: TeacherPlan, counts: TableCounts) -> dict[str, RowsArray]:
    """The arrays of all signals of a teacher, by path; raises InputError where a batch plan is missing."""
    return {
        path: array
        for spec in plan.signals
        for path, array in signal_contents(root, plan, spec, counts).items()
    }


def array_problem(root: Path, path: str, expected: RowsArray) -> str | None:
    """What is wrong with the metadata of the array at `path`, in words; None if it is as expected.

    A column's file is held to its shape, so what passes is as large as what lies on the disk.
    """
    try:
        if expected.shard_rows is None:
            found = column_array(root, path)
        else:
            found = RowsArray.from_zarr_json(read_json(root / path / "zarr.json"), path)
    except FileNotFoundError as error:
        return f"is missing ({error.strerror})"
    except DamagedCacheError as error:
        return str(error)
    axes = expected.axes or found.axes
    wanted = (expected.shape, expected.dtype, axes, expected.shard_rows is None)
    if (found.shape, found.dtype, found.axes, found.shard_rows is None) != wanted:
        return (
            f"is {found.dtype}{list(found.shape)} over {','.join(found.axes)}, not "
            f"{expected.dtype}{list(expected.shape)} over {','.join(expected.axes)} as the tables "
            "and the plan say"
        )
    return _index_problem(root, path, found) if found.shard_rows else None


def _index_problem(root: Path, path: str, array: RowsArray) -> str | None:
    """Whether every shard is there and has room for its index: so many rows, then, were worth their bytes."""
    partial = Partial.read(root)
    for number in range(array.shard_count):
        name = f"{path}/{array.shard_path(number)}"
        file = root / name
        if partial.has(name) and (not file.is_file() or file.stat().st_size < array.index_bytes):
            return f"lacks shard {number} of {array.shard_count}, or it is shorter than its index"
    return None


def array_problems(root: Path, expected: Mapping[str, RowsArray]) -> Iterator[tuple[str, str]]:
    """(path, problem) of every array that is not as expected."""
    for path, array in expected.items():
        if problem := array_problem(root, path, array):
            yield path, problem


def require_arrays(root: Path, expected: Mapping[str, RowsArray]) -> None:
    """Raise DamagedCacheError naming the first array that is not as expected."""
    for path, problem in array_problems(root, expected):
        raise DamagedCacheError(f"{path} {problem}; pull the cache again")


def read_plan(root: Path, teacher: str, part: Part = FIRST) -> TeacherPlan:
    """The plan of a finished teacher, or of one part of it, held to its name and state.

    Raises DamagedCacheError.
    """
    path = Group(TEACHERS, teacher, part).path
    attributes = read_attributes(root, path)
    plan = TeacherPlan.from_dict(attributes, part)
    if plan.name != teacher or attributes.get("state") != COMPLETE:
        raise DamagedCacheError(
            f"{path}/zarr.json is of teacher {shown(plan.name)}, state "
            f"{shown(attributes.get('state'))}, not of a complete {teacher!r}; pull it again"
        )
    return plan


def check_view(root: Path, view: View, path: str) -> dict[str, Any]:
    """The attributes of the group `path`; raises IdentityError, DamagedCacheError if it is not of `view`."""
    attributes = read_attributes(root, path)
    require_same(
        {"view": attributes.get("view"), "state": attributes.get("state")},
        {"view": view.to_dict(), "state": COMPLETE},
        f"{path}/zarr.json of {root.name}",
        "pull the cache again",
    )
    return attributes


def check_rows(path: str, rows: np.ndarray, first: int, count: int) -> np.ndarray:
    """`rows` if all lie in [first, count); else raises DamagedCacheError naming the column `path`."""
    outside = (rows < first) | (rows >= count)
    if outside.any():
        place = int(np.argmax(outside))
        raise DamagedCacheError(
            f"{path}: entry {place} is {rows[place]}, not in [{first}, {count}); pull the cache again"
        )
    return rows
