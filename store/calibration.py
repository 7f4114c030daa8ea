"""Numbers fitted once on a sample of the data, before a signal's first shard, and stored beside it.

    int8          channel_mean, channel_scale [D]            mean and standard deviation of each channel
    projection    projection_mean [D], projection_basis [D, d]   principal directions, widest first

A projected signal keeps (x - projection_mean) @ projection_basis; then int8 takes the channels of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from store.encodings import (
    BOOL,
    FLOAT16,
    FLOAT32,
    INT8,
    INT32,
    ErrorSum,
    decode_int8,
    encode_float16,
    encode_float32,
    encode_int8,
)
from store.errors import InputError
from store.reduction import reduce_tokens
from store.signals import SignalSpec

CHANNEL_MEAN, CHANNEL_SCALE = "channel_mean", "channel_scale"
PROJECTION_MEAN, PROJECTION_BASIS = "projection_mean", "projection_basis"
VALUES, TOKEN_SCALE = "values", "token_scale"
FLATTEST = 1e-6


class Moments:
    """Mean and covariance of vectors that come in pieces; memory D x D, or D without `covariance`."""

    def __init__(self, width: int, covariance: bool) -> None:
        self.count = 0
        self._sum = np.zeros(width)
        self._squares = np.zeros((width, width) if covariance else width)

    def add(self, values: np.ndarray) -> None:
        """Take in float [..., D]; raises nothing: what is not finite is refused when it is encoded."""
        vectors = values.reshape(-1, len(self._sum)).astype(np.float64)
        self.count += len(vectors)
        self._sum += vectors.sum(axis=0)
        self._squares += (
            vectors.T @ vectors if self._squares.ndim == 2 else np.einsum("nd,nd->d", vectors, vectors)
        )

    @property
    def mean(self) -> np.ndarray:
        return self._sum / max(self.count, 1)

    @property
    def covariance(self) -> np.ndarray:
        """[D, D], or its diagonal [D]."""
        mean = self.mean
        square = np.outer(mean, mean) if self._squares.ndim == 2 else mean * mean
        return self._squares / max(self.count, 1) - square


def fit(spec: SignalSpec, moments: Moments) -> dict[str, np.ndarray]:
    """What `spec` stores beside its values, from the moments of a sample of the tokens that it keeps.

    The principal directions have their largest entry positive; a channel that hardly varies is scaled like
    one with a millionth of the widest deviation. Raises InputError for more
    directions than there are channels or vectors to fit them on.
    """
    mean, fitted = moments.mean, {}
    variance = moments.covariance
    if (width := spec.reduction.width) is not None:
        if width > min(len(mean), moments.count - 1):
            raise InputError(
                f"signal {spec.name!r}: a projection onto {width} directions needs as many channels and more "
                f"vectors, there are {len(mean)} and {moments.count}; choose a smaller width"
            )
        eigenvalues, directions = np.linalg.eigh(moments.covariance)
        variance, basis = eigenvalues[::-1][:width], directions[:, ::-1][:, :width]
        largest = basis[np.abs(basis).argmax(axis=0), np.arange(width)]
        fitted[PROJECTION_MEAN] = mean.astype(np.float32)
        fitted[PROJECTION_BASIS] = np.ascontiguousarray(basis * np.sign(largest), dtype=np.float32)
        mean = np.zeros(width)
    if spec.encoding == INT8:
        deviation = np.sqrt(np.maximum(variance, 0))
        widest = float(deviation.max()) or 1.0
        fitted[CHANNEL_MEAN] = mean.astype(np.float32)
        fitted[CHANNEL_SCALE] = np.maximum(deviation, widest * FLATTEST).astype(np.float32)
    return fitted


def fitted_names(spec: SignalSpec) -> tuple[str, ...]:
    """The columns that lie beside a signal's values."""
    projected = (PROJECTION_MEAN, PROJECTION_BASIS) if spec.reduction.width is not None else ()
    return (*projected, CHANNEL_MEAN, CHANNEL_SCALE) if spec.encoding == INT8 else projected


@dataclass(frozen=True)
class SignalCodec:
    """From a teacher's values to the stored parts of a signal and back; `fitted`: what lies beside them."""

    spec: SignalSpec
    fitted: Mapping[str, np.ndarray]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the stored arrays, "" where the signal is one array."""
        if not self.spec.is_calibrated:
            return ("",)
        return (VALUES, TOKEN_SCALE) if self.spec.encoding == INT8 else (VALUES,)

    def encode(self, values: np.ndarray, rows: np.ndarray) -> tuple[dict[str, np.ndarray], ErrorSum]:
        """`values` [N, ...] of the rows `rows` [N], as the teacher gave them: stored parts [N, ...] by name
        ("" where a signal is one array), and what the encoding lost of what was to be kept.

        Raises NonFiniteError naming the row.
        """
        spec, name = self.spec, self.spec.name
        if spec.encoding in (BOOL, INT32):
            return {"": values.astype(spec.encoding)}, ErrorSum()
        if spec.encoding == FLOAT32:
            return {"": encode_float32(values, name, rows)}, ErrorSum()
        kept = reduce_tokens(values, spec.reduction.tokens)
        projected = self._project(kept)
        if spec.encoding == FLOAT16:
            parts = {VALUES if spec.is_calibrated else "": encode_float16(projected, name, rows)}
        else:
            z = (projected - self.fitted[CHANNEL_MEAN]) / self.fitted[CHANNEL_SCALE]
            quantised, scale = encode_int8(z, name, rows)
            parts = {VALUES: quantised, TOKEN_SCALE: scale}
        return parts, ErrorSum.between(kept, self.decode(parts))

    def _project(self, values: np.ndarray) -> np.ndarray:
        if self.spec.reduction.width is None:
            return values
        centred: np.ndarray = values - self.fitted[PROJECTION_MEAN]
        return centred @ self.fitted[PROJECTION_BASIS]

    def decode(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """float32 [N, ...] of stored parts; a projected signal comes back in its D channels."""
        if "" in parts:
            exact = self.spec.encoding in (BOOL, INT32)
            return parts[""] if exact else parts[""].astype(np.float32)
        values = parts[VALUES]
        if self.spec.encoding == INT8:
            fitted = self.fitted
            decoded = decode_int8(values, parts[TOKEN_SCALE], fitted[CHANNEL_MEAN], fitted[CHANNEL_SCALE])
        else:
            decoded = values.astype(np.float32)
        if self.spec.reduction.width is None:
            return decoded
        restored: np.ndarray = decoded @ self.fitted[PROJECTION_BASIS].T + self.fitted[PROJECTION_MEAN]
        return restored


@dataclass(frozen=True)
class EncodedRows:
    """Rows of a signal as they are stored: `parts` [N, ...] by name, to be decoded where they are used."""

    codec: SignalCodec
    parts: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.parts[VALUES])

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts.values())

    def decode(self) -> np.ndarray:
        """float32 [N, ...]."""
        return self.codec.decode(self.parts)
