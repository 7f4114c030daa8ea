"""How values become stored values, and what that loses.

    float16     the value, range-checked
    int8        q = round(z / s), z = (x - channel_mean) / channel_scale, s = max |z| of the vector / 127
    float32, bool, int32    the value

Of the ways to halve float16, int8 with one scale a vector after centring and scaling each channel loses
least on activations with outlier channels and outlier tokens (docs/format.md, "Encodings"). A lossy encoding
says by how much: `ErrorSum` adds up over shards, so the error that a cache reports was measured on the data
that it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from store.errors import NonFiniteError

FLOAT16, INT8, BOOL, INT32, FLOAT32 = "float16", "int8", "bool", "int32", "float32"
ENCODINGS = (FLOAT16, INT8, BOOL, INT32, FLOAT32)
INT8_MOST = 127


@dataclass(frozen=True)
class ErrorSum:
    """What encoding lost so far; vectors lie along the last axis, all-zero ones have no cosine."""

    squared_error: float = 0.0
    squared_norm: float = 0.0
    max_abs_error: float = 0.0
    cosine_sum: float = 0.0
    cosine_count: int = 0
    cosine_min: float = 1.0

    def __add__(self, other: ErrorSum) -> ErrorSum:
        return ErrorSum(
            self.squared_error + other.squared_error,
            self.squared_norm + other.squared_norm,
            max(self.max_abs_error, other.max_abs_error),
            self.cosine_sum + other.cosine_sum,
            self.cosine_count + other.cosine_count,
            min(self.cosine_min, other.cosine_min),
        )

    @classmethod
    def between(cls, original: np.ndarray, decoded: np.ndarray) -> ErrorSum:
        """Of `decoded` against `original`, both float [..., D]."""
        width = original.shape[-1] if original.ndim else 1
        x = original.reshape(-1, width).astype(np.float32, copy=False)
        y = decoded.reshape(-1, width).astype(np.float32, copy=False)
        difference = y - x
        x_squared, y_squared = _squared_norm(x), _squared_norm(y)
        product = np.sqrt(x_squared) * np.sqrt(y_squared)
        has_direction = product > 0
        dot = np.einsum("nd,nd->n", x, y, dtype=np.float64)
        cosine = np.minimum(dot[has_direction] / product[has_direction], 1.0)
        return cls(
            float(_squared_norm(difference).sum()),
            float(x_squared.sum()),
            float(np.abs(difference).max(initial=0.0)),
            float(cosine.sum()),
            len(cosine),
            float(cosine.min(initial=1.0)),
        )

    @property
    def relative_l2(self) -> float:
        """||decoded - original|| / ||original||, 0 for all-zero data."""
        return float(np.sqrt(self.squared_error / self.squared_norm)) if self.squared_norm else 0.0

    @property
    def mean_cosine(self) -> float:
        """Mean cosine of a decoded vector with the original, 1 where there is none."""
        return self.cosine_sum / self.cosine_count if self.cosine_count else 1.0

    def to_dict(self) -> dict[str, float]:
        return dict(vars(self))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ErrorSum:
        return cls(**fields)


def _squared_norm(values_ND: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", values_ND, values_ND, dtype=np.float64)


def encode_float16(values: np.ndarray, signal: str, rows: np.ndarray) -> np.ndarray:
    """`values` [N, ...] float32 of the rows `rows` [N] as float16.

    Raises NonFiniteError, naming signal and row, for NaN, infinity or a value beyond +-65504.
    """
    with np.errstate(over="ignore"):
        encoded = values.astype(np.float16)
    finite = np.isfinite(encoded).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        _refuse(values, np.isfinite(encoded), signal, rows, "float16 (finite and within +-65504)")
    return encoded


def encode_float32(values: np.ndarray, signal: str, rows: np.ndarray) -> np.ndarray:
    """`values` [N, ...] of the rows `rows` [N] as they are; raises NonFiniteError, naming signal and row."""
    finite = np.isfinite(values)
    if not finite.all():
        _refuse(values, finite, signal, rows, "float32 (finite)")
    return values.astype(np.float32, copy=False)


def encode_int8(z: np.ndarray, signal: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`z` [N, ..., D] float32, centred and scaled: int8 [N, ..., D] and float16 scales [N, ...].

    The scales are rounded up, so that no value is clipped. rows: [N], the rows of z. Raises NonFiniteError,
    naming signal and row, for NaN, infinity or a vector whose scale float16 can't hold.
    """
    most = np.abs(z).max(axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):
        scale = (most / INT8_MOST).astype(np.float16)
        scale = np.where(
            scale.astype(np.float32) * INT8_MOST < most, np.nextafter(scale, np.float16(np.inf)), scale
        )
    if not np.isfinite(scale).all():
        _refuse(
            z, np.isfinite(scale)[..., np.newaxis] & np.isfinite(z), signal, rows, "int8 with a float16 scale"
        )
    divisor = np.where(scale > 0, scale, np.float16(1)).astype(np.float32)
    return np.rint(z / divisor[..., np.newaxis]).astype(np.int8), scale


def decode_int8(
    values: np.ndarray, token_scale: np.ndarray, channel_mean: np.ndarray, channel_scale: np.ndarray
) -> np.ndarray:
    """float32 [..., D] of int8 `values` [..., D], float16 `token_scale` [...], float32 `channel_*` [D]."""
    z = values * token_scale.astype(np.float32)[..., np.newaxis]
    z *= channel_scale
    z += channel_mean
    return z


def _refuse(values: np.ndarray, good: np.ndarray, signal: str, rows: np.ndarray, encoding: str) -> None:
    good = np.broadcast_to(good, values.shape).reshape(len(values), -1)
    first = int(np.argmin(good.all(axis=1)))
    worst = values[first].reshape(-1)[np.argmin(good[first])]
    raise NonFiniteError(
        f"signal {signal!r}, row {int(rows[first])}: {worst} can't be stored as {encoding}; "
        "check the teacher's weights and dtype"
    )
