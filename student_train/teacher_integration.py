"""MCAD's integration module: a dual-stream teacher's vectors, moved by a single-stream teacher's fused [CLS].

    text   T = norm(g3(T_DS) + alpha * g1(H))        equations 12 and 13; g1 to g4 are MLPs of two layers
    video  I = norm(g4(I_DS) + alpha * g2(H))

H is the fused [CLS] of a pair, g1 and g2 are 0 for a pair outside of the k best of both directions. Equation
13 puts a text's vector and a pair's together and does not say which pair's. Two readings (`fusion_pairs`):

    matched     of the text with its own video, if that pair is among the k best of either
    mean_topk   the mean of g(H) over the k best: a text's k videos, a video's k texts
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

MATCHED, MEAN_TOPK = "matched", "mean_topk"
FUSION_PAIRS = (MATCHED, MEAN_TOPK)


@dataclass(frozen=True)
class FusedPairs:
    """Fused [CLS] of pairs, for own rows: `features` [b, P, D] of P pairs each, `there` [b, P] bool."""

    features: Tensor
    there: Tensor


def matched_pairs(own_b: Tensor, *directions: tuple[Tensor, Tensor]) -> FusedPairs:
    """Of every own pair its fused [CLS], P = 1, from the first direction that holds it.

    own_b: place of each own pair in the global batch. directions: places [b, k] of the k best, and the fused
    [CLS] [b, k, D] of those pairs.
    """
    features, there = [], []
    for place_bk, fused_bkD in directions:
        is_own_bk = place_bk == own_b.unsqueeze(-1)
        features.append((fused_bkD * is_own_bk.unsqueeze(-1)).sum(1))
        there.append(is_own_bk.any(-1))
    found, known = features[0], there[0]
    for more, more_known in zip(features[1:], there[1:], strict=True):
        found = torch.where(known.unsqueeze(-1), found, more)
        known = known | more_known
    return FusedPairs(found.unsqueeze(1), known.unsqueeze(1))


def two_layers(width: int, to: int) -> nn.Sequential:
    """An MLP as the paper's g: linear, ReLU, linear."""
    return nn.Sequential(nn.Linear(width, to), nn.ReLU(), nn.Linear(to, to))


class TeacherIntegration(nn.Module):
    """g1 to g4, alpha, and the temperature of the integrated teacher, all learned.

    dual_width: of the dual-stream teacher's vectors. fused_width: of the fused [CLS], None where the cache
    holds none: the gate of equation 12 is then shut for all pairs. width: of what comes out.
    logit_scale: 1 / temperature at the start. alpha starts at 1.
    """

    def __init__(self, dual_width: int, fused_width: int | None, width: int, logit_scale: float) -> None:
        super().__init__()
        self.text = two_layers(dual_width, width)
        self.video = two_layers(dual_width, width)
        if fused_width is not None:
            self.text_of_pair = two_layers(fused_width, width)
            self.video_of_pair = two_layers(fused_width, width)
            self.alpha = nn.Parameter(torch.ones(()))
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(logit_scale)))

    def forward(
        self,
        video_bD: Tensor,
        text_bD: Tensor,
        pairs_of_video: FusedPairs | None = None,
        pairs_of_text: FusedPairs | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Integrated vectors of videos and texts [b, D], of length 1, from those of the dual-stream teacher.

        Each side's pairs are given where `fused_width` is.
        """
        video, text = self.video(video_bD), self.text(text_bD)
        if pairs_of_video is not None and pairs_of_text is not None:
            video = video + self.alpha * gated_mean(self.video_of_pair, pairs_of_video)
            text = text + self.alpha * gated_mean(self.text_of_pair, pairs_of_text)
        return functional.normalize(video, dim=-1), functional.normalize(text, dim=-1)


def gated_mean(project: nn.Module, pairs: FusedPairs) -> Tensor:
    """Mean [b, D] of what `project` makes of the pairs that are there; 0 without any (equation 12)."""
    projected_bPD = project(pairs.features) * pairs.there.unsqueeze(-1)
    return projected_bPD.sum(1) / pairs.there.sum(-1, keepdim=True).clamp(min=1)
