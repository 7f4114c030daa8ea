"""TeachCLIP's student on frozen, cached features: temporal transformer, AFA, cosine with the text.

    frame_embedding -> temporal transformer -> frames -> AFA: softmax(linear(relu(linear))) -> weights
    video embedding = sum of L2-normalised frames by weight;   text_embedding -> text projection

TeachCLIP, section 3.2; equal in numbers to ruc-aimc-lab/TeachCLIP `modules/modeling.py`, class
CLIP4Clip: AFA reads the frames before they are normalised; pooling divides the scores by a temperature
of 0.1, the weight that is taught does not; an empty place is masked in the transformer's attention but
not in AFA (`mask_padding` masks it there too). The towers stay frozen, so a text projection, which
starts as the identity, stands for the training of the text tower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError
from student_train.config import KEEP_LAST, Optimizer, Recipe
from student_train.losses.teachclip import (
    coarse_pearson,
    fine_cross_entropy_mean,
    fine_cross_entropy_sum,
    info_nce,
)
from student_train.needs import IGNORED_PAIR, PAIR_KNOWN, PAIR_SCORES
from student_train.students.base import (
    Batch,
    LossTerm,
    SignalSizes,
    Student,
    StudentConfig,
    cosine_similarity,
)
from student_train.temporal_transformer import TemporalTransformer, default_heads

AFA = "afa"
MEAN = "mean"
AGGREGATIONS = (AFA, MEAN)
MAX_LOGIT_SCALE = 100.0
LINEAR_STD = 0.02


@dataclass(frozen=True)
class Config(StudentConfig):
    """What the student is made of.

    aggregation: "afa", or "mean" over the valid frames (CLIP4Clip). temporal_layers: blocks of the
    transformer. heads: of its attention; None is one for 64 of width. pooling_temperature: divides
    AFA's scores where they pool. mask_padding: give empty places no weight. logit_scale: what
    multiplies the cosine at the start; it is trained, up to 100. frame_scale: multiplies the frame
    features first; 1 as published, less where a teacher's features are much longer than the
    transformer's first outputs.
    """

    aggregation: str = AFA
    temporal_layers: int = 4
    heads: int | None = None
    pooling_temperature: float = 0.1
    mask_padding: bool = False
    logit_scale: float = 100.0
    frame_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.aggregation not in AGGREGATIONS:
            raise InputError(f"aggregation is one of {AGGREGATIONS}, not {self.aggregation!r}")
        if self.temporal_layers < 0 or min(self.pooling_temperature, self.logit_scale, self.frame_scale) <= 0:
            raise InputError(f"layers start at 0, temperature and scales lie above 0, got {self}")

    @property
    def needs(self) -> tuple[str, ...]:
        return ("frame_embedding", "text_embedding")


class FrameAttention(nn.Module):
    """AFA: a score for every frame from the frame alone, linear, ReLU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)
        for linear in (self.hidden, self.score):
            nn.init.normal_(linear.weight, std=LINEAR_STD)
            nn.init.zeros_(linear.bias)

    def forward(self, frames_BMD: Tensor) -> Tensor:
        """Scores [B, M] before any softmax."""
        return self.score(functional.relu(self.hidden(frames_BMD))).squeeze(-1)


class AfaStudent(Student):
    """Frozen features in, one vector a video and one a text out."""

    config: Config

    def __init__(self, config: Config, frames: int, width: int) -> None:
        super().__init__()
        self.config = config
        heads = config.heads or default_heads(width)
        if width % heads:
            raise InputError(f"{heads} attention heads do not divide a width of {width}; take another number")
        self.temporal = TemporalTransformer(width, frames, config.temporal_layers, heads)
        self.attention = FrameAttention(width) if config.aggregation == AFA else None
        self.text_projection = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.text_projection.weight)
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(config.logit_scale)))
        scored = ("frame_score", "log_frame_weight") if self.attention is not None else ()
        self.gives = ("video_embedding", "frame_weight", *scored, "text_embedding", "logits")

    def encode_videos(self, batch: Batch) -> dict[str, Tensor]:
        """`video_embedding` [B, D], not normalised; `frame_weight` [B, M], by which frames are pooled.

        With AFA also `frame_score` [B, M], raw, and `log_frame_weight` [B, M], the log of the weight
        that is taught: softmax of the scores at temperature 1.
        """
        valid = batch["frame_valid"]
        frames = self.temporal(self.config.frame_scale * batch["frame_embedding"], valid)
        outputs = {}
        if self.attention is None:
            weight = valid / valid.sum(-1, keepdim=True).clamp(min=1)
        else:
            outputs["frame_score"] = self.attention(frames)
            score = outputs["frame_score"]
            if self.config.mask_padding:
                score = score.masked_fill(~valid, torch.finfo(score.dtype).min)
            outputs["log_frame_weight"] = score.log_softmax(-1)
            weight = (score / self.config.pooling_temperature).softmax(-1)
        pooled = (functional.normalize(frames, dim=-1) * weight.unsqueeze(-1)).sum(1)
        return {"video_embedding": pooled, "frame_weight": weight, **outputs}

    def encode_texts(self, batch: Batch) -> dict[str, Tensor]:
        return {"text_embedding": self.text_projection(batch["text_embedding"])}

    def similarity(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        cosine = cosine_similarity(videos["video_embedding"], texts["text_embedding"])
        return self.log_logit_scale.exp() * cosine

    def after_step(self) -> None:
        with torch.no_grad():
            self.log_logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))


def build(config: Config, sizes: SignalSizes) -> AfaStudent:
    """The student for cached features of `sizes`; raises InputError if frames and texts differ in width."""
    frame, text = sizes["frame_embedding"], sizes["text_embedding"]
    if frame["D"] != text["D"]:
        raise InputError(
            f"frame_embedding has a width of {frame['D']} and text_embedding of {text['D']}; student 'afa' "
            "needs both in one space, choose another teacher"
        )
    return AfaStudent(config, frames=frame["M"], width=frame["D"])


def tiny() -> tuple[Config, SignalSizes]:
    sizes = {"frame_embedding": {"R": 1, "M": 4, "D": 16}, "text_embedding": {"D": 16}}
    return Config(temporal_layers=1, heads=2), sizes


LOSSES = {
    "info_nce": LossTerm(
        lambda outputs, batch: info_nce(outputs["logits"], batch.get(IGNORED_PAIR)), reads=("logits",)
    ),
    "coarse_pearson": LossTerm(
        lambda outputs, batch: coarse_pearson(outputs["logits"], batch[PAIR_SCORES], batch.get(PAIR_KNOWN)),
        reads=("logits",),
        needs=(PAIR_SCORES,),
    ),
    "fine_cross_entropy_mean": LossTerm(
        lambda outputs, batch: fine_cross_entropy_mean(
            outputs["log_frame_weight"], batch["frame_relevance"], batch["frame_valid"]
        ),
        reads=("log_frame_weight",),
        needs=("frame_relevance",),
    ),
    "fine_cross_entropy_sum": LossTerm(
        lambda outputs, batch: fine_cross_entropy_sum(
            outputs["log_frame_weight"], batch["frame_relevance"], batch["frame_valid"]
        ),
        reads=("log_frame_weight",),
        needs=("frame_relevance",),
    ),
}

# The official numbers: train.py and configs/msrvtt-9k.yaml (batch 2 x 120). Where ours differ: AdamW for
# its own Adam, which corrects no bias and clips every tensor again; a cosine that starts at 1 after
# the warm-up; norms do not decay; AFA's biases learn ten times as fast too, not its matrices alone.
TEACHCLIP = Recipe(
    model=Config(),
    losses={"info_nce": 0.2, "coarse_pearson": 1.0, "fine_cross_entropy_mean": 2.0},
    optimizer=Optimizer(lr=(1e-4,), lr_scale={"attention.": 10.0}),
    epochs=10,
    batch_size=240,
    siblings_are_negatives=True,
)

RECIPES = {
    "teachclip": TEACHCLIP,
    "teachclip-paper": replace(
        TEACHCLIP,
        losses={"info_nce": 1.0, "coarse_pearson": 1.0, "fine_cross_entropy_sum": 1.0},
        optimizer=Optimizer(lr=(1e-4,)),
    ),
    # Eight batches an epoch make a noisy val score: the last epoch varies less between seeds than the best
    # one, and is no worse for the untaught student.
    "demo": Recipe(
        model=Config(temporal_layers=1, heads=2, mask_padding=True, logit_scale=1 / 0.07, frame_scale=0.1),
        losses={"info_nce": 0.1, "coarse_pearson": 1.0, "fine_cross_entropy_sum": 0.3},
        optimizer=Optimizer(lr=(1e-3, 3e-3, 1e-2), weight_decay=0.01, betas=(0.9, 0.999), epsilon=1e-8),
        epochs=40,
        batch_size=100,
        keep=KEEP_LAST,
    ),
}
