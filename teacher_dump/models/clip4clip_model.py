"""CLIP4Clip: frames over time, their mean, and the cosine with the sentence.

Luo et al. 2021, "CLIP4Clip: An Empirical Study of CLIP for End to End Video Clip Retrieval"; the numbers are
those of ArrowLuo/CLIP4Clip `modules/modeling.py`, but our scores are [video, text].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError
from teacher_dump.models.clip_towers import CLIP_HEAD_WIDTH, TowerSizes, build_towers, count_blocks, towers_of
from teacher_dump.models.temporal import mean_of_frames, over_time, temporal_transformer

MEAN, SEQUENCE = "meanP", "seqTransf"
POSITION = "frame_position_embeddings.weight"
# What tells the heads apart that CLIP4Clip offers besides and this teacher has not.
OTHER_HEADS = {"lstm_visual.": "seqLSTM", "cross.": "tightTransf", "clip.visual.conv2.": "3d patches"}


@dataclass(frozen=True)
class Clip4ClipSizes:
    """Sizes of the towers and of the temporal transformer; no temporal layers is meanP."""

    towers: TowerSizes
    temporal_layers: int
    positions: int

    @property
    def head(self) -> str:
        return SEQUENCE if self.temporal_layers else MEAN

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], head_width: int = CLIP_HEAD_WIDTH) -> Clip4ClipSizes:
        """Read the sizes off the shapes of an official state; raises InputError where it is none."""
        for prefix, head in OTHER_HEADS.items():
            if any(name.startswith(prefix) for name in state):
                raise InputError(
                    f"this checkpoint of CLIP4Clip has {head} ({prefix}*); known are meanP and seqTransf "
                    "with 2d patches"
                )
        layers = count_blocks(state, "transformerClip.resblocks.")
        if layers and POSITION not in state:
            raise InputError(f"not a checkpoint of CLIP4Clip: it has transformerClip and lacks {POSITION!r}")
        positions = len(state[POSITION]) if layers else 0
        return cls(TowerSizes.from_state(towers_of(state), head_width), layers, positions)


class Clip4Clip(nn.Module):
    """The towers, and for seqTransf the transformer over frames; parameters have their official names."""

    def __init__(self, sizes: Clip4ClipSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.clip = build_towers(sizes.towers)
        if sizes.temporal_layers:
            width = sizes.towers.embed_dim
            self.frame_position_embeddings = nn.Embedding(sizes.positions, width)
            self.transformerClip = temporal_transformer(width, sizes.temporal_layers, sizes.towers.head_width)

    def temporal_frames(self, frames_VMD: Tensor, frame_valid_VM: Tensor) -> Tensor:
        """Frames [V, M, D] after the temporal transformer and its outer residual, not normalised; with meanP
        the frames themselves."""
        if not self.sizes.temporal_layers:
            return frames_VMD
        return over_time(self.transformerClip, self.frame_position_embeddings, frames_VMD, frame_valid_VM)

    def logits(self, temporal_VMD: Tensor, frame_valid_VM: Tensor, sentence_TD: Tensor) -> Tensor:
        """exp(logit_scale) times the cosine [V, T] of the pooled `temporal_frames` with the sentences."""
        video_VD = mean_of_frames(temporal_VMD, frame_valid_VM)
        return self.clip.logit_scale.exp() * video_VD @ functional.normalize(sentence_TD, dim=-1).T
