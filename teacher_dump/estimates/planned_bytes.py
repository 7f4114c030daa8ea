"""What a cache will take on the disk: counted array by array, as the writer lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from store.calibration import PROJECTION_BASIS, PROJECTION_MEAN, fitted_names
from store.durable import canonical_json
from store.encodings import BOOL, FLOAT32, INT32
from store.inputs.samples import Samples
from store.inputs.view import View
from store.kept_pixels import BLOCK_BYTES, PIXEL_JPEG, KeptPixels
from store.layout import TableCounts, signal_arrays, view_arrays
from store.shards import CRC_BYTES, RowsArray
from store.signals import SignalSpec

MANIFEST_LINE = 170
"""Bytes of an object in a manifest: its path, size and sha256."""

COLUMN_JSON = 480
"""Bytes of a column's zarr.json."""

STATED_ERRORS, STATED_EXACTNESS = 150, 105
"""Bytes by which a finished signal's zarr.json tells the errors of its encoding."""

ROUTE_BYTES = len("random_access")
FIXED_OBJECTS = 60
"""Columns of tables and view, and groups."""

ID_BYTES, TEXT_BYTES = 20, 60
"""Of a video's id and of a text, where only their numbers are known."""


@dataclass(frozen=True)
class CacheBytes:
    """signals: by name, with what is fitted to them. view: which frames, thumbnails, kept pixels. tables.

    manifests: lists of all these objects.
    """

    signals: Mapping[str, int]
    view: int
    tables: int
    manifests: int

    @property
    def total(self) -> int:
        return sum(self.signals.values()) + self.view + self.tables + self.manifests


def array_bytes(array: RowsArray, rows: int) -> int:
    """Of an array of which `rows` rows are written: chunks, indices and zarr.json."""
    metadata = len(canonical_json(array.zarr_json({})))
    if array.shard_rows is None:
        return metadata + array.row_bytes * array.shape[0] + CRC_BYTES
    return metadata + rows * (array.row_bytes + CRC_BYTES) + array.shard_count * array.index_bytes


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
        sum(array_bytes(array, written) for array in arrays)
        + fitted_bytes(spec, full_width)
        + (STATED_EXACTNESS if spec.encoding in (BOOL, FLOAT32, INT32) else STATED_ERRORS)
    )


def manifest_bytes(planned_tasks: int, signals: int) -> int:
    """Of the manifests: a line for each shard of each array, and for each array's zarr.json."""
    return MANIFEST_LINE * (planned_tasks + signals * 2 + FIXED_OBJECTS)


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
    return total + videos * (sum(facts.values()) + ROUTE_BYTES) + (len(facts) + 2) * COLUMN_JSON


def tables_bytes(samples: Samples, first_video: int = 0, first_text: int = 0) -> int:
    """Of videos/, texts/ and splits/, of the rows from `first_video` and `first_text` on."""
    videos, texts = samples.videos[first_video:], samples.texts[first_text:]
    strings = sum(len(video.id.encode()) for video in videos) + sum(len(t.text.encode()) for t in texts)
    splits = [
        (int((split.video >= first_video).sum()), int((split.text >= first_text).sum()))
        for split in samples.splits.values()
    ]
    return strings + fixed_table_bytes(len(videos), len(texts), splits)


def assumed_tables_bytes(videos: int, texts: int) -> int:
    """The same where only numbers are known: one split, ids and texts of ordinary length."""
    return videos * ID_BYTES + texts * TEXT_BYTES + fixed_table_bytes(videos, texts, [(videos, texts)])


def fixed_table_bytes(videos: int, texts: int, splits: Sequence[tuple[int, int]]) -> int:
    columns = 8 + 2 * len(splits)
    rows = videos * (8 + 8 + 8) + texts * (8 + 8 + 1) + sum(8 * (v + t) for v, t in splits)
    return rows + columns * COLUMN_JSON


def readable(count: float) -> str:
    """Bytes in decimal units: "3.2 GB"."""
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:,.1f} {unit}"
