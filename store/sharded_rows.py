"""Rows of a sharded array, read at their offset in the shard files: no codec, no temporary, no chunk cache.

A row above SMALL_ROW_BYTES is read by one `preadv` straight into the output. Warm it costs the same as
copying from a memory map, cold it is one request instead of many page faults, and a file that is cut off
meanwhile is an error, not the SIGBUS that ends a process. Small rows, where a call a row would cost more
than its bytes, are gathered by one vectorised take over the mapped shard, after asking whether the file is
still whole. All of them release the GIL.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from store.durable import read_json
from store.errors import DamagedCacheError, InputError
from store.open_shards import OpenShard, open_shards
from store.partial import OF_SPLIT, Partial
from store.shards import CRC_BYTES, DTYPES, FILL, RowsArray, crc32c, row_offsets

SMALL_ROW_BYTES = 1 << 16
SCRATCH_BYTES = 1 << 20
LOADED_AT_ONCE_BYTES = 1 << 26
LEFT_OUT = -2
"""In place of the offset of a row whose shard a partial copy left out; -1: the row was never written."""


class ShardedRows:
    """Rows of the sharded array at `root`/`array_path`, by number; any number of threads may read at once.

    Every shard's index is checked here, every row's crc32c when this process first reads it; later reads of
    the row cost one copy. Memory: 9 bytes a row of the array, up to SCRATCH_BYTES a reading thread, and the
    whole array after `load`. Raises DamagedCacheError naming the object.
    """

    def __init__(self, root: Path, array_path: str) -> None:
        self.path = array_path
        folder = root / array_path
        self.array = RowsArray.from_zarr_json(read_json(folder / "zarr.json"), array_path)
        if self.array.shard_rows is None:
            raise DamagedCacheError(f"{array_path} is not sharded")
        self._shard_rows = self.array.shard_rows
        self._dtype = DTYPES[self.array.dtype]
        self._stride = self.array.row_bytes + CRC_BYTES
        keys = [self.array.shard_path(number) for number in range(self.array.shard_count)]
        self._shards = open_shards(root, array_path, keys)
        self._offsets = np.full(self.array.shape[0], -1, dtype=np.int64)
        self._partial = Partial.read(root)
        here = [number for number, key in enumerate(keys) if self._partial.has(f"{array_path}/{key}")]
        for number in set(range(len(keys))).difference(here):
            self._offsets[number * self._shard_rows : (number + 1) * self._shard_rows] = LEFT_OUT
        self._read_indices(np.array(here, dtype=np.int64))
        self._checked = np.zeros(self.array.shape[0], dtype=bool)
        self._loaded: np.ndarray | None = None

    @cached_property
    def present(self) -> np.ndarray:
        """Which rows were written: bool [rows]."""
        return self._offsets >= 0

    @property
    def nbytes(self) -> int:
        """What `load` would take of RAM."""
        return self.array.shape[0] * self.array.row_bytes

    def _read_indices(self, numbers: np.ndarray) -> None:
        """Read the indices of the shards `numbers` [N]."""

        def read() -> None:
            for number in numbers.tolist():
                self._read_index(self._shards[number], number)

        size = self.array.index_bytes
        self._shards.read(numbers, np.full(len(numbers), -size), size, read)

    def _read_index(self, shard: OpenShard, number: int) -> None:
        tail = np.empty(self._shard_rows * 16 + CRC_BYTES, dtype=np.uint8)
        if shard.bytes < tail.nbytes:
            raise DamagedCacheError(
                f"{shard.name} has {shard.bytes} bytes, its index alone takes {tail.nbytes}; pull it again"
            )
        shard.read_into([tail], shard.bytes - tail.nbytes)
        offsets = row_offsets(tail.tobytes(), self.array, number, shard.bytes, shard.name)
        start = number * self._shard_rows
        self._offsets[start : start + len(offsets)] = offsets

    def load(self) -> np.ndarray:
        """All rows, kept in RAM from now on; those that were not written hold the fill value."""
        if self._loaded is None:
            whole = np.full(self.array.shape, FILL.get(self.array.dtype, np.nan), dtype=self._dtype)
            there = np.flatnonzero(self.present)
            at_once = max(LOADED_AT_ONCE_BYTES // max(self.array.row_bytes, 1), 1)
            for run in np.split(there, np.flatnonzero(np.diff(there) > 1) + 1):
                for start in range(0, len(run), at_once):
                    some = run[start : start + at_once]
                    self.read_into(some, whole[some[0] : some[-1] + 1])
            self._loaded = whole
        return self._loaded

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The rows `rows` [N] as a new array [N, ...]; see `read_into`."""
        out = self.empty(len(rows))
        self.read_into(rows, out)
        return out

    def empty(self, rows: int) -> np.ndarray:
        """Room for `rows` rows: [rows, ...], not filled."""
        return np.empty((rows, *self.array.shape[1:]), dtype=self._dtype)

    def read_into(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy the rows `rows` [N] (any order, repeats allowed) into `out` [N, ...], C-contiguous.

        Raises InputError for a row number that is none, negative ones included, and for a row that was not
        written; DamagedCacheError for bytes that changed; ValueError for an `out` that does not fit.
        """
        if (
            out.shape != (len(rows), *self.array.shape[1:])
            or out.dtype != self._dtype
            or not out.flags.c_contiguous
        ):
            raise ValueError(
                f"{self.path}: {len(rows)} rows fill a contiguous {self._dtype}"
                f"{[len(rows), *self.array.shape[1:]]}, got {out.dtype}{list(out.shape)}"
            )
        rows, offsets = self._locate(rows)
        flat = out.reshape(-1).view(np.uint8).reshape(len(rows), self.array.row_bytes)
        if self._loaded is not None:
            loaded = self._loaded.reshape(-1).view(np.uint8).reshape(-1, self.array.row_bytes)
            np.take(loaded, rows, axis=0, out=flat, mode="clip")
        else:
            copy = self._copy_one_by_one if self.array.row_bytes > SMALL_ROW_BYTES else self._take_small
            numbers = rows // self._shard_rows
            self._shards.read(numbers, offsets, self._stride, lambda: copy(rows, offsets, flat))

    def gather(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Columns `columns` [C] of the rows `rows` [N] of a matrix: [N, C]; raises as `read_into` does."""
        rows, offsets = self._locate(rows)
        columns = row_numbers(columns, self.array.shape[1], f"{self.path} has no column")
        if self._loaded is not None:
            return self._loaded[rows[:, np.newaxis], columns]
        out = np.empty((len(rows), len(columns)), dtype=self._dtype)

        def copy() -> None:
            for shard, places in self._by_shard(rows):
                matrix = self._records(shard, self._dtype)
                records = offsets[places] // self._stride
                self._check_mapped(shard, rows[places], records)
                out[places] = matrix[records[:, np.newaxis], columns]

        self._shards.read(rows // self._shard_rows, offsets, self._stride, copy)
        return out

    def _locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The row numbers, checked, and where in its shard each of them begins: int64 [N]."""
        rows = row_numbers(rows, self.array.shape[0], f"{self.path} has no row")
        offsets = self._offsets[rows]
        if (offsets == LEFT_OUT).any():
            row = rows[np.argmax(offsets == LEFT_OUT)]
            raise self._partial.missing(f"row {row} of {self.path}", OF_SPLIT)
        if (offsets < 0).any():
            raise InputError(
                f"{self.path} has no row {rows[np.argmin(offsets)]}: its video did not decode; "
                "leave it out (video_usable)"
            )
        return rows, offsets

    def _by_shard(self, rows: np.ndarray) -> Iterator[tuple[OpenShard, np.ndarray | slice]]:
        """Every shard that holds some of `rows`, with their places in `rows`."""
        numbers = rows // self._shard_rows
        distinct = np.unique(numbers)
        for number in distinct.tolist():
            places = np.flatnonzero(numbers == number) if len(distinct) > 1 else slice(None)
            yield self._shards[number], places

    def _copy_one_by_one(self, rows: np.ndarray, offsets: np.ndarray, flat: np.ndarray) -> None:
        numbers = (rows // self._shard_rows).tolist()
        unchecked = (~self._checked[rows]).tolist()
        stored_crc = np.empty(CRC_BYTES, dtype=np.uint8)
        for place, (number, offset) in enumerate(zip(numbers, offsets.tolist(), strict=True)):
            shard, content = self._shards[number], flat[place]
            if not unchecked[place]:
                shard.read_into([content], offset)
                continue
            shard.read_into([content, stored_crc], offset)
            self._require_crc(int(rows[place]), content, stored_crc)
        self._checked[rows] = True

    def _take_small(self, rows: np.ndarray, offsets: np.ndarray, flat: np.ndarray) -> None:
        block = max(SCRATCH_BYTES // self._stride, 1)
        scratch = np.empty((min(block, len(rows)), self._stride), dtype=np.uint8)
        for shard, places in self._by_shard(rows):
            matrix = self._records(shard, np.dtype(np.uint8), CRC_BYTES)
            wanted = offsets[places] // self._stride
            for start in range(0, len(wanted), block):
                some = wanted[start : start + block]
                # Rows of one shard stay in one piece, which is copied faster than places picked one by one.
                end = start + len(some)
                there = slice(start, end) if isinstance(places, slice) else places[start:end]
                taken = scratch[: len(some)]
                np.take(matrix, some, axis=0, out=taken, mode="clip")
                self._check_taken(rows[there], taken)
                flat[there] = taken[:, :-CRC_BYTES]

    def _records(self, shard: OpenShard, dtype: np.dtype, behind: int = 0) -> np.ndarray:
        """The mapped shard as a matrix of `dtype`: one record a line, with `behind` bytes after its row."""
        shard.require_whole()
        count = (shard.bytes - self._shard_rows * 16 - CRC_BYTES) // self._stride
        width = (self.array.row_bytes + behind) // dtype.itemsize
        return np.ndarray((count, width), dtype, shard.mapped, strides=(self._stride, dtype.itemsize))

    def _check_taken(self, rows: np.ndarray, taken: np.ndarray) -> None:
        for place in np.flatnonzero(~self._checked[rows]).tolist():
            content = taken[place]
            self._require_crc(int(rows[place]), content[:-CRC_BYTES], content[-CRC_BYTES:])
        self._checked[rows] = True

    def _check_mapped(self, shard: OpenShard, rows: np.ndarray, records: np.ndarray) -> None:
        unchecked = ~self._checked[rows]
        if unchecked.any():
            matrix = self._records(shard, np.dtype(np.uint8), CRC_BYTES)
            for row, record in zip(rows[unchecked].tolist(), records[unchecked].tolist(), strict=True):
                self._require_crc(row, matrix[record, :-CRC_BYTES], matrix[record, -CRC_BYTES:])
            self._checked[rows] = True

    def _require_crc(self, row: int, content: np.ndarray, stored: np.ndarray) -> None:
        if crc32c(content) != stored.tobytes():
            raise DamagedCacheError(
                f"{self.path}, row {row}: the crc32c is wrong; pull it again, "
                "or remove the teacher and dump it anew"
            )


def row_numbers(numbers: np.ndarray, count: int, complaint: str) -> np.ndarray:
    """`numbers` [N] as int64, all of them from 0 to `count` - 1; raises InputError naming the first other."""
    numbers = np.asarray(numbers)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise InputError(
            f"rows are asked for by whole numbers [N], not by {numbers.dtype}{list(numbers.shape)}"
        )
    numbers = numbers.astype(np.int64, copy=False)
    wrong = (numbers < 0) | (numbers >= count)
    if wrong.any():
        raise InputError(f"{complaint} {numbers[np.argmax(wrong)]}, they go from 0 to {count - 1}")
    return numbers
