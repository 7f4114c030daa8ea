"""Checks of one stored object: size and sha256; of a shard also its index, crc32c and finiteness."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.durable import HASH_BLOCK_BYTES, ObjectRecord, read_json
from store.errors import DamagedCacheError
from store.layout import group_json
from store.manifest import size_problem
from store.shards import CRC_BYTES, DTYPES, RowsArray, crc32c, row_offsets

BLOCK_VALUES = 1 << 22
ROWS_NAMED = 5


@dataclass(frozen=True)
class ShardCheck:
    """What one shard held. present: bool [rows of the shard], None if its index can't be read."""

    array: str
    number: int
    present: np.ndarray | None
    problems: tuple[str, ...]


def parse_metadata(root: Path, record: ObjectRecord) -> RowsArray | None:
    """The array that a zarr.json describes, None for a group's; raises DamagedCacheError if it is neither."""
    document = read_json(root / record.path)
    if isinstance(document, dict) and document.get("node_type") == "array":
        return RowsArray.from_zarr_json(document, record.path.removesuffix("/zarr.json"))
    attributes = document.get("attributes") if isinstance(document, dict) else None
    if not isinstance(attributes, dict) or document != group_json(attributes):
        raise DamagedCacheError("is neither an array nor a group of format 1")
    return None


def shard_number(record: ObjectRecord, array_path: str, array: RowsArray) -> int | None:
    """Which shard of the array the object is; None if it is none of them."""
    number = record.path.removeprefix(f"{array_path}/c/").split("/")[0]
    if not (number.isascii() and number.isdigit() and len(number) < 16 and int(number) < array.shard_count):
        return None
    return int(number) if record.path == f"{array_path}/{array.shard_path(int(number))}" else None


def check_shard(root: Path, record: ObjectRecord, array: RowsArray, read: bool, finite: bool) -> ShardCheck:
    """Check one shard: its size and index, and with `read` its sha256 and every row's crc32c.

    finite: with `read`, also that the rows hold neither NaN nor infinity.
    """
    array_path = record.path.split("/c/")[0]
    number = shard_number(record, array_path, array)
    assert number is not None, record.path
    if problem := size_problem(root, record):
        return ShardCheck(array_path, number, None, (problem,))
    if record.bytes < array.index_bytes:
        return ShardCheck(
            array_path, number, None, (f"is shorter than its index, {array.index_bytes} bytes",)
        )
    with (
        open(root / record.path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        changed = ["its sha256 is another"] if read and _sha256(mapped) != record.sha256 else []
        try:
            tail = mapped[len(mapped) - array.index_bytes :]
            offsets = row_offsets(tail, array, number, len(mapped), record.path)
        except DamagedCacheError as error:
            return ShardCheck(array_path, number, None, (*changed, str(error)))
        content = np.frombuffer(mapped, dtype=np.uint8)
        rows = np.flatnonzero(offsets >= 0)
        try:
            wrong = _wrong_rows(content, array, offsets[rows]) if read else np.zeros(0, int)
            infinite = _infinite_rows(content, array, len(rows)) if read and finite else np.zeros(0, int)
        finally:
            del content  # or the map could not be closed
    first = number * (array.shard_rows or 0)
    if len(wrong):
        changed.append(f"the crc32c of {name_rows(first + rows[wrong])} is wrong")
    elif len(infinite):
        changed.append(f"{name_rows(first + rows[infinite])} holds a value that is not finite")
    return ShardCheck(array_path, number, offsets >= 0, tuple(changed))


def _sha256(mapped: mmap.mmap) -> str:
    sha = hashlib.sha256()
    with memoryview(mapped) as view:
        for start in range(0, len(view), HASH_BLOCK_BYTES):
            with view[start : start + HASH_BLOCK_BYTES] as block:
                sha.update(block)
    return sha.hexdigest()


def _wrong_rows(content: np.ndarray, array: RowsArray, offsets: np.ndarray) -> np.ndarray:
    """Which of the rows at `offsets` differ from their crc32c."""
    size = array.row_bytes
    sound = [
        crc32c(content[start : start + size]) == content[start + size : start + size + CRC_BYTES].tobytes()
        for start in offsets.tolist()
    ]
    return np.flatnonzero(~np.array(sound, dtype=bool))


def _infinite_rows(content: np.ndarray, array: RowsArray, rows: int) -> np.ndarray:
    """Which of the first `rows` stored rows, floats, hold NaN or infinity; looked at block by block."""
    dtype = DTYPES[array.dtype].newbyteorder("<")
    values = array.row_bytes // dtype.itemsize
    chunk = array.row_bytes + CRC_BYTES
    bad = np.zeros(rows, dtype=bool)
    step = max(1, BLOCK_VALUES // max(values, 1))
    for start in range(0, rows, step):
        count = min(step, rows - start)
        for first in range(0, values, BLOCK_VALUES):
            block = np.ndarray(
                (count, min(BLOCK_VALUES, values - first)),
                dtype,
                content.data,
                start * chunk + first * dtype.itemsize,
                (chunk, dtype.itemsize),
            )
            bad[start : start + count] |= ~np.isfinite(block).all(axis=1)
    return np.flatnonzero(bad)


def name_rows(rows: np.ndarray) -> str:
    """ "row 3" or "rows 3, 4, 5, 6, 7, ... (12 in all)"."""
    named = ", ".join(str(row) for row in rows[:ROWS_NAMED].tolist())
    if len(rows) == 1:
        return f"row {named}"
    return f"rows {named}" if len(rows) <= ROWS_NAMED else f"rows {named}, ... ({len(rows):,} in all)"


def read_arrays(
    root: Path, records: Iterable[ObjectRecord], add: Callable[[str, object], None]
) -> Iterator[tuple[str, RowsArray]]:
    """(path, array) of every array among the zarr.json of `records`; what can't be parsed goes to `add`."""
    for record in records:
        try:
            array = parse_metadata(root, record)
        except DamagedCacheError as error:
            add(record.path, error)
        else:
            if array is not None:
                yield record.path.removesuffix("/zarr.json"), array
