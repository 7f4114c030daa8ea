"""What may be left of ViT tokens before they are stored: [CLS] alone, or [CLS] and pooled patches."""

from __future__ import annotations

import math

import numpy as np

from store.errors import InputError
from store.signals import ALL_TOKENS, CLS_TOKEN


def kept_tokens(tokens: int, kept: str) -> int:
    """How many of L tokens, [CLS] and a square grid of patches, `reduce_tokens` leaves."""
    if kept == ALL_TOKENS:
        return tokens
    if kept == CLS_TOKEN:
        return 1
    pooled = -(-_side(tokens) // 2)
    return 1 + pooled * pooled


def reduce_tokens(values: np.ndarray, kept: str) -> np.ndarray:
    """float32 [..., L, D] -> [..., kept_tokens(L, kept), D].

    pool2x2: the mean of every 2 x 2 patches; of an odd grid (7 x 7 of ViT-B/32) the last row and column pool
    the patches that there are, as average pooling in ceil mode without padding does.
    """
    if kept == ALL_TOKENS:
        return values
    if kept == CLS_TOKEN:
        return values[..., :1, :]
    side = _side(values.shape[-2])
    grid = values[..., 1:, :].reshape(*values.shape[:-2], side, side, values.shape[-1])
    starts = np.arange(0, side, 2)
    sums = np.add.reduceat(np.add.reduceat(grid, starts, axis=-3), starts, axis=-2)
    height = np.minimum(side - starts, 2)
    means = sums / np.multiply.outer(height, height)[..., np.newaxis].astype(np.float32)
    pooled = means.reshape(*values.shape[:-2], len(starts) ** 2, values.shape[-1])
    return np.concatenate([values[..., :1, :], pooled], axis=-2)


def _side(tokens: int) -> int:
    side = math.isqrt(max(tokens - 1, 0))
    if side < 1 or side * side != tokens - 1:
        raise InputError(
            f"pool2x2 needs [CLS] and a square grid of patches, a frame has {tokens} tokens; keep all"
        )
    return side
