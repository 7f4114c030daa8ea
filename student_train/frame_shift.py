"""Convolutions over time, channel by channel: what frames tell their neighbours.

    T1D        on frame features, or in front of every block of a ResNet's last two stages (res4, res5)
    TSM        the same place, a fixed shift in place of a learned convolution
    TokenT1D   on [CLS] alone, twice in every block of a vision transformer

Text4Vis, section 4.2 and table 2; `modules/temporal_modeling.py` of whwu95/Text4Vis. A kernel has three taps:
the previous frame, the same, the next; beyond the ends of a video are zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

TAPS = 3
PREVIOUS, SAME, NEXT = range(TAPS)
TSM_SHARE = 8
"""TSM moves an eighth of the channels each way."""
TOKEN_SHARE = 4
"""TokenT1D starts with a quarter of them each way."""


def shift_kernel(width: int, share: int) -> Tensor:
    """[width, 1, 3]: the first 1 / share of the channels take the next frame's value, as many the previous
    one's, the rest stay."""
    kernel, moved = torch.zeros(width, 1, TAPS), width // share
    kernel[:moved, 0, NEXT] = 1
    kernel[moved : 2 * moved, 0, PREVIOUS] = 1
    kernel[2 * moved :, 0, SAME] = 1
    return kernel


class FrameConvolution(nn.Module):
    """A depth-wise convolution over frames without a bias, which starts as a shift; learned, or fixed."""

    def __init__(self, width: int, share: int, learned: bool = True) -> None:
        super().__init__()
        kernel = shift_kernel(width, share)
        if learned:
            self.weight = nn.Parameter(kernel)
        else:
            self.register_buffer("weight", kernel, persistent=False)

    def forward(self, values_BMN: Tensor) -> Tensor:
        """values_BMN: [B, M, D, ...], every place of the axes after D by itself."""
        moved = values_BMN.movedim(1, -1)
        kernel = self.weight.to(moved.dtype)
        found = functional.conv1d(
            moved.movedim(1, -2).flatten(0, -3), kernel, padding=TAPS // 2, groups=len(kernel)
        )
        return found.unflatten(0, (moved.shape[0], *moved.shape[2:-1])).movedim(-2, 1).movedim(-1, 1)
