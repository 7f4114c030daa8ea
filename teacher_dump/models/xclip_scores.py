"""X-CLIP: four similarities between a video and a text, from whole to part, and their mean.

Ma et al. 2022, "X-CLIP: End-to-End Multi-grained Contrastive Learning for Video-Text Retrieval";
numbers match `modules/modeling_xclip.py` of the authors and of TeachCLIP's fork, but our scores are
[video, text].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError
from teacher_dump.models.clip_towers import TowerSizes, build_towers, count_blocks, towers_of
from teacher_dump.models.temporal import mean_of_frames, over_time, temporal_transformer

ATTENTION_TEMPERATURE = 0.01


@dataclass(frozen=True)
class XClipSizes:
    """Sizes of the towers and of what lies above them; `frames` M and `words` W are fixed by the matrices."""

    towers: TowerSizes
    frames: int
    words: int
    temporal_layers: int
    positions: int

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], head_width: int = 64) -> XClipSizes:
        """Read the sizes off the shapes of an official state; raises InputError where it is none."""
        for name in ("frame_mat_weight", "word_mat_weight", "frame_position_embeddings.weight"):
            if name not in state:
                raise InputError(
                    f"not an X-CLIP checkpoint: it lacks {name!r}; it has {', '.join(sorted(state)[:3])} ..."
                )
        return cls(
            towers=TowerSizes.from_state(towers_of(state), head_width),
            frames=len(state["frame_mat_weight"]),
            words=len(state["word_mat_weight"]),
            temporal_layers=count_blocks(state, "transformerClip.resblocks."),
            positions=len(state["frame_position_embeddings.weight"]),
        )


class XClip(nn.Module):
    """The towers, the temporal transformer and the learned matrices of the four scores.

    Parameters are named as in the official checkpoint. Features come in as the towers give them, not
    normalised; letters: V videos, T texts, M frames, W words, D width.
    """

    global_mat_weight: nn.Parameter
    local_mat_weight: nn.Parameter
    frame_logit_weight: nn.Parameter
    frame_mat_weight: nn.Parameter
    frame_mat_weight2: nn.Parameter
    word_logit_weight: nn.Parameter
    word_mat_weight: nn.Parameter
    word_mat_weight2: nn.Parameter

    def __init__(self, sizes: XClipSizes) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.towers.embed_dim
        self.clip = build_towers(sizes.towers)
        self.transformerClip = temporal_transformer(width, sizes.temporal_layers, sizes.towers.head_width)
        self.frame_position_embeddings = nn.Embedding(sizes.positions, width)
        for name, length in (
            ("global_mat_weight", width),
            ("local_mat_weight", width),
            ("frame_logit_weight", sizes.frames),
            ("frame_mat_weight", sizes.frames),
            ("frame_mat_weight2", sizes.frames),
            ("word_logit_weight", sizes.words),
            ("word_mat_weight", sizes.words),
            ("word_mat_weight2", sizes.words),
        ):
            self.register_parameter(name, nn.Parameter(torch.eye(length)))

    def logit_scale(self) -> Tensor:
        return self.clip.logit_scale.exp()

    def temporal_frames(self, frames_VMD: Tensor, frame_valid_VM: Tensor) -> Tensor:
        """Frames [V, M, D] after the temporal transformer and its outer residual, not normalised."""
        return over_time(self.transformerClip, self.frame_position_embeddings, frames_VMD, frame_valid_VM)

    def video_feature(self, frames_VMD: Tensor, frame_valid_VM: Tensor) -> Tensor:
        """Normalised mean [V, D] over the valid, normalised temporal frames."""
        return mean_of_frames(self.temporal_frames(frames_VMD, frame_valid_VM), frame_valid_VM)

    def scores(
        self, frames_VMD: Tensor, frame_valid_VM: Tensor, sentence_TD: Tensor, words_TWD: Tensor
    ) -> dict[str, Tensor]:
        """The four scores [V, T], each times exp(logit_scale).

        Only the video feature knows which frames are valid; frame scores see padded frames, word scores
        see padded words, as in the official code. Memory grows as V * M * T * W.
        """
        video_VD = self.video_feature(frames_VMD, frame_valid_VM)
        frames_VMD = functional.normalize(frames_VMD, dim=-1)
        sentence_TD = functional.normalize(sentence_TD, dim=-1)
        words_TWD = functional.normalize(words_TWD, dim=-1)
        video_word_VTW = torch.einsum("vd,twd->vtw", video_VD, words_TWD)
        sentence_frame_VTM = torch.einsum("vmd,td->vtm", frames_VMD, sentence_TD)
        scores = {
            "video_sentence": video_VD @ (sentence_TD @ self.global_mat_weight).T,
            "video_word": attend(video_word_VTW, self.word_logit_weight),
            "sentence_frame": attend(sentence_frame_VTM, self.frame_logit_weight),
            "frame_word": self._frame_word(frames_VMD, words_TWD),
        }
        return {name: score * self.logit_scale() for name, score in scores.items()}

    def _frame_word(self, frames_VMD: Tensor, words_TWD: Tensor) -> Tensor:
        """Words first then frames, frames first then words, and the mean of the two: [V, T]."""
        local_VTMW = torch.einsum("vmd,twd->vtmw", frames_VMD, words_TWD @ self.local_mat_weight)
        frame_VTM = attend(local_VTMW, self.word_mat_weight)
        word_VTW = attend(local_VTMW.transpose(2, 3), self.frame_mat_weight)
        return (attend(frame_VTM, self.frame_mat_weight2) + attend(word_VTW, self.word_mat_weight2)) / 2

    def logits(
        self, frames_VMD: Tensor, frame_valid_VM: Tensor, sentence_TD: Tensor, words_TWD: Tensor
    ) -> Tensor:
        """Mean [V, T] of the four scores."""
        scores = self.scores(frames_VMD, frame_valid_VM, sentence_TD, words_TWD)
        return torch.stack(tuple(scores.values())).mean(0)


def attend(similarity: Tensor, mixing: Tensor) -> Tensor:
    """Sum over the last axis, weighted by softmax(similarity / 0.01) @ mixing; mixing [N, N] is learned."""
    weight = functional.softmax(similarity / ATTENTION_TEMPERATURE, dim=-1) @ mixing
    return (similarity * weight).sum(-1)


def frame_relevance(frames_BMD: Tensor, sentence_BD: Tensor) -> Tensor:
    """Cosine [B, M] of each frame with the matched sentence; padded frames get one too.

    The raw frame feature is meant, before the temporal transformer (TeachCLIP's fork of X-CLIP).
    """
    return torch.einsum(
        "bmd,bd->bm", functional.normalize(frames_BMD, dim=-1), functional.normalize(sentence_BD, dim=-1)
    )
