"""Sharded arrays of Zarr v3, written and read as raw bytes at the speed of the disk.

One shard is one file; one inner chunk is one row, followed by its crc32c:

    | row 0 | crc | row 1 | crc | ... | index: (offset, bytes) per row, uint64 | crc of the index |

A row that was not written has 2^64-1 twice in the index, so absent is told from zero. Any Zarr v3
library reads these files (codecs sharding_indexed, bytes, crc32c); reading whole rows with it costs
ten times more, which is why this module exists (docs/format.md, "Speed").
"""

from __future__ import annotations

import math
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from store.durable import PARTIAL_SUFFIX, GrowingDigest, ObjectRecord, canonical_json, publish
from store.errors import DamagedCacheError
from store.untrusted import is_count, is_path_name

MOST_AXES = 8
MOST_SHARD_ROWS = 1 << 22
ABSENT = np.iinfo(np.uint64).max
CRC_BYTES = 4
HASHED_AT_ONCE_BYTES = 1 << 24
BYTES_CODEC = {"name": "bytes", "configuration": {"endian": "little"}}
CRC_CODEC = {"name": "crc32c"}
DTYPES = {
    name: np.dtype(name)
    for name in ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")
}
FILL = {"bool": False, "uint8": 0, "int8": 0, "int32": -1, "int64": 0}
"""What a general Zarr reader sees for a row that was not written; NaN in floats, -1 in row numbers."""


@dataclass(frozen=True)
class RowsArray:
    """Shape and storage of an array whose first axis is rows: plain data, from and to zarr.json.

    dtype: a key of DTYPES. shard_rows: rows of one shard file, or None for an array in one plain
    chunk (a table column).
    """

    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str, ...]
    shard_rows: int | None

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * DTYPES[self.dtype].itemsize

    @property
    def index_bytes(self) -> int:
        """Bytes of a shard's index, its crc32c included."""
        return (self.shard_rows or 0) * 16 + CRC_BYTES

    @property
    def shard_count(self) -> int:
        return -(-self.shape[0] // self.shard_rows) if self.shard_rows else 1

    def shard_path(self, number: int) -> str:
        """Where shard `number` lies below the array's folder."""
        return "/".join(["c", str(number), *("0" for _ in self.shape[1:])])

    def zarr_json(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """The array's zarr.json (Zarr v3 core specification; codec sharding_indexed 1.0)."""
        chunk_codecs: list[Any] = [
            BYTES_CODEC if DTYPES[self.dtype].itemsize > 1 else {"name": "bytes"},
            CRC_CODEC,
        ]
        outer = [max(self.shard_rows or self.shape[0], 1), *self.shape[1:]]
        if self.shard_rows:
            configuration = {
                "chunk_shape": [1, *self.shape[1:]],
                "codecs": chunk_codecs,
                "index_codecs": [BYTES_CODEC, CRC_CODEC],
                "index_location": "end",
            }
            codecs: list[Any] = [{"name": "sharding_indexed", "configuration": configuration}]
        else:
            codecs = chunk_codecs
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": outer}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": FILL.get(self.dtype, "NaN"),
            "codecs": codecs,
            "attributes": attributes,
            "dimension_names": list(self.axes),
            "storage_transformers": [],
        }

    @classmethod
    def from_zarr_json(cls, document: Any, where: str) -> RowsArray:
        """Parse a zarr.json; anything but what `zarr_json` writes raises DamagedCacheError."""
        try:
            outer = document["chunk_grid"]["configuration"]["chunk_shape"]
            sharded = document["codecs"][0]["name"] == "sharding_indexed"
            found = cls(
                tuple(document["shape"]),
                document["data_type"],
                tuple(document["dimension_names"]),
                outer[0] if sharded else None,
            )
            # Not ==, which takes 1, 1.0 and True for one another.
            same = found._is_possible() and canonical_json(document) == canonical_json(
                found.zarr_json(dict(document["attributes"]))
            )
        except (KeyError, TypeError, IndexError, AttributeError, ValueError):
            same = False
        if not same:
            raise DamagedCacheError(
                f"{where}/zarr.json is not an array of format 1; restore it from a good copy"
            )
        return found

    def _is_possible(self) -> bool:
        """Whether these can be the sizes of an array: whole numbers whose bytes a file system can count."""
        rows = self.shard_rows
        return (
            1 <= len(self.shape) <= MOST_AXES
            and all(is_count(size) for size in self.shape)
            and len(self.axes) == len(self.shape)
            and all(is_path_name(axis) for axis in self.axes)
            and (rows is None or (is_count(rows, MOST_SHARD_ROWS) and rows > 0))
            and self.row_bytes * max(self.shape[0], rows or 1) < 2**62
        )


class ShardFile:
    """Shard `number` of the array at `root`/`array_path`, written row by row; a context manager.

    before: how many rows lie in arrays of earlier segments. Rows that are never appended are absent. Bytes
    go to a file aside, named at random: a worker that outlived its coordinator shares it with nobody.
    `finish` syncs and renames it, and what it returns counts only once it stands in the ledger. Without
    `finish` nothing appears.
    """

    def __init__(self, root: Path, array_path: str, array: RowsArray, number: int, before: int = 0) -> None:
        assert array.shard_rows is not None
        self._root = root
        self._array_path = array_path
        self._array = array
        self._first_row = before + number * array.shard_rows
        self._path = root / array_path / array.shard_path(number)
        self._aside = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
        self._index = np.full((array.shard_rows, 2), ABSENT, dtype="<u8")
        self._dtype = DTYPES[array.dtype].newbyteorder("<")
        self._offset = 0
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._aside, "wb", buffering=1 << 16)  # noqa: SIM115 - closed by finish or __exit__
        self._digest = GrowingDigest(self._aside)

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._digest.close()
        self._file.close()
        self._aside.unlink(missing_ok=True)

    def append(self, row: int, values: np.ndarray) -> None:
        """Write one row; rows come ascending. Raises ValueError for a row of another shard or shape."""
        place = row - self._first_row
        if (
            values.shape != self._array.shape[1:]
            or values.dtype != self._dtype
            or not 0 <= place < len(self._index)
        ):
            raise ValueError(
                f"{self._array_path}: row {row} of {values.dtype}{list(values.shape)} does not belong in the "
                f"shard of rows {self._first_row} on, of {self._dtype}{list(self._array.shape[1:])}"
            )
        content = np.ascontiguousarray(values, dtype=self._dtype).reshape(-1).view(np.uint8)
        self._index[place] = self._offset, content.nbytes + CRC_BYTES
        self._write(content)

    def _write(self, content: np.ndarray) -> None:
        """Write bytes and their crc32c."""
        self._file.write(content.data)
        self._file.write(crc32c(content))
        self._offset += content.nbytes + CRC_BYTES
        if self._offset - self._digest.asked_for >= HASHED_AT_ONCE_BYTES:
            self._file.flush()
            self._digest.take_up_to(self._offset)

    def finish(self) -> ObjectRecord:
        """Write the index, sync, and let the shard appear under its name."""
        self._write(self._index.reshape(-1).view(np.uint8))
        self._file.flush()
        self._digest.take_up_to(self._offset)
        os.fsync(self._file.fileno())
        self._file.close()
        sha256 = self._digest.finish()
        publish(self._aside, self._path)
        return ObjectRecord(self._path.relative_to(self._root).as_posix(), self._offset, sha256)


def crc32c(content: bytes | np.ndarray) -> bytes:
    """CRC-32C (Castagnoli) of `content`, little-endian, as the codec of that name appends it."""
    return int(google_crc32c.value(content)).to_bytes(CRC_BYTES, "little")


def row_offsets(tail: bytes, array: RowsArray, number: int, size: int, name: str) -> np.ndarray:
    """Where each row of shard `number` begins, int64 [rows of the shard], -1 for an absent one.

    tail: the shard's last `array.index_bytes` bytes; size: the whole file's. Rows lie one behind the
    other from the beginning and nothing else lies in the file, so an index can point nowhere else.
    Raises DamagedCacheError naming the shard.
    """
    if crc32c(tail[:-CRC_BYTES]) != tail[-CRC_BYTES:]:
        raise DamagedCacheError(f"{name}: the index's crc32c is wrong; pull it again")
    index = np.frombuffer(tail, dtype="<u8", count=len(tail) // 8).reshape(-1, 2)
    there = index[:, 0] != ABSENT
    chunk = array.row_bytes + CRC_BYTES
    rows = min(len(index), array.shape[0] - number * len(index))
    if (
        (index[~there] != ABSENT).any()
        or there[rows:].any()
        or (index[there, 1] != chunk).any()
        or (index[there, 0] != np.arange(there.sum(), dtype=np.uint64) * np.uint64(chunk)).any()
        or size != int(there.sum()) * chunk + len(tail)
    ):
        raise DamagedCacheError(f"{name}: the index points beside its rows; pull it again")
    offsets = np.full(len(index), -1, dtype=np.int64)
    offsets[there] = index[there, 0]
    return offsets[:rows]
