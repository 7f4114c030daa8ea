"""A mobile video-text student: a light encoder of frames, an optional temporal transformer, a text tower.

pixels -> frame encoder -> frames -> temporal transformer (optional) -> mean of normalised frames = video
            `-> maps -> tokens like the teacher's (student_train.feature_reshaping)
text   -> CLIP's text tower or TinyBERT -> sentence, words
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError
from student_train.clip_towers import normalised
from student_train.feature_reshaping import FeatureReshaping, patch_grid
from student_train.frame_encoder import FrameEncoder, vision_statistics
from student_train.losses.clipping import WIDTH, check_axis
from student_train.losses.layers import LayerOptions
from student_train.needs import FRAME_VALID, PIXELS, TEXT
from student_train.students.base import Batch, SignalSizes, Student, StudentConfig, cosine_similarity
from student_train.temporal_transformer import TemporalTransformer, default_heads
from student_train.text_towers import CLIP, TOWERS, ClipText, text_tower

OWN, FIRST = "own", "first"
BEFORE_TIME, AFTER_TIME = "frame_embedding", "temporal_frame_embedding"


@dataclass(frozen=True)
class Config(StudentConfig):
    """What the student is made of, and how it is compared with its teacher.

    vision: of timm. vision_channels: factor on those. temporal_layers: 0 is "without T". text: "clip",
    the text tower of `architecture`, or "tinybert" or "albert", which read the word pieces of the file
    `vocabulary`, or without one CLIP's byte pairs. vision_weights, text_weights: public weights to start
    from, None for none; CLIP's start the temporal transformer too, as in CLIP4Clip. words: of a text.
    taps: stages of the encoder that are its layers. teacher_layers: blocks of the teacher that they learn,
    none where no loss compares layers. borders: of the mask, see `sequential_mask`. layers: see LayerOptions.
    feature_axis, feature_temperature: of the softmax in temporal and spatial distillation.
    pair_temperature: divides scaled similarities in the cross-modal ones. local_axis: "own", the softmax over
    the captions for a video and over the videos for a caption, or "first", the other one of each matrix.
    after_time: the teacher's signal that temporal distillation compares with.
    """

    vision: str = "mobilevitv2_100"
    vision_channels: float = 1.0
    temporal_layers: int = 4
    text: str = CLIP
    architecture: str = "ViT-B-32-quickgelu"
    vision_weights: str | None = None
    text_weights: str | None = None
    vocabulary: str | None = None
    words: int = 32
    taps: tuple[int, ...] = (1, 2, 3, 4)
    teacher_layers: tuple[int, ...] = ()
    borders: tuple[tuple[int, int], ...] = ()
    layers: LayerOptions = field(default_factory=LayerOptions)
    feature_axis: str = WIDTH
    feature_temperature: float = 1.0
    pair_temperature: float = 1.0
    local_axis: str = OWN
    after_time: str = AFTER_TIME
    logit_scale: float = 1 / 0.07

    def __post_init__(self) -> None:
        check_axis(self.feature_axis)
        if self.text not in TOWERS or self.local_axis not in (OWN, FIRST):
            raise InputError(f"text is one of {TOWERS}, local_axis {OWN!r} or {FIRST!r}, got {self}")
        above_0 = self.feature_temperature, self.pair_temperature, self.vision_channels, self.logit_scale
        if self.temporal_layers < 0 or min(above_0) <= 0:
            raise InputError(f"layers start at 0, temperatures and factors lie above 0, got {self}")

    @property
    def needs(self) -> tuple[str, ...]:
        return (PIXELS, TEXT)

    @property
    def shaped_by(self) -> tuple[str, ...]:
        return ("text_embedding", *self.layer_signals)

    @property
    def layer_signals(self) -> tuple[str, ...]:
        return tuple(f"vit_layers/{layer}" for layer in self.teacher_layers)


class MobileStudent(Student):
    """Pixels and captions in, a vector a video and one a text out; frames, words and layers to be taught."""

    config: Config
    limited_scales = ("log_logit_scale",)
    serves: Mapping[str, tuple[str, ...]] = MappingProxyType({"reshaping.": ("layers",)})
    compiled = ("encode_with_maps", "encode_texts")

    def __init__(
        self, config: Config, frames: int, side: int, width: int, tokens: tuple[int, int] | None
    ) -> None:
        """tokens: grid and width of the teacher's layers, None where none are compared."""
        super().__init__()
        self.config = config
        self.statistics = vision_statistics(config.vision, config.vision_weights)
        self.vision = FrameEncoder(config.vision, config.taps, width, config.vision_channels)
        self.temporal = (
            TemporalTransformer(width, frames, config.temporal_layers, default_heads(width))
            if config.temporal_layers
            else None
        )
        self.text = text_tower(config.text, config.architecture, width, config.words, config.vocabulary)
        self.reshaping = FeatureReshaping(self.vision.map_sizes(side), *tokens) if tokens else None
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(config.logit_scale)))
        layered = ("layers",) if self.reshaping is not None else ()
        videos = ("video_embedding", BEFORE_TIME, AFTER_TIME, *layered)
        texts = ("text_embedding", "word_embedding", "word_valid")
        self.gives = (*videos, *texts, "logit_scale", "logits")

    def start(self) -> dict[str, Any]:
        """Take over the public weights of the configuration; what to record of them."""
        told = {}
        if self.config.vision_weights:
            told["vision"] = self.vision.load_public(self.config.vision_weights)
        if self.config.text_weights:
            told["text"] = self.text.load_public(self.config.text_weights)
            if self.temporal is not None and isinstance(self.text, ClipText):
                self.temporal.start_from_text(self.text.tower)
        return told

    def encode_videos(self, batch: Batch) -> dict[str, Tensor]:
        """`video_embedding` [b, D]; `frame_embedding` and `temporal_frame_embedding` [b, M, D], before and
        after the temporal transformer, the same without one."""
        return self.encode_with_maps(batch)[0]

    def encode_with_maps(self, batch: Batch) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The same, and the tapped maps [b * M, C, Y, X]; a missing frame is encoded as zeros.

        Every place is encoded, so that processes that share BatchNorm's statistics have equal shapes.
        """
        valid = batch[FRAME_VALID]
        pixels = normalised(batch[PIXELS], *self.statistics) * valid[..., None, None, None]
        features, maps = self.vision(pixels.flatten(0, 1))
        frames = features.unflatten(0, valid.shape) * valid.unsqueeze(-1)
        timed = frames if self.temporal is None else self.temporal(frames, valid)
        share = valid / valid.sum(-1, keepdim=True).clamp(min=1)
        video = (functional.normalize(timed, dim=-1) * share.unsqueeze(-1)).sum(1)
        return {"video_embedding": video, BEFORE_TIME: frames, AFTER_TIME: timed}, maps

    def encode_texts(self, batch: Batch) -> dict[str, Tensor]:
        """`text_embedding` [b, D]; `word_embedding` [b, W, D] and `word_valid` [b, W]."""
        sentence, words, valid = self.text(batch[TEXT])
        return {"text_embedding": sentence, "word_embedding": words, "word_valid": valid}

    def similarity(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        cosine = cosine_similarity(videos["video_embedding"], texts["text_embedding"])
        return self.log_logit_scale.exp() * cosine

    def forward(self, batch: Batch) -> dict[str, Any]:
        """What both encoders give, `logits`, `logit_scale` [b] (one number), and, if they are compared,
        `layers` [b, M, J, P, D]."""
        videos, maps = self.encode_with_maps(batch)
        texts = self.encode_texts(batch)
        scale = self.log_logit_scale.exp().expand(len(videos["video_embedding"]))
        outputs: dict[str, Any] = {**videos, **texts, "logit_scale": scale}
        outputs["logits"] = self.pair_logits(self.gathered_of(videos), self.gathered_of(texts))
        if self.reshaping is not None:
            valid = batch[FRAME_VALID]
            layers = self.reshaping(maps).unflatten(0, valid.shape)
            outputs["layers"] = layers * valid[..., None, None, None]
        return outputs


def build(config: Config, sizes: SignalSizes) -> MobileStudent:
    """The student for a cache of `sizes`: as wide as the teacher's joint space, for the frames of its view.

    Raises InputError where layers are compared that have no square of patches or differ in size.
    """
    pixels, width = sizes[PIXELS], sizes["text_embedding"]["D"]
    shapes = {signal: (sizes[signal]["L"], sizes[signal]["D"]) for signal in config.layer_signals}
    if len(set(shapes.values())) > 1:
        raise InputError(f"the teacher's layers differ in size, {shapes}; compare layers of one size")
    tokens = None
    for signal, (count, of_token) in shapes.items():
        tokens = (patch_grid(count, signal), of_token)
    return MobileStudent(config, pixels["M"], pixels["X"], width, tokens)
