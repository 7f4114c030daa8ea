"""Metadata of groups and arrays, and the last act of a dump: manifests over what the ledger vouches for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from store.durable import ObjectRecord, canonical_json, record_file, write_file
from store.encodings import ErrorSum
from store.errors import IncompleteCacheError
from store.inputs.samples import Samples
from store.kept_pixels import PIXELS, psnr_db
from store.layout import (
    COMPLETE,
    TableCounts,
    TeacherPlan,
    expected_rows,
    group_json,
    part_path,
    signal_arrays,
    view_arrays,
    view_path,
)
from store.ledger import Commit
from store.manifest import Manifest
from store.sharded_rows import ShardedRows
from store.shards import RowsArray
from store.signals import SignalSpec, named_groups
from store.tables import read_column, write_video_facts

TO_FLOAT32 = "to float32: "
"""Before a signal's name in the errors of a task: not of its encoding, but of the teacher's precision."""


def write_group(root: Path, path: str, attributes: Mapping[str, Any]) -> ObjectRecord:
    """Write the zarr.json of the group at `path`."""
    file = root / path / "zarr.json"
    write_file(file, canonical_json(group_json(attributes)))
    return record_file(root, file)


def write_array(
    root: Path, path: str, array: RowsArray, attributes: Mapping[str, Any] | None = None
) -> ObjectRecord:
    """Write the zarr.json of the array at `path`."""
    file = root / path / "zarr.json"
    write_file(file, canonical_json(array.zarr_json(dict(attributes or {}))))
    return record_file(root, file)


def write_manifest(root: Path, path: str, records: Iterable[ObjectRecord]) -> str:
    """Write the manifest of the group at `path`; its digest."""
    manifest = Manifest.of(records)
    manifest.write(root / path)
    return manifest.digest


def planned_view_arrays(plan: TeacherPlan, counts: TableCounts) -> dict[str, RowsArray]:
    """The arrays of the plan's view, by name."""
    shard_rows = plan.execution["shard_rows"]["videos"]
    return view_arrays(plan.view, counts.videos, shard_rows, plan.kept_pixels)


def planned_signal_arrays(plan: TeacherPlan, spec: SignalSpec, counts: TableCounts) -> dict[str, RowsArray]:
    """The arrays of one of the plan's signals, by part ("" for the signal itself)."""
    shard_rows = plan.execution["shard_rows"][plan.execution["phase_of"][spec.name]]
    return signal_arrays(spec, counts, shard_rows)


def write_signal(
    root: Path,
    plan: TeacherPlan,
    spec: SignalSpec,
    counts: TableCounts,
    attributes: Mapping[str, Any] | None = None,
) -> list[ObjectRecord]:
    """Write the metadata of a signal; `attributes` stand at the signal itself, array or group."""
    path = f"{plan.path}/{spec.name}"
    arrays = planned_signal_arrays(plan, spec, counts)
    records = [] if "" in arrays else [write_group(root, path, attributes or {})]
    for part, array in arrays.items():
        records.append(write_array(root, part_path(path, part), array, {} if part else attributes))
    return records


def publish_view(root: Path, plan: TeacherPlan, counts: TableCounts, commits: Sequence[Commit]) -> str:
    """Complete the view's metadata and manifest; its digest.

    Raises IncompleteCacheError for a video that was neither written nor listed as a failure.
    """
    path = plan.view_path
    facts = {video.row: video for commit in commits for video in commit.videos}
    rows = range(counts.first_video, counts.first_video + counts.videos)
    if sorted(facts) != list(rows):
        row = next(row for row in rows if row not in facts)
        raise IncompleteCacheError(f"video row {row} was neither written nor listed as a failure; resume")
    ordered = [facts[row] for row in rows]
    records = _written_below(path, commits)
    records += [
        write_array(root, f"{path}/{name}", array)
        for name, array in planned_view_arrays(plan, counts).items()
    ]
    records += write_video_facts(root, path, ordered)
    attributes = {
        "view": plan.view.to_dict(),
        "state": COMPLETE,
        "dumped_with": plan.name,
        "pixels": pixel_facts(root, path, plan, commits),
        "failures": sum(bool(video.failure) for video in ordered),
    }
    records.append(write_group(root, path, attributes))
    return write_manifest(root, path, records)


def pixel_facts(root: Path, path: str, plan: TeacherPlan, commits: Sequence[Commit]) -> dict[str, Any] | None:
    """What the view tells of its kept frames: encoding, quality, frames, PSNR; None without any."""
    if plan.kept_pixels is None:
        return None
    error = sum((c.errors[PIXELS] for c in commits if PIXELS in c.errors), ErrorSum())
    valid = ShardedRows(root, f"{path}/frame_valid")
    frames = int(valid.read(np.flatnonzero(valid.present)).sum())
    values = frames * plan.view.size**2 * 3
    return {**plan.kept_pixels.to_dict(), "frames": frames, "psnr_db": psnr_db(error, values)}


def publish_teacher(
    root: Path, plan: TeacherPlan, samples: Samples, counts: TableCounts, commits: Sequence[Commit]
) -> str:
    """Complete the teacher's metadata, errors of its encodings included, and its manifest; its digest."""
    path = plan.path
    records = _written_below(path, commits)
    for spec in plan.signals:
        error = sum((c.errors[spec.name] for c in commits if spec.name in c.errors), ErrorSum())
        records += write_signal(root, plan, spec, counts, encoding_attributes(error))
    for group in named_groups([spec.name for spec in plan.signals]):
        records.append(write_group(root, f"{path}/{group}", {}))
    require_coverage(root, plan, samples, counts)
    attributes = {**plan.to_dict(), "state": COMPLETE, **precision_attributes(commits)}
    records.append(write_group(root, path, attributes))
    return write_manifest(root, path, records)


def precision_attributes(commits: Sequence[Commit]) -> dict[str, Any]:
    """What a teacher in half precision tells: by signal, how far it is from float32 on a sample."""
    errors: dict[str, ErrorSum] = {}
    for name, error in (item for commit in commits for item in commit.errors.items()):
        if name.startswith(TO_FLOAT32):
            signal = name.removeprefix(TO_FLOAT32)
            errors[signal] = errors.get(signal, ErrorSum()) + error
    told = {
        signal: {"relative_l2": error.relative_l2, "max_abs": error.max_abs_error}
        for signal, error in sorted(errors.items())
    }
    return {"difference_to_float32": told} if told else {}


def _written_below(path: str, commits: Iterable[Commit]) -> list[ObjectRecord]:
    return [record for commit in commits for record in commit.objects if record.path.startswith(path + "/")]


def require_coverage(root: Path, plan: TeacherPlan, samples: Samples, counts: TableCounts) -> None:
    """Expected rows = written rows + listed failures, array by array; else IncompleteCacheError."""
    usable = usable_videos(root, plan.view.name, plan.part.segment)
    texts = samples.texts[counts.first_text : counts.first_text + counts.texts]
    own_video = np.array([text.video for text in texts], dtype=np.int64)
    for spec in plan.signals:
        for part in planned_signal_arrays(plan, spec, counts):
            path = part_path(spec.name, part)
            expected = expected_rows(spec, usable, own_video, counts, part)
            present = ShardedRows(root, f"{plan.path}/{path}").present
            if (present != expected).any():
                row = int(np.argmax(present != expected))
                raise IncompleteCacheError(
                    f"teacher {plan.name!r}, signal {path!r}: row {row} is "
                    f"{'there but its video failed' if present[row] else 'missing'}; dump into another CACHE"
                )


def usable_videos(root: Path, view: str, segment: int) -> np.ndarray:
    """Which videos of the segments up to `segment` decoded in the view: bool [V]."""
    failed = [read_column(root, f"{view_path(view, number)}/failed") for number in range(segment + 1)]
    return ~np.concatenate(failed)


def encoding_attributes(error: ErrorSum) -> dict[str, float]:
    """What a signal tells of its encoding, measured on all that was written."""
    return {
        "encoding_relative_l2": error.relative_l2,
        "encoding_max_abs": error.max_abs_error,
        "encoding_mean_cosine": error.mean_cosine,
        "encoding_min_cosine": error.cosine_min,
    }
