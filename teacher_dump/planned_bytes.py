"""What a cache will take on the disk: counted array by array, as the writer lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from store.calibration import PROJECTION_BASIS, PROJECTION_MEAN, fitted_names
from store.durable import canonical_json
from store.inputs.samples import Samples
from store.inputs.view import View
from store.kept_pixels import BLOCK_BYTES, PIXEL_JPEG, KeptPixels
from store.layout import TableCounts, TeacherPlan, signal_arrays, view_arrays
from store.publication import planned_signal_arrays
from store.shards import CRC_BYTES, RowsArray
from store.signals import SignalSpec

MANIFEST_LINE = 170
"""Bytes of an object in a manifest: its path, size and sha256."""

STATED_ERRORS = 150
"""Bytes by which a finished signal's zarr.json tells the errors of its encoding."""

ROUTE_BYTES = len("random_access")
ID_BYTES, TEXT_BYTES = 20, 60
"""Of a video's id and of a text, where only their numbers are known."""


@dataclass(frozen=True)
class CacheBytes:
    """signals: by name, with what is fitted to them. view: which frames, thumbnails, kept pixels. tables."""

    signals: Mapping[str, int]
    view: int
    tables: int

    @property
    def total(self) -> int:
        return sum(self.signals.values()) + self.view + self.tables


def array_bytes(array: RowsArray, rows: int) -> int:
    """Of an array of which `rows` rows are written: chunks, indices, zarr.json and lines of the manifest."""
    metadata = len(canonical_json(array.zarr_json({}))) + MANIFEST_LINE
    if array.shard_rows is None:
        return metadata + array.row_bytes * array.shape[0] + CRC_BYTES + MANIFEST_LINE
    shards = array.shard_count * (array.index_bytes + MANIFEST_LINE)
    return metadata + rows * (array.row_bytes + CRC_BYTES) + shards


def fitted_bytes(spec: SignalSpec, full_width: int) -> int:
    """Of the columns fitted to a signal, whose vectors had `full_width` numbers before a projection."""
    width = spec.sizes.get("D", 1)
    sizes = {PROJECTION_BASIS: full_width * width, PROJECTION_MEAN: full_width}
    return sum(
        array_bytes(RowsArray((sizes.get(name, width),), "float32", ("D",), None), 0)
        for name in fitted_names(spec)
    )


def signal_bytes(
    spec: SignalSpec, counts: TableCounts, shard_rows: int, rows: int | None = None, full_width: int = 0
) -> int:
    """Of a signal with `rows` rows (its table's, if not given) in shards of `shard_rows`."""
    written = counts.rows_of(spec) if rows is None else rows
    arrays = signal_arrays(spec, counts, shard_rows).values()
    return (
        sum(array_bytes(array, written) for array in arrays) + fitted_bytes(spec, full_width) + STATED_ERRORS
    )


def signals_bytes(
    plan: TeacherPlan, counts: TableCounts, text_videos: int, widths: Mapping[str, int]
) -> dict[str, int]:
    """Of every signal of a plan, if no video fails.

    text_videos: texts that have a video. widths: D of a signal as the teacher gives it.
    """
    found = {}
    for spec in plan.signals:
        rows = text_videos if spec.name == "frame_relevance" else None
        shard_rows = next(iter(planned_signal_arrays(plan, spec, counts).values())).shard_rows or 1
        found[spec.name] = signal_bytes(spec, counts, shard_rows, rows, widths.get(spec.name, 0))
    return found


def view_bytes(
    view: View, videos: int, shard_rows: int, kept: KeptPixels | None, jpeg_bytes: float | None = None
) -> int:
    """Of a view over V videos that all decode. jpeg_bytes: of the JPEGs of one video, where they are kept."""
    total = 0
    for name, array in view_arrays(view, videos, shard_rows, kept).items():
        if name == PIXEL_JPEG:
            blocks = array.shard_count + int((jpeg_bytes or 0.0) * videos) // BLOCK_BYTES
            total += array_bytes(array, blocks)
        else:
            total += array_bytes(array, videos)
    facts = {"failed": 1, "failure_offset": 8, "decoding_route_offset": 8, "duration_s": 8, "skipped": 8}
    columns = videos * (sum(facts.values()) + ROUTE_BYTES)
    return total + columns + (len(facts) + 2) * (2 * MANIFEST_LINE + 400)


def tables_bytes(samples: Samples) -> int:
    """Of videos/, texts/ and splits/."""
    ids = sum(len(video.id.encode()) for video in samples.videos)
    texts = sum(len(text.text.encode()) for text in samples.texts)
    splits = [(len(split.video), len(split.text)) for split in samples.splits.values()]
    return ids + texts + fixed_table_bytes(len(samples.videos), len(samples.texts), splits)


def assumed_tables_bytes(videos: int, texts: int) -> int:
    """The same where only numbers are known: one split, ids and texts of ordinary length."""
    return videos * ID_BYTES + texts * TEXT_BYTES + fixed_table_bytes(videos, texts, [(videos, texts)])


def fixed_table_bytes(videos: int, texts: int, splits: Sequence[tuple[int, int]]) -> int:
    columns = 8 + 2 * len(splits)
    rows = videos * (8 + 8 + 8) + texts * (8 + 8 + 1) + sum(8 * (v + t) for v, t in splits)
    return rows + columns * (2 * MANIFEST_LINE + 400)


def readable(count: float) -> str:
    """Bytes in decimal units: "3.2 GB"."""
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:,.1f} {unit}"
