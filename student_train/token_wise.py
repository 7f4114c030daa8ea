"""Token-wise matching: every word finds its frame and every frame its word, each weighed by itself.

    text to video   sum over words of weight * max over frames of the cosine
    video to text   sum over frames of weight * max over words of it
    similarity      the mean of both

DRL (Wang et al. 2022), "weighted token-wise interaction", as Side4Video uses it (section 3.4;
`wti_interaction` in `Retrieval/modules/modeling.py` of HJYao00/Side4Video, whose numbers these are).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

VIDEOS_AT_ONCE = 64


@dataclass(frozen=True)
class WeighedTokens:
    """Frames or words of rows. feature: [N, K, D], of length 1. weight: [N, K], rows sum to 1. valid: [N, K]
    float, 0 for a place that is empty."""

    feature: Tensor
    weight: Tensor
    valid: Tensor


class TokenWeight(nn.Module):
    """How much each token counts: softmax over the valid ones of linear, ReLU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.score = nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, tokens_NKD: Tensor, valid_NK: Tensor) -> Tensor:
        """[N, K] of features that are not normalised."""
        score = self.score(functional.relu(self.hidden(tokens_NKD))).squeeze(-1)
        return score.masked_fill(~valid_NK, torch.finfo(score.dtype).min).softmax(-1)


def token_wise_similarity(frames: WeighedTokens, words: WeighedTokens, masked: bool) -> Tensor:
    """[V, T], between -1 and 1.

    masked: an empty place is never anybody's best. False, the official code: its cosine counts as 0, so that
    the best word of a frame is never below 0 where the text has empty places; frames are not masked at all.
    """
    parts = [
        strip_similarity(strip, words, masked)
        for strip in (
            WeighedTokens(*(part[start : start + VIDEOS_AT_ONCE] for part in vars(frames).values()))
            for start in range(0, len(frames.feature), VIDEOS_AT_ONCE)
        )
    ]
    return torch.cat(parts)


def strip_similarity(frames: WeighedTokens, words: WeighedTokens, masked: bool) -> Tensor:
    """The same of few videos, since it holds [V, T, W, M]."""
    cosine_VTWM = torch.einsum("vmd,twd->vtwm", frames.feature, words.feature)
    lowest = -torch.inf
    if masked:
        empty = ~frames.valid.bool()
        best_frame_VTW = cosine_VTWM.masked_fill(empty[:, None, None, :], lowest).amax(-1)
        best_word_VTM = cosine_VTWM.masked_fill(~words.valid.bool()[None, :, :, None], lowest).amax(-2)
    else:
        cosine_VTWM = cosine_VTWM * words.valid[None, :, :, None]
        best_frame_VTW, best_word_VTM = cosine_VTWM.amax(-1), cosine_VTWM.amax(-2)
    of_text = (best_frame_VTW * words.weight[None]).sum(-1)
    of_video = (best_word_VTM * frames.weight[:, None]).sum(-1)
    return (of_text + of_video) / 2
