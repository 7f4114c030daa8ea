"""Rows of a sharded array, read at their offset in the shard files."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

from store.durable import read_json
from store.errors import DamagedCacheError
from store.shards import ABSENT, CRC_BYTES, DTYPES, RowsArray, crc32c


class ShardedRows:
    """Rows of one sharded array, read at their offset in memory-mapped shard files.

    Every index is checked when the array is opened, every row's crc32c when this process first
    reads it; later reads of the row cost one copy. Raises DamagedCacheError naming the object.
    """

    def __init__(self, root: Path, array_path: str) -> None:
        self.path = array_path
        folder = root / array_path
        self.array = RowsArray.from_zarr_json(read_json(folder / "zarr.json"), array_path)
        if self.array.shard_rows is None:
            raise DamagedCacheError(f"{array_path} is not sharded")
        self._shards: list[np.ndarray] = []
        self._offsets = np.full(self.array.shape[0], -1, dtype=np.int64)
        for number in range(self.array.shard_count):
            path = folder / self.array.shard_path(number)
            self._shards.append(self._open_shard(path, number))
        self._checked = np.zeros(self.array.shape[0], dtype=bool)
        self.nbytes = sum(shard.nbytes for shard in self._shards)

    @property
    def present(self) -> np.ndarray:
        """Which rows were written: bool [rows]."""
        return self._offsets >= 0

    def _open_shard(self, path: Path, number: int) -> np.ndarray:
        name = f"{self.path}/{self.array.shard_path(number)}"
        shard_rows = self.array.shard_rows or 0
        tail_bytes = shard_rows * 16 + CRC_BYTES
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < tail_bytes:
                    raise DamagedCacheError(
                        f"{name} has {size} bytes, its index alone takes {tail_bytes}; pull it again"
                    )
                content = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        except FileNotFoundError:
            raise DamagedCacheError(f"{name} is missing; pull it again or resume the dump") from None
        tail = content[-tail_bytes:].tobytes()
        if crc32c(tail[:-CRC_BYTES]) != tail[-CRC_BYTES:]:
            raise DamagedCacheError(f"{name}: the index's crc32c is wrong; pull it again")
        index = np.frombuffer(tail, dtype="<u8", count=shard_rows * 2).reshape(shard_rows, 2)
        start = number * shard_rows
        index = index[: self.array.shape[0] - start]
        there = index[:, 0] != ABSENT
        end = index[there, 0] + index[there, 1]
        if (index[there, 1] != self.array.row_bytes + CRC_BYTES).any() or (end > size - tail_bytes).any():
            raise DamagedCacheError(f"{name}: the index points beyond its rows; pull it again")
        self._offsets[start : start + len(index)][there] = index[there, 0]
        return content

    def read_into(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy the rows `rows` [N] into `out` [N, ...], of the array's dtype and C-contiguous."""
        row_bytes = self.array.row_bytes
        flat = out.reshape(len(rows), -1).view(np.uint8)
        offsets = self._offsets[rows]
        if (offsets < 0).any():
            row = int(rows[np.argmin(offsets)])
            raise DamagedCacheError(f"{self.path} has no row {row}: its video failed, or it was never dumped")
        for place, (row, offset) in enumerate(zip(rows.tolist(), offsets.tolist(), strict=True)):
            shard = self._shards[row // (self.array.shard_rows or 1)]
            if not self._checked[row]:
                self._check(shard, row, offset)
            flat[place] = shard[offset : offset + row_bytes]

    def gather(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Columns `columns` [C] of the rows `rows` [N] of a matrix: [N, C]."""
        return self.read(rows)[:, columns]

    def _check(self, shard: np.ndarray, row: int, offset: int) -> None:
        end = offset + self.array.row_bytes
        if crc32c(shard[offset:end]) != shard[end : end + CRC_BYTES].tobytes():
            raise DamagedCacheError(f"{self.path}, row {row}: the crc32c is wrong; pull the shard again")
        self._checked[row] = True

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The rows `rows` [N] as a new array [N, ...]."""
        out = np.empty((len(rows), *self.array.shape[1:]), dtype=DTYPES[self.array.dtype])
        self.read_into(np.asarray(rows), out)
        return out
