"""Table columns: small arrays in one chunk each, loaded whole; strings as bytes plus offsets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from store.durable import ObjectRecord, canonical_json, read_json, record_file, write_file
from store.errors import DamagedCacheError
from store.inputs.samples import TEXT_KINDS, Samples, Segment, Split
from store.ledger import VideoFacts
from store.plans import PlannedBatches
from store.shards import CRC_BYTES, DTYPES, RowsArray, crc32c

MOST_COLUMN_BYTES = 1 << 30


def write_column(root: Path, path: str, values: np.ndarray, axes: tuple[str, ...]) -> list[ObjectRecord]:
    """Write `values` as the plain array at `root`/`path`, its dimensions named `axes`."""
    array = RowsArray(values.shape, values.dtype.name, axes, None)
    folder = root / path
    write_file(folder / "zarr.json", canonical_json(array.zarr_json({})))
    records = [record_file(root, folder / "zarr.json")]
    if values.shape[0]:
        content = np.ascontiguousarray(values, dtype=DTYPES[array.dtype].newbyteorder("<")).tobytes()
        write_file(folder / array.shard_path(0), content + crc32c(content))
        records.append(record_file(root, folder / array.shard_path(0)))
    return records


def read_column(root: Path, path: str) -> np.ndarray:
    """The whole array at `root`/`path`; raises DamagedCacheError naming it if its bytes are not sound."""
    try:
        array = column_array(root, path)
        content = (root / path / array.shard_path(0)).read_bytes() if array.shape[0] else crc32c(b"")
    except FileNotFoundError as error:
        raise DamagedCacheError(f"{path} is missing ({error.strerror}); pull it again") from None
    body, crc = content[:-CRC_BYTES], content[-CRC_BYTES:]
    if len(body) != array.row_bytes * array.shape[0] or crc32c(body) != crc:
        raise DamagedCacheError(f"{path}: size or crc32c is wrong; pull it again")
    return np.frombuffer(body, dtype=DTYPES[array.dtype].newbyteorder("<")).reshape(array.shape)


def column_array(root: Path, path: str) -> RowsArray:
    """What lies at `root`/`path`; raises DamagedCacheError unless it is a column and its file fits its shape.

    So a shape is as large as a file that is there, before memory is asked for it.
    """
    array = RowsArray.from_zarr_json(read_json(root / path / "zarr.json"), path)
    expected = array.row_bytes * array.shape[0] + CRC_BYTES
    file = root / path / array.shard_path(0)
    if array.shard_rows is not None or array.row_bytes == 0 or expected > MOST_COLUMN_BYTES:
        raise DamagedCacheError(f"{path} is no table column of format 1; pull it again")
    if array.shape[0] and file.stat().st_size != expected:
        raise DamagedCacheError(
            f"{path}/{array.shard_path(0)} has {file.stat().st_size} bytes, not {expected}; pull it again"
        )
    return array


def write_strings(root: Path, path: str, values: Sequence[str], axis: str) -> list[ObjectRecord]:
    """Write N strings as `<path>_utf8` (uint8) and `<path>_offset` (int64, N + 1)."""
    encoded = [value.encode() for value in values]
    offset = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(value) for value in encoded], out=offset[1:])
    utf8 = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    name = path.rpartition("/")[2]
    return [
        *write_column(root, f"{path}_utf8", utf8, (f"{name}_byte",)),
        *write_column(root, f"{path}_offset", offset, (f"{axis}_plus_1",)),
    ]


def read_strings(root: Path, path: str) -> list[str]:
    """The strings that `write_strings` wrote; raises DamagedCacheError if the two arrays disagree."""
    bytes_N, offset = read_column(root, f"{path}_utf8"), read_column(root, f"{path}_offset")
    if bytes_N.dtype != np.uint8 or offset.dtype != np.int64 or bytes_N.ndim != 1 or offset.ndim != 1:
        raise DamagedCacheError(f"{path}_utf8 and {path}_offset are no strings of format 1; pull both again")
    utf8 = bytes_N.tobytes()
    if len(offset) == 0 or offset[0] != 0 or offset[-1] != len(utf8) or (offset[1:] < offset[:-1]).any():
        raise DamagedCacheError(f"{path}_offset does not fit {path}_utf8; pull both again")
    try:
        return [utf8[start:end].decode() for start, end in pairwise(offset)]
    except UnicodeDecodeError:
        raise DamagedCacheError(f"{path}_utf8 is not UTF-8; pull it again") from None


def write_samples(
    root: Path, samples: Samples, segment: Segment, earlier: Mapping[str, Split], folder: str = ""
) -> Iterator[ObjectRecord]:
    """Write videos/, texts/ and splits/ of the rows of `segment`, below `folder`.

    earlier: rows of the splits that stand in tables before; here come the others.
    """
    unknown = (np.nan, np.nan)
    videos, texts = samples.videos[slice(*segment.video)], samples.texts[slice(*segment.text)]
    moments = np.array([video.moment_s or unknown for video in videos], dtype=np.float32)
    classes = np.array([-1 if v.label is None else v.label for v in videos], dtype=np.int64)
    kinds = np.array([TEXT_KINDS.index(text.kind) for text in texts], dtype=np.uint8)
    own_videos = np.array([text.video for text in texts], dtype=np.int64)
    yield from write_strings(root, f"{folder}videos/id", [video.id for video in videos], "V")
    yield from write_column(root, f"{folder}videos/moment_s", moments.reshape(-1, 2), ("V", "start_end"))
    yield from write_column(root, f"{folder}videos/class", classes, ("V",))
    yield from write_strings(root, f"{folder}texts/text", [text.text for text in texts], "T")
    yield from write_column(root, f"{folder}texts/video", own_videos, ("T",))
    yield from write_column(root, f"{folder}texts/kind", kinds, ("T",))
    nothing = Split(np.zeros(0, np.int64), np.zeros(0, np.int64))
    for name, split in samples.splits.items():
        before, path = earlier.get(name, nothing), f"{folder}splits/{name}"
        for column, axis, rows, there in (
            ("video", "V_of_split", split.video, before.video),
            ("text", "T_of_split", split.text, before.text),
        ):
            added = rows[~np.isin(rows, there)].astype(np.int64)
            yield from write_column(root, f"{path}/{column}", added, (axis,))


def write_video_facts(root: Path, path: str, facts: Sequence[VideoFacts]) -> Iterator[ObjectRecord]:
    """Write what decoding told of every video, row by row, into the view at `path`."""
    duration_s = [np.nan if video.duration_s is None else video.duration_s for video in facts]
    skipped = np.array([video.skipped_packets for video in facts], dtype=np.int64)
    yield from write_column(root, f"{path}/failed", np.array([bool(v.failure) for v in facts], bool), ("V",))
    yield from write_strings(root, f"{path}/failure", [video.failure for video in facts], "V")
    yield from write_strings(root, f"{path}/decoding_route", [video.route for video in facts], "V")
    yield from write_column(root, f"{path}/duration_s", np.array(duration_s, np.float64), ("V",))
    yield from write_column(root, f"{path}/skipped_packets", skipped, ("V",))


def read_batch_plan(root: Path, name: str) -> PlannedBatches:
    """The stored batch plan `name`; raises DamagedCacheError if it is not sound."""
    path = f"plans/{name}"
    attributes = read_json(root / path / "zarr.json").get("attributes", {})
    return PlannedBatches.from_dict(
        attributes.get("plan", {}), read_column(root, f"{path}/video"), read_column(root, f"{path}/text")
    )
