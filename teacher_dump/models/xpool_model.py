"""X-Pool: a sentence attends to the frames of a video, and is compared with what it gathered.

Gorti et al. 2022, "X-Pool: Cross-Modal Language-Video Attention for Text-Video Retrieval"; the numbers are
those of layer6ai-labs/xpool `modules/transformer.py`, `model/clip_transformer.py` (and of TeachCLIP's
`modules/modeling_xpool.py`, whose logits carry the scale), but our scores are [video, text].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError
from teacher_dump.models.clip_towers import CLIP_HEAD_WIDTH, TowerSizes, build_towers, towers_of
from teacher_dump.models.hugging_face_clip import openai_names

POOLING = "pool_frames."


@dataclass(frozen=True)
class XPoolSizes:
    """Sizes of the towers; the pooling is one attention of `heads` heads over frames (officially one)."""

    towers: TowerSizes
    heads: int = 1

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], head_width: int = CLIP_HEAD_WIDTH) -> XPoolSizes:
        """Read the sizes off `own_state`."""
        return cls(TowerSizes.from_state(towers_of(state), head_width))


def own_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official state (Hugging Face's names under "clip.") under ours; InputError where it is none."""
    if not any(name.startswith(POOLING) for name in state):
        raise InputError(
            f"not an X-Pool checkpoint: nothing in it starts with {POOLING!r}; it has "
            f"{', '.join(sorted(state)[:3])} ..."
        )
    others = {name: value for name, value in state.items() if not name.startswith("clip.")}
    return {**{f"clip.{name}": value for name, value in openai_names(towers_of(state)).items()}, **others}


class CrossAttention(nn.Module):
    """Sentences ask, frames answer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def weights_of(self, sentence_TD: Tensor, frames_VMD: Tensor) -> Tensor:
        """Attention before its softmax, [V, T, H, M]."""
        query_THD = self.q_proj(sentence_TD).unflatten(-1, (self.heads, -1))
        key_VMHD = self.k_proj(frames_VMD).unflatten(-1, (self.heads, -1))
        return torch.einsum("vmhd,thd->vthm", key_VMHD, query_THD) / math.sqrt(query_THD.shape[-1])

    def forward(self, sentence_TD: Tensor, frames_VMD: Tensor) -> Tensor:
        weight_VTHM = self.weights_of(sentence_TD, frames_VMD).softmax(-1)
        value_VMHD = self.v_proj(frames_VMD).unflatten(-1, (self.heads, -1))
        gathered: Tensor = self.out_proj(torch.einsum("vthm,vmhd->vthd", weight_VTHM, value_VMHD).flatten(2))
        return gathered


class FramePooling(nn.Module):
    """One block without a residual around its attention; both sides share the first LayerNorm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.cross_attn = CrossAttention(width, heads)
        self.linear_proj = nn.Linear(width, width)
        self.layer_norm1, self.layer_norm2, self.layer_norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, sentence_TD: Tensor, frames_VMD: Tensor) -> Tensor:
        """[V, T, D]."""
        gathered = self.cross_attn(self.layer_norm1(sentence_TD), self.layer_norm1(frames_VMD))
        gathered = self.layer_norm2(gathered)
        pooled: Tensor = self.layer_norm3(gathered + self.linear_proj(gathered))
        return pooled


class XPool(nn.Module):
    """The towers and the pooling. There is no mask of frames anywhere: padded ones take part.

    Features come in as the towers give them, not normalised.
    """

    def __init__(self, sizes: XPoolSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.clip = build_towers(sizes.towers)
        self.pool_frames = FramePooling(sizes.towers.embed_dim, sizes.heads)

    def cosines(self, frames_VMD: Tensor, sentence_TD: Tensor) -> Tensor:
        """[V, T]: each sentence with the video that it pooled. Memory grows as V * T * D."""
        pooled_VTD = functional.normalize(self.pool_frames(sentence_TD, frames_VMD), dim=-1)
        return torch.einsum("vtd,td->vt", pooled_VTD, functional.normalize(sentence_TD, dim=-1))

    def logits(self, frames_VMD: Tensor, sentence_TD: Tensor) -> Tensor:
        """[V, T]: exp(logit_scale) times `cosines`."""
        scores: Tensor = self.clip.logit_scale.exp() * self.cosines(frames_VMD, sentence_TD)
        return scores

    def relevance(self, frames_VMD: Tensor, sentence_TD: Tensor) -> Tensor:
        """Attention before its softmax [V, T, M], mean over heads."""
        pooling = self.pool_frames
        return pooling.cross_attn.weights_of(
            pooling.layer_norm1(sentence_TD), pooling.layer_norm1(frames_VMD)
        ).mean(2)
