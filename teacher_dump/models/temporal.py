"""The transformer over frames of CLIP4Clip's seqTransf, which X-CLIP and TS2-Net inherit.

Luo et al. 2021, "CLIP4Clip"; ArrowLuo/CLIP4Clip `modules/modeling.py`, `modules/module_cross.py`.
"""

from __future__ import annotations

from functools import partial

import torch
from open_clip.transformer import QuickGELU, Transformer
from torch import Tensor, nn
from torch.nn import functional

PADDED_FRAME_BIAS = -1e6
# The official temporal blocks carry their own LayerNorm, with BERT's epsilon.
TEMPORAL_LAYER_NORM_EPS = 1e-12


def temporal_transformer(width: int, layers: int, head_width: int) -> Transformer:
    """Blocks with QuickGELU and BERT's epsilon; parameters are named as in the official checkpoints."""
    return Transformer(
        width,
        layers,
        heads=width // head_width,
        act_layer=QuickGELU,
        norm_layer=partial(nn.LayerNorm, eps=TEMPORAL_LAYER_NORM_EPS),
    )


def over_time(
    transformer: Transformer, position: nn.Embedding, steps_VND: Tensor, valid_VN: Tensor
) -> Tensor:
    """Features [V, N, D] after the transformer and its outer residual, not normalised.

    steps_VND: frames (or tokens of frames), not normalised; their position embeddings are not part of the
    residual. valid_VN: bool; padded steps are hidden as keys only, as queries they are computed like others.
    """
    steps = steps_VND.shape[1]
    heads = transformer.resblocks[0].attn.num_heads
    bias_VN = torch.where(valid_VN, 0.0, PADDED_FRAME_BIAS)
    bias_HNN = bias_VN[:, None, None, :].expand(-1, heads, steps, -1).reshape(-1, steps, steps)
    return transformer(steps_VND + position.weight[:steps], attn_mask=bias_HNN) + steps_VND


def mean_of_frames(frames_VMD: Tensor, valid_VM: Tensor) -> Tensor:
    """CLIP4Clip's pooling [V, D]: frames normalised, mean over the valid ones, normalised again."""
    frames_VMD = functional.normalize(frames_VMD, dim=-1)
    valid_VM1 = valid_VM[:, :, None].to(frames_VMD.dtype)
    return functional.normalize((frames_VMD * valid_VM1).sum(1) / valid_VM1.sum(1).clamp(min=1.0), dim=-1)
