"""What the bench of the store reads: features as a student needs them, with every number from a seed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from store.durable import canonical_json, write_file
from store.inputs.samples import Segment
from store.shards import RowsArray, ShardFile
from store.signal_rows import SignalRows, StoredSignal
from store.signals import SignalSpec

BATCH = 64
SHARD_BYTES = 256 << 20
FRAMES, TOKENS, WIDTH, JOINT_WIDTH = 12, 50, 768, 512
LAYERS = (
    *(
        SignalSpec(f"vit_layers/{number}", {"R": 1, "M": FRAMES, "L": TOKENS, "D": WIDTH})
        for number in (3, 6, 9, 12)
    ),
    SignalSpec("frame_embedding", {"R": 1, "M": FRAMES, "D": JOINT_WIDTH}),
    SignalSpec("text_embedding", {"D": JOINT_WIDTH}),
    SignalSpec("frame_relevance", {"R": 1, "M": FRAMES}),
)
FEATURES = (SignalSpec("frame_embedding", {"R": 1, "M": FRAMES, "D": JOINT_WIDTH}),)
POOL_VALUES = 1 << 24


@dataclass(frozen=True)
class Features:
    """`rows` rows of float16 `signals`; row i of one is a stretch of a pool of normal numbers.

    Compressors find in it what they find in real features: the sign and exponent of numbers of one size.
    """

    signals: tuple[SignalSpec, ...]
    rows: int
    pool: np.ndarray = field(repr=False)

    @classmethod
    def drawn(cls, signals: tuple[SignalSpec, ...], rows: int) -> Features:
        pool = np.random.default_rng(0).standard_normal(POOL_VALUES, dtype=np.float32)
        return cls(signals, rows, pool.astype(np.float16))

    def shape(self, spec: SignalSpec) -> tuple[int, ...]:
        """Of one row."""
        return tuple(spec.sizes[axis] for axis in spec.kind.axes[1:])

    def row(self, spec: SignalSpec, row: int) -> np.ndarray:
        shape = self.shape(spec)
        count = int(np.prod(shape))
        first = (self.signals.index(spec) * 7919 + row * 104729 * 97) % (POOL_VALUES - count)
        return self.pool[first : first + count].reshape(shape)

    @property
    def row_bytes(self) -> int:
        return sum(2 * int(np.prod(self.shape(spec))) for spec in self.signals)

    def samples(self) -> Iterator[dict[str, np.ndarray]]:
        """Every row as one sample, the signals by name."""
        for row in range(self.rows):
            yield {spec.name: self.row(spec, row) for spec in self.signals}

    def resident(self) -> dict[str, np.ndarray]:
        """All rows in RAM."""
        whole = self.room(self.rows)
        for spec in self.signals:
            for row in range(self.rows):
                whole[spec.name][row] = self.row(spec, row)
        return whole

    def room(self, rows: int) -> dict[str, np.ndarray]:
        """Output buffers [rows, ...], their pages touched."""
        return {spec.name: np.ones((rows, *self.shape(spec)), np.float16) for spec in self.signals}

    def arrays(self) -> dict[str, RowsArray]:
        found = {}
        for spec in self.signals:
            shape = (self.rows, *self.shape(spec))
            row_bytes = 2 * int(np.prod(self.shape(spec)))
            shard_rows = min(max(SHARD_BYTES // row_bytes, 1), self.rows)
            found[spec.name] = RowsArray(shape, "float16", tuple(spec.kind.axes), shard_rows)
        return found

    def write_store(self, root: Path) -> None:
        """Write the arrays of the store below `root`/teacher, as a dump does."""
        for spec in self.signals:
            rows = (self.row(spec, row) for row in range(self.rows))
            write_array(root, f"teacher/{spec.name}", self.arrays()[spec.name], rows)

    def open_store(self, root: Path, resident_bytes: int = 0) -> SignalRows:
        segments = (Segment((0, self.rows), (0, self.rows)),)
        stored = {
            spec.name: StoredSignal(spec, (f"teacher/{spec.name}",), segments, "") for spec in self.signals
        }
        return SignalRows(root, stored, resident_bytes)


def write_array(root: Path, path: str, array: RowsArray, rows: Iterator[np.ndarray]) -> None:
    """Write all rows of a sharded array, in order."""
    assert array.shard_rows is not None
    write_file(root / path / "zarr.json", canonical_json(array.zarr_json({})))
    for number in range(array.shard_count):
        first = number * array.shard_rows
        with ShardFile(root, path, array, number) as shard:
            for row in range(first, min(first + array.shard_rows, array.shape[0])):
                shard.append(row, next(rows))
            shard.finish()


def drop_pages(folder: Path) -> None:
    """Let the page cache forget the files below `folder`."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def copy_rows(source: Mapping[str, np.ndarray], rows: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
    """The yardstick: rows of resident arrays into warm buffers, one memcpy a row, in NumPy's own loop."""
    for name, whole in source.items():
        flat = whole.reshape(len(whole), -1)
        np.take(flat, rows, axis=0, out=out[name].reshape(len(rows), -1), mode="clip")
