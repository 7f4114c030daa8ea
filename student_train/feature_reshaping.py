"""A student's feature maps brought to the teacher's tokens (CLIPPING, section 3.3.2, figure 3).

    map [N, C, Y, X] --linear--> [N, D', Y, X] --pixel re-shuffle--> [N, D, G, G] --> tokens [N, P, D]

The teacher's tokens are a grid of P = G x G patches in row-major order, [CLS] left out. Where a map is finer
than the grid, each r x r of its pixels become channels of one token (D' = D / r^2, rounded up, what is too
much cut off); where it is coarser, channels become pixels (D' = D r^2). A map that is no multiple of the grid
is averaged to the next smaller one that is: MobileViT-v2 rounds its sides up to even numbers, so the last
one of 224 pixels is 8 x 8, not 7 x 7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError


def patch_grid(tokens: int, signal: str) -> int:
    """G of a signal with [CLS] and G x G patches, `tokens` in all; raises InputError for another count."""
    side = math.isqrt(tokens - 1)
    if tokens < 2 or side * side != tokens - 1:
        raise InputError(
            f"{signal} has {tokens} tokens a frame, not [CLS] and a square of patches; dump the layers with "
            "--tokens all or pool2x2"
        )
    return side


class MapToTokens(nn.Module):
    """One map of `channels` channels and `side` x `side` pixels to `grid` x `grid` tokens of `width`."""

    def __init__(self, channels: int, side: int, grid: int, width: int) -> None:
        super().__init__()
        self.grid, self.width = grid, width
        self.finer = max(1, side // grid)
        self.coarser = -(-grid // side)
        within = -(-width // self.finer**2) * self.coarser**2
        self.linear = nn.Conv2d(channels, within, kernel_size=1)

    def forward(self, map_NCYX: Tensor) -> Tensor:
        """Tokens [N, P, width]."""
        mapped = self.linear(map_NCYX)
        if self.coarser > 1:
            mapped = functional.pixel_shuffle(mapped, self.coarser)
        mapped = functional.adaptive_avg_pool2d(mapped, self.grid * self.finer)
        tokens = functional.pixel_unshuffle(mapped, self.finer)[:, : self.width]
        return tokens.flatten(2).transpose(1, 2)


class FeatureReshaping(nn.Module):
    """All chosen maps of a student, each with a linear map of its own, stacked as layers."""

    def __init__(self, maps: Sequence[tuple[int, int]], grid: int, width: int) -> None:
        """maps: channels and side of each."""
        super().__init__()
        self.layers = nn.ModuleList(MapToTokens(channels, side, grid, width) for channels, side in maps)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Layers [N, J, P, D] of J maps [N, C, Y, X]."""
        return torch.stack([layer(one) for layer, one in zip(self.layers, maps, strict=True)], dim=1)
