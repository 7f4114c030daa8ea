"""Stored values -> float tensors, computed where the student trains: encoded signals travel encoded.

The formulas are `store.calibration.SignalCodec.decode`'s, in torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from store.calibration import (
    CHANNEL_MEAN,
    CHANNEL_SCALE,
    PROJECTION_BASIS,
    PROJECTION_MEAN,
    TOKEN_SCALE,
    VALUES,
    EncodedRows,
    SignalCodec,
)
from store.encodings import FLOAT16, INT32


class Decoder:
    """Decodes rows of one signal on `device`; a signal with renditions gives one of each row."""

    def __init__(self, codec: SignalCodec, device: torch.device) -> None:
        self.codec = codec
        self.device = device
        self._fitted = {name: torch.tensor(value, device=device) for name, value in codec.fitted.items()}

    def __call__(
        self,
        stored: np.ndarray | EncodedRows,
        room: Tensor | None = None,
        rendition: np.ndarray | None = None,
    ) -> Tensor:
        """float32 [N, ...] without R (bool and int64 of such signals) of `stored` [N, ...].

        room: float32, where plain values go that are decoded on a CPU; it is filled anew by the next call.
        rendition: [N] int64, None for the first of each.
        """
        parts = stored.parts if isinstance(stored, EncodedRows) else {"": stored}
        tensors = {name: torch.from_numpy(self._one(part, rendition)) for name, part in parts.items()}
        if "" in tensors:
            return self._plain(tensors[""], room)
        return self._calibrated({name: value.to(self.device) for name, value in tensors.items()})

    def _one(self, value: np.ndarray, rendition: np.ndarray | None) -> np.ndarray:
        return one_rendition(value, rendition) if "R" in self.codec.spec.kind.axes else value

    def _plain(self, value: Tensor, room: Tensor | None) -> Tensor:
        if self.codec.spec.encoding == INT32:
            return value.to(self.device).long()
        if self.codec.spec.encoding != FLOAT16:
            return value.to(self.device, copy=True)
        if room is None:
            return value.to(self.device).float()
        return room[: len(value)].copy_(value)

    def _calibrated(self, parts: Mapping[str, Tensor]) -> Tensor:
        value, fitted = parts[VALUES].float(), self._fitted
        if TOKEN_SCALE in parts:
            value = value.mul_(parts[TOKEN_SCALE].float().unsqueeze(-1))
            value = value.mul_(fitted[CHANNEL_SCALE]).add_(fitted[CHANNEL_MEAN])
        if PROJECTION_BASIS in fitted:
            value = value @ fitted[PROJECTION_BASIS].T + fitted[PROJECTION_MEAN]
        return value


def one_rendition(value_NR: np.ndarray, rendition_N: np.ndarray | None) -> np.ndarray:
    """[N, ...]: of each row of `value_NR` [N, R, ...] its rendition; None: the first, without a copy."""
    return value_NR[:, 0] if rendition_N is None else value_NR[np.arange(len(value_NR)), rendition_N]
