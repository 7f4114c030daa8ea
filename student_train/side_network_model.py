"""Side4Video's student: a light side network beside a frozen vision transformer whose layers are cached.

    pixels, vit_layers/<n> -> side network -> state [b, M, N, D]            (student_train.side_blocks)
    recognition   mean over frames and patches -> linear -> class logits                     (equation 3)
    retrieval     mean over patches -> up-projection, + [CLS] of the last layer -> last norm, projection
                  -> frames (equation 4); text tower -> words; token-wise matching, or means and a cosine

No backbone runs and none takes memory, unless `way_in` says so: "live", the same layers from a frozen one,
and "tuned", where it trains too (full fine-tuning). Without `layers` there is no side network but the frozen
[CLS] alone: the baseline, frozen mean pooling. The up-projection starts at zero, so an untrained student is
that.
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
from store.lookup import check_name
from store.signals import VISION_HEAD
from student_train.clip_towers import normalised, pixel_statistics
from student_train.live_layers import LiveLayers
from student_train.needs import CLASS, FRAME_VALID, PIXELS, TEXT
from student_train.side_blocks import FUSIONS, HALF, SideNetwork, SideSizes
from student_train.side_network_start import FrameHead, Start
from student_train.students.base import MAX_LOGIT_SCALE, Batch, Student, StudentConfig, cosine_similarity
from student_train.text_towers import ClipText
from student_train.token_wise import TokenWeight, WeighedTokens, token_wise_similarity

RETRIEVAL, RECOGNITION = "retrieval", "recognition"
CACHED, LIVE, TUNED = "cached", "live", "tuned"
TOKEN_WISE, MEAN = "token_wise", "mean"
OF_VIDEO = ("frame_feature", "frame_weight", "frame_mask")
OF_TEXT = ("word_feature", "word_weight", "word_mask")


@dataclass(frozen=True)
class Config(StudentConfig):
    """What the student is made of.

    task: "retrieval" or "recognition". layers: ViT blocks that are tapped, one side block each; () for none.
    cls_layer: the ViT's last block, whose [CLS] goes into the projection; None: the last of `layers`. width:
    of the side network. heads: None is one for 64 of width. fusion: "half" of state and layer, as the code
    has it, or their "sum", as the paper. interaction: "token_wise" or "mean" (of frames as they are).
    mask_padding: missing frames and empty words take no part; False as the official code.
    way_in: "cached", "live" or "tuned". architecture: of open_clip, for the text tower and, unless cached,
    the backbone. weights: of both, a tag or a file, None for none; what is behind cached layers is cached.
    words: of a text.
    projection_bias: of the backbone's projection (EVA-CLIP has one). label_smoothing: in recognition.
    """

    task: str = RETRIEVAL
    layers: tuple[int, ...] = tuple(range(12))
    cls_layer: int | None = None
    width: int = 320
    heads: int | None = None
    fusion: str = HALF
    interaction: str = TOKEN_WISE
    mask_padding: bool = False
    way_in: str = CACHED
    architecture: str = "ViT-B-16-quickgelu"
    weights: str | None = None
    words: int = 32
    projection_bias: bool = False
    label_smoothing: float = 0.0
    logit_scale: float = 100.0

    def __post_init__(self) -> None:
        check_name("task", self.task, (RETRIEVAL, RECOGNITION))
        check_name("fusion", self.fusion, FUSIONS)
        check_name("interaction", self.interaction, (TOKEN_WISE, MEAN))
        check_name("way_in", self.way_in, (CACHED, LIVE, TUNED))
        if list(self.layers) != sorted(set(self.layers)):
            raise InputError(f"layers are different ViT blocks in ascending order, got {self.layers}")
        if not self.layers and self.cls_layer is None:
            raise InputError("without layers name the ViT's last block, whose [CLS] is read: cls_layer")
        if self.width < 2 or self.logit_scale <= 0 or not 0 <= self.label_smoothing < 1:
            raise InputError(f"width from 2, logit_scale above 0, label_smoothing below 1, got {self}")

    @property
    def recognises(self) -> bool:
        return self.task == RECOGNITION

    @property
    def last_layer(self) -> int:
        return self.layers[-1] if self.cls_layer is None else self.cls_layer

    @property
    def reads_cls(self) -> bool:
        """Whether the last layer's [CLS] has a part in what comes out."""
        return self.task == RETRIEVAL or not self.layers

    @property
    def read_layers(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys((*self.layers, *([self.last_layer] if self.reads_cls else []))))

    @property
    def layer_needs(self) -> tuple[str, ...]:
        """The layers that it asks the cache for."""
        return tuple(map(layer_need, self.read_layers)) if self.way_in == CACHED else ()

    @property
    def starts_from(self) -> tuple[str, ...]:
        cached = self.reads_cls and self.way_in == CACHED and not self.projection_bias
        return (VISION_HEAD,) if cached else ()

    @property
    def needs(self) -> tuple[str, ...]:
        pixels = (PIXELS,) if self.layers or self.way_in != CACHED else ()
        return (*pixels, *self.layer_needs, TEXT if self.task == RETRIEVAL else CLASS)


def layer_need(layer: int) -> str:
    return f"vit_layers/{layer}"


@dataclass(frozen=True)
class Parts:
    """What a student is put together from. side: None without layers. width: of the layers. classes: C."""

    side: SideSizes | None
    width: int
    joint: int
    classes: int = 0
    backbone: LiveLayers | None = None


class SideStudent(Student):
    """Frames, words and their weights, or one vector a video and one a text, or class logits."""

    config: Config

    def __init__(self, config: Config, parts: Parts) -> None:
        super().__init__()
        self.config, self.backbone = config, parts.backbone
        self.statistics = pixel_statistics(config.architecture, config.weights)
        self.side = SideNetwork(parts.side, config.fusion) if parts.side else None
        self.head = FrameHead(parts.width, parts.joint, config.projection_bias) if config.reads_cls else None
        if config.task == RECOGNITION:
            seen = parts.joint if self.side is None else config.width
            self.classifier = nn.Linear(seen, parts.classes)
            self.gathers, self.gives = (), ("video_embedding", "class_logits")
            return
        self.up = nn.Parameter(torch.zeros(config.width, parts.width)) if parts.side else None
        self.text = ClipText(config.architecture, parts.joint, config.words)
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(config.logit_scale)))
        self.limited_scales = ("log_logit_scale",)
        self.gathers, self.gives = ("video_embedding", "text_embedding"), ()
        if config.interaction == TOKEN_WISE:
            self.frame_weight, self.word_weight = TokenWeight(parts.joint), TokenWeight(parts.joint)
            self.gathers = (*OF_VIDEO, *OF_TEXT)
        self.gives = (*self.gathers, "logits")

    def start(self) -> dict[str, Any]:
        """Take over the text tower, and a backbone that runs live with its head, from public weights."""
        if self.config.weights is None:
            return {}
        start, told = Start.of(self.config.architecture, self.config.weights), {}
        if self.backbone is not None:
            told["backbone"] = start.into_visual(self.backbone.visual)
        if self.head is not None and not self.config.starts_from:
            told["head"] = start.into_head(self.head)
        if not self.config.recognises:
            told["text"] = start.into_text(self.text)
            with torch.no_grad():
                self.log_logit_scale.fill_(min(start.log_logit_scale, math.log(MAX_LOGIT_SCALE)))
        return told

    def take_over(self, signals: Mapping[str, Tensor]) -> dict[str, Any]:
        if self.head is None or VISION_HEAD not in signals:
            return {}
        return {"head": self.head.take_over(signals[VISION_HEAD])}

    def layers_of(self, batch: Batch, pixels: Tensor | None) -> dict[int, Tensor]:
        """Tokens [b, M, L, width] by layer, from the cache or from the backbone."""
        if self.backbone is None:
            return {layer: batch[layer_need(layer)] for layer in self.config.read_layers}
        found: dict[int, Tensor] = self.backbone(pixels, self.config.read_layers)
        return found

    def encode_videos(self, batch: Batch) -> dict[str, Tensor]:
        """`class_logits` [b, C] and `video_embedding` [b, D]; or `video_embedding` alone; or, for token-wise
        matching, `frame_feature` [b, M, D] of length 1, `frame_weight` and `frame_mask` [b, M]."""
        valid: Tensor = batch[FRAME_VALID]
        pixels = None
        if PIXELS in self.config.needs:
            # A missing frame is zeros after normalisation, as official loaders pad.
            pixels = normalised(batch[PIXELS], *self.statistics) * valid[..., None, None, None]
        return self.encode_layers(self.layers_of(batch, pixels), pixels, valid)

    def encode_layers(
        self, layers: Mapping[int, Tensor], pixels: Tensor | None, valid: Tensor
    ) -> dict[str, Tensor]:
        """The same from tokens by layer and normalised pixels [b, M, C, Y, X]."""
        counted = valid if self.config.mask_padding else torch.ones_like(valid)
        share = counted / counted.sum(-1, keepdim=True).clamp(min=1)
        state = None
        if self.side is not None:
            tapped = [layers[layer] for layer in self.config.layers]
            state = self.side(pixels, tapped, counted if self.config.mask_padding else None).mean(2)
        if self.config.recognises and state is not None:
            return self.recognised((state * share[..., None]).sum(1))
        assert self.head is not None
        frames = self.head(self.fused_cls(layers[self.config.last_layer][:, :, 0], state))
        if self.config.recognises:
            return self.recognised((frames * share[..., None]).sum(1))
        if self.config.interaction == MEAN:
            return {"video_embedding": (frames * share[..., None]).sum(1)}
        weight = self.frame_weight(frames, counted)
        unit = functional.normalize(frames, dim=-1)
        return dict(zip(OF_VIDEO, (unit, weight, counted.float()), strict=True))

    def fused_cls(self, cls_BMD: Tensor, state_BMD: Tensor | None) -> Tensor:
        """[CLS] before the last norm, with what the side network saw of its frame."""
        if state_BMD is None:
            return cls_BMD
        assert self.up is not None
        return cls_BMD + state_BMD @ self.up

    def recognised(self, video_embedding: Tensor) -> dict[str, Tensor]:
        return {"video_embedding": video_embedding, "class_logits": self.classifier(video_embedding)}

    def encode_texts(self, batch: Batch) -> dict[str, Tensor]:
        """`text_embedding` [b, D]; or `word_feature` [b, W, D] of length 1, `word_weight`, `word_mask`."""
        if self.config.recognises:
            return {}
        sentence, words, valid = self.text(batch[TEXT])
        if self.config.interaction == MEAN:
            return {"text_embedding": sentence}
        unit = functional.normalize(words, dim=-1)
        return dict(zip(OF_TEXT, (unit, self.word_weight(words, valid), valid.float()), strict=True))

    def similarity(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        if self.config.interaction == MEAN:
            found = cosine_similarity(videos["video_embedding"], texts["text_embedding"])
        else:
            frames, words = (
                WeighedTokens(*(side[name] for name in names))
                for side, names in ((videos, OF_VIDEO), (texts, OF_TEXT))
            )
            found = token_wise_similarity(frames, words, self.config.mask_padding)
        return self.log_logit_scale.exp() * found
