"""TeachCLIP's student: frame features, a temporal transformer, AFA, and a cosine with the text.

    features   frame_embedding -+
                                +-> temporal transformer -> frames -> AFA -> weights -> video embedding
    frames     pixels -> CLIP --+
                                    text_embedding -> text projection, or text -> CLIP: text embedding

AFA: softmax(linear(relu(linear))). The video is the sum of its L2-normalised frames by weight. Two ways in,
one model: "features" of a frozen teacher from the cache, where a text projection, which starts as the
identity, stands for the training of the text tower; "frames", where CLIP's towers are trained as a whole.

TeachCLIP, section 3.2; equal in numbers to ruc-aimc-lab/TeachCLIP `modules/modeling.py`, class CLIP4Clip:
AFA reads the frames before they are normalised; pooling divides the scores by a temperature of 0.1, the
weight that is taught does not; an empty place is masked in the transformer's attention but not in AFA
(`mask_padding` masks it there too). The paper's equation 1 pools frames that are not normalised, by the
weights that are taught: `pooling_temperature` 1, `normalise_frames` off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError
from student_train.clip_towers import ClipTowers, require_frame_size, text_part
from student_train.needs import FRAME_VALID, PIXELS, TEXT
from student_train.students.base import (
    MAX_LOGIT_SCALE,
    Batch,
    SignalSizes,
    Student,
    StudentConfig,
    cosine_similarity,
)
from student_train.temporal_transformer import TemporalTransformer, default_heads
from student_train.text_towers import ClipText

AFA = "afa"
MEAN = "mean"
AGGREGATIONS = (AFA, MEAN)
FEATURES, FRAMES = "features", "frames"
WAYS_IN = (FEATURES, FRAMES)
LINEAR_STD = 0.02


@dataclass(frozen=True)
class Config(StudentConfig):
    """What the student is made of.

    aggregation: "afa", or "mean" over the valid frames (CLIP4Clip). temporal_layers: blocks of the
    transformer. heads: of its attention; None is one for 64 of width. pooling_temperature: divides
    AFA's scores where they pool. normalise_frames: before they are pooled. mask_padding: give empty places no
    weight. logit_scale: what multiplies the cosine at the start; it is trained, up to 100. frame_scale:
    multiplies the frame features first; 1 as published, less where a teacher's features are much longer than
    the transformer's first outputs.

    way_in: "features" or "frames". architecture: of open_clip. weights: public ones to start from, a tag or a
    file, None for none; the temporal transformer then starts from CLIP's text blocks as in CLIP4Clip, with
    features too. half: CLIP's matrices in float16, as the official code trains them. words: of a text.
    """

    aggregation: str = AFA
    temporal_layers: int = 4
    heads: int | None = None
    pooling_temperature: float = 0.1
    normalise_frames: bool = True
    mask_padding: bool = False
    logit_scale: float = 100.0
    frame_scale: float = 1.0
    way_in: str = FEATURES
    architecture: str = "ViT-B-32-quickgelu"
    weights: str | None = None
    half: bool = False
    words: int = 32

    def __post_init__(self) -> None:
        if self.aggregation not in AGGREGATIONS:
            raise InputError(f"aggregation is one of {AGGREGATIONS}, not {self.aggregation!r}")
        if self.way_in not in WAYS_IN:
            raise InputError(f"way_in is one of {WAYS_IN}, not {self.way_in!r}")
        if self.temporal_layers < 0 or min(self.pooling_temperature, self.logit_scale, self.frame_scale) <= 0:
            raise InputError(f"layers start at 0, temperature and scales lie above 0, got {self}")

    @property
    def needs(self) -> tuple[str, ...]:
        return ("frame_embedding", "text_embedding") if self.way_in == FEATURES else (PIXELS, TEXT)


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
    """One vector a video and one a text out; frames weighed by themselves.

    width: of the joint space. towers: CLIP's, to come in by frames; None to come in by features.
    """

    config: Config
    limited_scales = ("log_logit_scale",)

    def __init__(self, config: Config, frames: int, width: int, towers: ClipTowers | None = None) -> None:
        super().__init__()
        self.config = config
        heads = config.heads or default_heads(width)
        if width % heads:
            raise InputError(f"{heads} attention heads do not divide a width of {width}; take another number")
        self.temporal = TemporalTransformer(width, frames, config.temporal_layers, heads)
        self.attention = FrameAttention(width) if config.aggregation == AFA else None
        self.text_projection = nn.Linear(width, width, bias=False) if towers is None else None
        if self.text_projection is not None:
            nn.init.eye_(self.text_projection.weight)
        self.towers = towers
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(config.logit_scale)))
        scored = ("frame_score", "log_frame_weight") if self.attention is not None else ()
        self.gives = ("video_embedding", "frame_weight", *scored, "text_embedding", "logits")

    def start(self) -> dict[str, Any]:
        """Take over the public weights of the configuration, for the towers and the temporal transformer."""
        if self.config.weights is None:
            return {}
        if self.towers is None:
            width = self.temporal.position.shape[1]
            text = ClipText(self.config.architecture, width, self.config.words)
            told = text.load_public(self.config.weights)
            self.temporal.start_from_text(text.tower)
            return {"temporal": told}
        told = self.towers.load_public(self.config.weights)
        self.temporal.start_from_text(text_part(self.towers.model))
        with torch.no_grad():
            self.log_logit_scale.fill_(min(told["log_logit_scale"], math.log(MAX_LOGIT_SCALE)))
        return {"towers": told}

    def frame_features(self, batch: Batch) -> Tensor:
        """[b, M, D] before the temporal transformer."""
        if self.towers is None:
            given: Tensor = batch["frame_embedding"]
            return given
        return self.towers.encode_frames(batch[PIXELS], batch[FRAME_VALID])

    def encode_videos(self, batch: Batch) -> dict[str, Tensor]:
        """`video_embedding` [b, D], not normalised; `frame_weight` [b, M], by which frames are pooled.

        With AFA also `frame_score` [b, M], raw, and `log_frame_weight` [b, M], the log of the weight
        that is taught: softmax of the scores at temperature 1.
        """
        return self.pool(self.frame_features(batch), batch[FRAME_VALID])

    def pool(self, frames: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """The same from frame features [b, M, D]."""
        frames = self.temporal(self.config.frame_scale * frames, valid)
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
        if self.config.normalise_frames:
            frames = functional.normalize(frames, dim=-1)
        pooled = (frames * weight.unsqueeze(-1)).sum(1)
        return {"video_embedding": pooled, "frame_weight": weight, **outputs}

    def encode_texts(self, batch: Batch) -> dict[str, Tensor]:
        if self.towers is None:
            assert self.text_projection is not None
            return {"text_embedding": self.text_projection(batch["text_embedding"])}
        sentence, _ = self.towers.encode_texts(batch[TEXT])
        return {"text_embedding": sentence}

    def similarity(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        cosine = cosine_similarity(videos["video_embedding"], texts["text_embedding"])
        return self.log_logit_scale.exp() * cosine


def build(config: Config, sizes: SignalSizes) -> AfaStudent:
    """The student for a cache of `sizes`.

    Raises InputError if frames and texts differ in width, or frames in size from what the towers take.
    """
    if config.way_in == FRAMES:
        return build_with_towers(config, sizes)
    frame, text = sizes["frame_embedding"], sizes["text_embedding"]
    if frame["D"] != text["D"]:
        raise InputError(
            f"frame_embedding has a width of {frame['D']} and text_embedding of {text['D']}; student 'afa' "
            "needs both in one space, choose another teacher"
        )
    return AfaStudent(config, frames=frame["M"], width=frame["D"])


def build_with_towers(config: Config, sizes: SignalSizes) -> AfaStudent:
    """The student that comes in by frames."""
    towers = ClipTowers.of(config.architecture, config.words, config.half, config.weights)
    pixels = sizes[PIXELS]
    require_frame_size(pixels, towers.image_size, config.architecture)
    frame_width, text_width = towers.widths()
    if frame_width != text_width:
        raise InputError(
            f"{config.architecture} has frames {frame_width} and texts {text_width} wide; choose another"
        )
    return AfaStudent(config, pixels["M"], frame_width, towers)
