"""Side4Video's spatial-temporal side network, on layers of a vision transformer that somebody else computed.

    pixels --- stem (Conv3d, BatchNorm) ---> state [B, M, N, D]
    layer k -- tap k (LayerNorm, linear) --> state <- fused with its patches -> block k -> state
                                                 `- its [CLS] -> block k's attention
    after the last block: BatchNorm

    block: state += depth-wise separable convolution over time of BatchNorm(state)
           state += attention of the patches of a frame to themselves and to the neighbours' [CLS]
           state += MLP(BatchNorm(state))

Yao et al. 2023, section 3.3; equal in numbers to HJYao00/Side4Video, `Retrieval/modules/module_clip.py` and
`Recognition/clip/model.py`. The paper's equation 2 adds a tap to the state, the code takes half of each.
N patches of a frame, row by row; the side network keeps no [CLS] of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

HALF, SUM = "half", "sum"
FUSIONS = {HALF: 0.5, SUM: 1.0}
MLP_RATIO = 4
TIME_TAPS = 3
POSITION_STD = 0.01


@dataclass(frozen=True)
class SideSizes:
    """width: of the side network. heads: of its attention. grid: patches of a frame in a row and in a column.
    patch: pixels of their side. layer_widths: D of each tapped layer. cls_has_position: whether the position
    table has a row for [CLS] (the official retrieval model) or none (recognition)."""

    width: int
    heads: int
    grid: int
    patch: int
    layer_widths: tuple[int, ...]
    cls_has_position: bool

    @property
    def patches(self) -> int:
        return self.grid * self.grid


class Stem(nn.Module):
    """Pixels to the first state: a convolution over three frames and one patch, and BatchNorm."""

    def __init__(self, sizes: SideSizes) -> None:
        super().__init__()
        kernel, stride = (TIME_TAPS, sizes.patch, sizes.patch), (1, sizes.patch, sizes.patch)
        self.convolution = nn.Conv3d(3, sizes.width, kernel, stride, padding=(TIME_TAPS // 2, 0, 0))
        self.norm = PatchNorm(sizes.width)

    def forward(self, pixels_BMCYX: Tensor) -> Tensor:
        """[B, M, N, D] of normalised pixels."""
        maps = self.convolution(pixels_BMCYX.transpose(1, 2))
        normed: Tensor = self.norm(maps.flatten(3).permute(0, 2, 3, 1))
        return normed


class PatchNorm(nn.Module):
    """BatchNorm3d of a state [B, M, N, D]: statistics of every channel over videos, frames and patches.

    The layer inside is one of torch's own, so that several processes can synchronise it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = nn.BatchNorm1d(width)

    def forward(self, state_BMND: Tensor) -> Tensor:
        normed: Tensor = self.channels(state_BMND.flatten(0, 2))
        return normed.view_as(state_BMND)


class Tap(nn.Module):
    """A layer's tokens [B, M, L, D], [CLS] first, at the side network's width (equation 1)."""

    def __init__(self, layer_width: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(layer_width)
        self.down = nn.Linear(layer_width, width)

    def forward(self, layer_BMLD: Tensor) -> Tensor:
        down: Tensor = self.down(self.norm(layer_BMLD))
        return down


class FrameMixing(nn.Module):
    """Depth-wise separable convolution over time: 1x1x1, 3x1x1 channel by channel, 1x1x1, nothing between.

    Before the first and after the last frame are zeros, and where a frame is missing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(width, width), nn.Linear(width, width)
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(width, TIME_TAPS), a=5**0.5))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, state_BMND: Tensor, seen_BM: Tensor | None) -> Tensor:
        inner = without_missing(self.enter(state_BMND), seen_BM)
        before, after = previous_frame(inner), next_frame(inner)
        weight = self.weight.to(inner.dtype)
        mixed = (
            before * weight[:, 0] + inner * weight[:, 1] + after * weight[:, 2] + self.bias.to(inner.dtype)
        )
        left: Tensor = self.leave(mixed)
        return left


class ShiftAttention(nn.Module):
    """Patches attend to the patches of their frame and to a [CLS] that holds the neighbours' halves.

    The first half of its channels is the next frame's, the second the previous one's; nothing of the frame's
    own is left, and beyond the ends are zeros.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, state_BMND: Tensor, cls_BMD: Tensor, position_LD: Tensor, seen_BM: Tensor | None
    ) -> Tensor:
        """What is added to the state. position_LD: of the patches, or of [CLS] and the patches."""
        patches = state_BMND.shape[2]
        cls = shifted(without_missing(cls_BMD, seen_BM)).unsqueeze(2)
        tokens = torch.cat((cls, state_BMND + position_LD[-patches:]), dim=2)
        if len(position_LD) > patches:
            tokens = torch.cat((cls + position_LD[0], tokens[:, :, 1:]), dim=2)
        parts = self.query_key_value(self.norm(tokens)).flatten(0, 1).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        found = functional.scaled_dot_product_attention(query[:, :, 1:], key, value)
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out.view_as(state_BMND)


class SideBlock(nn.Module):
    """Time, space, MLP; each adds to the state."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.time_norm, self.time = PatchNorm(width), FrameMixing(width)
        self.attention = ShiftAttention(width, heads)
        self.mlp_norm = PatchNorm(width)
        self.mlp_in = nn.Linear(width, MLP_RATIO * width)
        self.mlp_out = nn.Linear(MLP_RATIO * width, width)

    def forward(
        self, state_BMND: Tensor, cls_BMD: Tensor, position_LD: Tensor, seen_BM: Tensor | None
    ) -> Tensor:
        state = state_BMND + self.time(self.time_norm(state_BMND), seen_BM)
        state = state + self.attention(state, cls_BMD, position_LD, seen_BM)
        inner = functional.gelu(self.mlp_in(self.mlp_norm(state)))
        state = state + self.mlp_out(inner)
        return state


class SideNetwork(nn.Module):
    """A block for each tapped layer. fusion: "half" of state and tap (the code) or their "sum" (paper)."""

    def __init__(self, sizes: SideSizes, fusion: str = HALF) -> None:
        super().__init__()
        self.share = FUSIONS[fusion]
        self.stem = Stem(sizes)
        self.taps = nn.ModuleList(Tap(of_layer, sizes.width) for of_layer in sizes.layer_widths)
        self.blocks = nn.ModuleList(SideBlock(sizes.width, sizes.heads) for _ in sizes.layer_widths)
        rows = sizes.patches + sizes.cls_has_position
        self.position = nn.Parameter(torch.randn(rows, sizes.width) * POSITION_STD)
        self.norm = PatchNorm(sizes.width)

    def forward(
        self, pixels_BMCYX: Tensor, layers: Sequence[Tensor], seen_BM: Tensor | None = None
    ) -> Tensor:
        """The last state [B, M, N, D], of normalised pixels and the tapped layers [B, M, 1 + N, width].

        seen_BM: bool, which frames there are: no other frame learns anything of one that is missing. None:
        all places are looked at as if a frame stood there, as the official code does.
        """
        state = self.stem(without_missing(pixels_BMCYX, seen_BM))
        for tap, block, layer in zip(self.taps, self.blocks, layers, strict=True):
            down = tap(layer)
            state = self.share * (state + down[:, :, 1:])
            state = block(state, down[:, :, 0], self.position, seen_BM)
        normed: Tensor = self.norm(state)
        return normed


def without_missing(values_BMN: Tensor, seen_BM: Tensor | None) -> Tensor:
    """Zeros where a frame is missing; `values_BMN` [B, M, ...] itself if no one asks."""
    if seen_BM is None:
        return values_BMN
    return values_BMN * seen_BM.view(*seen_BM.shape, *[1] * (values_BMN.ndim - 2))


def previous_frame(values_BMN: Tensor) -> Tensor:
    """[B, M, ...]: of each frame what the one before it has, zeros for the first."""
    return torch.cat((torch.zeros_like(values_BMN[:, :1]), values_BMN[:, :-1]), dim=1)


def next_frame(values_BMN: Tensor) -> Tensor:
    """[B, M, ...]: of each frame what the one after it has, zeros for the last."""
    return torch.cat((values_BMN[:, 1:], torch.zeros_like(values_BMN[:, :1])), dim=1)


def shifted(cls_BMD: Tensor) -> Tensor:
    """[CLS] whose first half of channels is the next frame's, whose second the previous one's."""
    half = cls_BMD.shape[-1] // 2
    return torch.cat((next_frame(cls_BMD[..., :half]), previous_frame(cls_BMD[..., half:])), dim=-1)
