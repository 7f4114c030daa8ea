"""The frames of a view kept in the cache, so that a student that trains a backbone needs no video files.

raw     array `pixels` [V, R, M, Y, X, 3] uint8, one row a video
jpeg    array `pixel_jpeg` [blocks, 65536] uint8: the JPEGs of a shard's videos one behind the other, cut
        into blocks, so that bytes of any length fit a regular grid; and `pixel_jpeg_span` [V, R, M, 2] int64,
        where in the flattened array each frame begins and ends (twice 0 in a place without a frame)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from store.durable import ObjectRecord
from store.encodings import ErrorSum
from store.errors import DamagedCacheError, InputError
from store.inputs.pixels import decode_jpeg, encode_jpeg
from store.inputs.view import View
from store.sharded_rows import ShardedRows
from store.shards import RowsArray, ShardFile
from store.untrusted import shown

RAW, JPEG = "raw", "jpeg"
PIXELS, PIXEL_JPEG, PIXEL_JPEG_SPAN = "pixels", "pixel_jpeg", "pixel_jpeg_span"
BLOCK_BYTES = 1 << 16
SPARE = 2
"""Room set aside for a shard's JPEGs, in its raw pixels; blocks that stay empty take none on the disk."""


@dataclass(frozen=True)
class KeptPixels:
    """How a view's frames are kept: encoding "raw" or "jpeg"; quality of the JPEGs, 1 to 100 (raw: None)."""

    encoding: str
    quality: int | None = None

    def __post_init__(self) -> None:
        fits = self.quality is None if self.encoding == RAW else type(self.quality) is int
        if (
            self.encoding not in (RAW, JPEG)
            or not fits
            or not 1 <= (1 if self.quality is None else self.quality) <= 100
        ):
            raise InputError(
                f"pixels are kept as raw or jpeg:QUALITY with a quality from 1 to 100, not {self.encoding}"
                f"{'' if self.quality is None else f':{self.quality}'}"
            )

    @classmethod
    def parse(cls, words: str) -> KeptPixels:
        """From "raw" or "jpeg:90"; raises InputError for other words."""
        encoding, colon, quality = words.partition(":")
        number = int(quality) if quality.isascii() and quality.isdigit() and len(quality) < 4 else None
        if colon and number is None:
            raise InputError(f"pixels are kept as raw or jpeg:QUALITY, e.g. jpeg:90, not {words!r}")
        return cls(encoding, number)

    def to_dict(self) -> dict[str, Any]:
        return {"encoding": self.encoding, "quality": self.quality}

    @classmethod
    def from_dict(cls, fields: Any) -> KeptPixels:
        """Parse `to_dict`'s (a view's attributes tell more); raises DamagedCacheError, InputError."""
        if not isinstance(fields, dict) or not isinstance(fields.get("encoding"), str):
            raise DamagedCacheError(f"{shown(fields)} tells no kept pixels; pull the cache again")
        return cls(fields["encoding"], fields.get("quality"))


def pixel_arrays(view: View, videos: int, shard_rows: int, kept: KeptPixels) -> dict[str, RowsArray]:
    """The arrays that hold the frames of V videos; a shard of each belongs to the same videos."""
    if kept.encoding == RAW:
        axes = ("V", "R", "M", "pixel_row", "pixel_column", "channel")
        return {PIXELS: RowsArray((videos, *view.pixel_shape), "uint8", axes, shard_rows)}
    span = RowsArray(
        (videos, view.renditions, view.frames, 2), "int64", ("V", "R", "M", "begin_end"), shard_rows
    )
    blocks = -(-SPARE * shard_rows * view.pixel_bytes // BLOCK_BYTES)
    shape = (blocks * span.shard_count, BLOCK_BYTES)
    return {PIXEL_JPEG: RowsArray(shape, "uint8", ("block", "byte"), blocks), PIXEL_JPEG_SPAN: span}


class JpegFile:
    """Shard `number` of `pixel_jpeg`, written frame by frame; `error` is what JPEG lost so far."""

    def __init__(self, file: ShardFile, array: RowsArray, number: int, quality: int) -> None:
        self._file = file
        self._block = number * (array.shard_rows or 0)
        self._end = self._block + (array.shard_rows or 0)
        self._pending = bytearray()
        self._quality = quality
        self.error = ErrorSum()

    def append(self, frames: np.ndarray, frame_valid: np.ndarray) -> np.ndarray:
        """Write the valid ones of `frames` [R, M, Y, X, 3]; their spans, int64 [R, M, 2].

        Raises InputError if the JPEGs outgrow what was set aside for them.
        """
        spans = np.zeros((*frame_valid.shape, 2), dtype=np.int64)
        shown = frames[frame_valid]
        coded = encode_jpeg(shown, self._quality) if len(shown) else []
        if coded:
            self.error += ErrorSum.between(shown, decode_jpeg(coded, *shown.shape[1:3]))
        for place, content in zip(np.argwhere(frame_valid).tolist(), coded, strict=True):
            begin = self._block * BLOCK_BYTES + len(self._pending)
            spans[tuple(place)] = begin, begin + len(content)
            self._pending += content
        while len(self._pending) >= BLOCK_BYTES:
            self._write_block()
        return spans

    def _write_block(self) -> None:
        if self._block == self._end:
            raise InputError("JPEGs of this quality are larger than raw pixels; keep them raw")
        block = np.zeros(BLOCK_BYTES, dtype=np.uint8)
        content = self._pending[:BLOCK_BYTES]
        block[: len(content)] = content
        self._file.append(self._block, block)
        del self._pending[:BLOCK_BYTES]
        self._block += 1

    def finish(self) -> ObjectRecord:
        """Write the last block and let the shard appear."""
        if self._pending:
            self._write_block()
        return self._file.finish()


def psnr_db(error: ErrorSum, values: int) -> float | None:
    """Peak signal-to-noise ratio of `values` numbers of 8 bits in dB; None if nothing was lost."""
    if not error.squared_error or not values:
        return None
    return float(10 * np.log10(255.0**2 * values / error.squared_error))


def check_spans(root: Path, path: str) -> Iterator[tuple[str, str]]:
    """Hold the spans of the view below `path` to its blocks; (path, problem) of what does not fit.

    The JPEGs of a shard's frames lie one behind the other from its first byte on, and fill its blocks.
    """
    spans, blocks = (ShardedRows(root, f"{path}/{name}") for name in (PIXEL_JPEG_SPAN, PIXEL_JPEG))
    valid = ShardedRows(root, f"{path}/frame_valid")
    shard_rows, shard_blocks = spans.array.shard_rows or 1, blocks.array.shard_rows or 1
    for number in range(spans.array.shard_count):
        first = number * shard_rows
        rows = first + np.flatnonzero(spans.present[first : first + shard_rows])
        end = number * shard_blocks * BLOCK_BYTES
        begin = end
        for row in rows.tolist():
            span, there = spans.read(np.array([row]))[0], valid.read(np.array([row]))[0]
            shown = span[there]
            follows = np.append(end, shown[:-1, 1]) if len(shown) else shown[:, 0]
            if span[~there].any() or (shown[:, 0] != follows).any() or (shown[:, 1] <= shown[:, 0]).any():
                yield f"{path}/{PIXEL_JPEG_SPAN}", f"row {row}: its spans do not follow one another"
                return
            end = int(shown[-1, 1]) if len(shown) else end
        first_block = number * shard_blocks
        filled = int(blocks.present[first_block : first_block + shard_blocks].sum())
        if filled != -(-(end - begin) // BLOCK_BYTES):
            yield (
                f"{path}/{PIXEL_JPEG}",
                f"shard {number} has {filled} blocks for {end - begin:,} bytes of spans",
            )


class PixelRows:
    """The kept frames of the view below `root`/`path`; any number of threads may read at once."""

    def __init__(self, root: Path, path: str, view: View, kept: KeptPixels) -> None:
        self._view = view
        self._path = path
        self._raw = ShardedRows(root, f"{path}/{PIXELS}") if kept.encoding == RAW else None
        if kept.encoding == JPEG:
            self._blocks = ShardedRows(root, f"{path}/{PIXEL_JPEG}")
            self._spans = ShardedRows(root, f"{path}/{PIXEL_JPEG_SPAN}")
            self._valid = ShardedRows(root, f"{path}/frame_valid")

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB [N, R, M, Y, X, 3] of the videos `rows` [N]; a place without a frame holds zeros.

        Raises InputError for a video that failed, DamagedCacheError for bytes that changed.
        """
        if self._raw is not None:
            return self._raw.read(rows)
        frames = np.zeros((len(rows), *self._view.pixel_shape), dtype=np.uint8)
        spans_NRM2, valid_NRM = self._spans.read(rows), self._valid.read(rows)
        for place, row in enumerate(np.asarray(rows).tolist()):
            frames[place] = self._decode(row, spans_NRM2[place], valid_NRM[place])
        return frames

    def _decode(self, row: int, spans: np.ndarray, there: np.ndarray) -> np.ndarray:
        frames = np.zeros(self._view.pixel_shape, dtype=np.uint8)
        if not there.any():
            return frames
        begin, end = int(spans[there].min()), int(spans[there].max())
        first, last = begin // BLOCK_BYTES, -(-end // BLOCK_BYTES)
        size = spans[there][:, 1] - spans[there][:, 0]
        if begin < 0 or (size <= 0).any() or end - begin > SPARE * self._view.pixel_bytes:
            raise DamagedCacheError(f"{self._path}/{PIXEL_JPEG_SPAN}, row {row}: no spans; pull it again")
        try:
            content = self._blocks.read(np.arange(first, last)).tobytes()
        except InputError as error:
            raise DamagedCacheError(f"{self._path}/{PIXEL_JPEG_SPAN}, row {row}: {error}") from None
        offset = first * BLOCK_BYTES
        coded = [content[a - offset : b - offset] for a, b in spans[there].tolist()]
        frames[there] = decode_jpeg(coded, *self._view.pixel_shape[2:4])
        return frames
