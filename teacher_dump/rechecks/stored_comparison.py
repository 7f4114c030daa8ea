"""Values that a teacher gives now against those of a cache, both as the cache's encoding leaves them."""

from __future__ import annotations

import numpy as np

from store.calibration import SignalCodec
from store.errors import NonFiniteError
from store.reader import TeacherReader
from teacher_dump.rechecks.comparison import Comparison


def new_comparison(reader: TeacherReader, signal: str, of: str) -> Comparison:
    """With the tolerance of the signal's kind; an int8 value may fall to the level beside it."""
    tolerance = reader.signals[signal].kind.tolerance
    if reader.signals[signal].is_calibrated:
        tolerance = max(tolerance, reader.encoding_error(signal)["relative_l2"])
    return Comparison(signal, of, tolerance)


def as_stored(codec: SignalCodec, values: np.ndarray, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`values` [N, ...] as they would be read back; NaN of that `shape`, which deviates, if they can't be
    stored."""
    try:
        return codec.decode(codec.encode(values, rows)[0])
    except NonFiniteError:
        return np.full(shape, np.nan, dtype=np.float32)


def take(comparison: Comparison, reader: TeacherReader, rows: np.ndarray, values: np.ndarray) -> None:
    """Hold `values` [N, ...] of the rows `rows` to those that are stored."""
    stored = reader.read_decoded(comparison.signal, rows)
    comparison.add(rows, stored, as_stored(reader.codec(comparison.signal), values, rows, stored.shape))
