"""CLIP4Clip's temporal transformer ("seqTransf"): frame features that know of each other.

    frames [B, M, D] + position -> blocks (keys of empty places masked) -> + frames (outer residual)

Details that change numbers, as in ruc-aimc-lab/TeachCLIP `modules/`: LayerNorm with eps 1e-12, not
CLIP's 1e-5; QuickGELU; an additive mask of -1e6, not -inf, on keys only, so that empty places are
computed as queries too; the outer residual adds the frames without their position.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError

LAYER_NORM_EPS = 1e-12
MASKED_KEY = -1e6
HEAD_WIDTH = 64
MLP_RATIO = 4
POSITION_STD = 0.01
BLOCK_NAMES = {
    "attn.in_proj_weight": "query_key_value.weight",
    "attn.in_proj_bias": "query_key_value.bias",
    "attn.out_proj.weight": "attention_out.weight",
    "attn.out_proj.bias": "attention_out.bias",
    "ln_1.weight": "attention_norm.weight",
    "ln_1.bias": "attention_norm.bias",
    "mlp.c_fc.weight": "mlp_in.weight",
    "mlp.c_fc.bias": "mlp_in.bias",
    "mlp.c_proj.weight": "mlp_out.weight",
    "mlp.c_proj.bias": "mlp_out.bias",
    "ln_2.weight": "mlp_norm.weight",
    "ln_2.bias": "mlp_norm.bias",
}
"""A block's parameters, by the names that OpenAI's CLIP gives them."""


class TemporalTransformer(nn.Module):
    """`layers` pre-norm blocks over at most `frames` M frames of `width` D."""

    def __init__(self, width: int, frames: int, layers: int, heads: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(frames, width) * POSITION_STD)
        self.blocks = nn.ModuleList(TemporalBlock(width, heads, layers) for _ in range(layers))

    def forward(self, frames_BMD: Tensor, frame_valid_BM: Tensor) -> Tensor:
        """Frame features [B, M, D] after the blocks; frame_valid_BM: bool, False for an empty place."""
        key_mask = (~frame_valid_BM)[:, None, None, :].to(frames_BMD.dtype) * MASKED_KEY
        hidden = frames_BMD + self.position[: frames_BMD.shape[1]]
        for block in self.blocks:
            hidden = block(hidden, key_mask)
        return hidden + frames_BMD

    def start_from_text(self, text: Any) -> None:
        """CLIP4Clip's initialisation: the first blocks and positions of CLIP's text tower.

        text: has `transformer.resblocks` and `positional_embedding`, named and shaped as OpenAI's are. Raises
        InputError where it is of another width or has fewer blocks.
        """
        blocks, positions = list(text.transformer.resblocks), text.positional_embedding
        frames, width = self.position.shape
        if positions.shape[1] != width or len(blocks) < len(self.blocks) or len(positions) < frames:
            raise InputError(
                f"a text tower of {len(blocks)} blocks, {len(positions)} positions and width "
                f"{positions.shape[1]} can't start a temporal transformer of {len(self.blocks)} blocks, "
                f"{frames} frames and width {width}; choose another architecture, or no public weights"
            )
        with torch.no_grad():
            self.position.copy_(positions[:frames])
        for block, source in zip(self.blocks, blocks, strict=False):
            block.load_state_dict(
                {BLOCK_NAMES[name]: value.float() for name, value in source.state_dict().items()}
            )


class TemporalBlock(nn.Module):
    """Attention and MLP, each normalised before and added after; CLIP's initialisation."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp_in = nn.Linear(width, MLP_RATIO * width)
        self.mlp_out = nn.Linear(MLP_RATIO * width, width)
        residual_std = width**-0.5 * (2 * layers) ** -0.5
        for linear, std in (
            (self.query_key_value, width**-0.5),
            (self.attention_out, residual_std),
            (self.mlp_in, (2 * width) ** -0.5),
            (self.mlp_out, residual_std),
        ):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)

    def forward(self, hidden_BMD: Tensor, key_mask: Tensor) -> Tensor:
        hidden_BMD = hidden_BMD + self.attend(self.attention_norm(hidden_BMD), key_mask)
        return hidden_BMD + self.mlp_out(quick_gelu(self.mlp_in(self.mlp_norm(hidden_BMD))))

    def attend(self, hidden_BMD: Tensor, key_mask: Tensor) -> Tensor:
        batch, frames, width = hidden_BMD.shape
        heads = self.query_key_value(hidden_BMD).view(batch, frames, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=key_mask)
        return self.attention_out(mixed.transpose(1, 2).reshape(batch, frames, width))


def quick_gelu(value: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), OpenAI CLIP's stand-in for GELU."""
    return value * torch.sigmoid(1.702 * value)


def default_heads(width: int) -> int:
    """CLIP's rule, one head for 64 of width, and at least one."""
    return max(1, width // HEAD_WIDTH)
