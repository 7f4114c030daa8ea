"""How values become stored values, and what that loses.

An encoding is lossy and says by how much: `ErrorSum` adds up over shards, so the error that a
cache reports was measured on the data that it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from store.errors import NonFiniteError

FLOAT16 = "float16"
ENCODINGS = (FLOAT16,)


@dataclass(frozen=True)
class ErrorSum:
    """Squared error, squared norm and largest absolute error of what was encoded so far."""

    squared_error: float = 0.0
    squared_norm: float = 0.0
    max_abs_error: float = 0.0

    def __add__(self, other: ErrorSum) -> ErrorSum:
        return ErrorSum(
            self.squared_error + other.squared_error,
            self.squared_norm + other.squared_norm,
            max(self.max_abs_error, other.max_abs_error),
        )

    @property
    def relative_l2(self) -> float:
        """||decoded - original|| / ||original||, 0 for all-zero data."""
        return float(np.sqrt(self.squared_error / self.squared_norm)) if self.squared_norm else 0.0

    def to_dict(self) -> dict[str, float]:
        return {
            "squared_error": self.squared_error,
            "squared_norm": self.squared_norm,
            "max_abs_error": self.max_abs_error,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ErrorSum:
        return cls(fields["squared_error"], fields["squared_norm"], fields["max_abs_error"])


def encode_float16(values: np.ndarray, signal: str, rows: np.ndarray) -> tuple[np.ndarray, ErrorSum]:
    """`values` [N, ...] float32 of the rows `rows` [N] as float16, with the error of doing so.

    Raises NonFiniteError, naming signal and row, for NaN, infinity or a value beyond +-65504.
    """
    with np.errstate(over="ignore"):
        encoded = values.astype(np.float16)
    finite = np.isfinite(encoded).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        worst = values[first].reshape(-1)[np.argmin(np.isfinite(encoded[first]).reshape(-1))]
        raise NonFiniteError(
            f"signal {signal!r}, row {int(rows[first])}: {worst} can't be stored as float16 "
            f"(finite and within +-65504); check the teacher's weights and dtype"
        )
    error = encoded.astype(np.float64) - values
    return encoded, ErrorSum(
        float(np.square(error).sum()),
        float(np.square(values, dtype=np.float64).sum()),
        float(np.abs(error).max(initial=0.0)),
    )
