"""A dual-stream student for images or videos: two light towers, a vector of each, and a temperature.

    frames     pixels -> frame encoder -> mean of normalised frames = video,   text -> text tower = text
    features   mean of the teacher's frames -> MLP = video,   the teacher's text -> MLP = text

An image is a video of one frame. Where two teachers are integrated (`teacher_integration`), the module that
does it belongs to the student while it is trained, and gives the integrated vectors beside the student's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import InputError
from store.lookup import check_name
from student_train.augmentation import random_resized_crops
from student_train.clip_towers import normalised
from student_train.distributed import gather_rows, rank
from student_train.frame_encoder import FrameEncoder, vision_statistics
from student_train.needs import FRAME_VALID, PIXELS, PLANNED_TOPK, TEXT, split_role
from student_train.rows import PairBlock
from student_train.students.base import Batch, SignalSizes, Student, StudentConfig, cosine_similarity
from student_train.teacher_integration import (
    FUSION_PAIRS,
    MATCHED,
    FusedPairs,
    TeacherIntegration,
    matched_pairs,
)
from student_train.text_towers import TINYBERT, TOWERS, text_tower

FRAMES, FEATURES = "frames", "features"
WAYS_IN = (FRAMES, FEATURES)
PLANNED, TOPK = "planned", "topk"
LAYOUTS = (PLANNED, TOPK)
SINGLE_STREAM = "single_stream"
"""The role of the teacher that looks at pairs."""
FUSED = ("fused_video", "fused_text", "fused_logit_scale")


def of_batch(part: str) -> str:
    """The need of what the single-stream teacher said of a planned batch, e.g. of "text_index"."""
    return f"{PLANNED_TOPK}{part}@{SINGLE_STREAM}"


@dataclass(frozen=True)
class Config(StudentConfig):
    """What the student is made of, and how its teachers are put together.

    way_in: "frames" or "features", see above. vision: of timm; vision_channels: factor on those of
    MobileViT-v2. text: "clip", the text tower of `architecture`, or "tinybert" or "albert", which read the
    word pieces of the file `vocabulary`, or without one CLIP's byte pairs. vision_weights, text_weights:
    public weights to start from, None for none. words: of a text. hidden: width inside of the features' MLPs.
    crop_area: least share of a frame that a random crop keeps in training; None crops nothing.

    k: best pairs of each row that the single-stream teacher judges. pairs: from its "planned" batches, or its
    "topk" of the whole split, where it judged only some of a batch's k best and stores no fused [CLS].
    integrate: whether the two teachers are put together. fusion_pairs: see `teacher_integration`.
    video_signal: the dual-stream teacher's frames, whose mean is its video.
    """

    way_in: str = FRAMES
    vision: str = "mobilevitv2_150"
    vision_channels: float = 1.0
    text: str = TINYBERT
    architecture: str = "ViT-B-32-quickgelu"
    vision_weights: str | None = None
    text_weights: str | None = None
    vocabulary: str | None = None
    words: int = 32
    hidden: int = 256
    crop_area: float | None = None
    k: int = 11
    pairs: str = PLANNED
    integrate: bool = True
    fusion_pairs: str = MATCHED
    video_signal: str = "frame_embedding"
    logit_scale: float = 1 / 0.07

    def __post_init__(self) -> None:
        check_name("way_in", self.way_in, WAYS_IN)
        check_name("text", self.text, TOWERS)
        check_name("pairs", self.pairs, LAYOUTS)
        check_name("fusion_pairs", self.fusion_pairs, FUSION_PAIRS)
        if self.k < 2 or self.hidden < 1 or min(self.vision_channels, self.logit_scale) <= 0:
            raise InputError(f"k starts at 2, hidden at 1, factor and scale lie above 0, got {self}")
        if self.crop_area is not None and not (0 < self.crop_area <= 1 and self.way_in == FRAMES):
            raise InputError(
                f"crop_area is a share of a frame, from 0 to 1, of a student that sees frames, got {self}"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        return (PIXELS, TEXT) if self.way_in == FRAMES else (self.video_signal, "text_embedding")

    @property
    def shaped_by(self) -> tuple[str, ...]:
        return (of_batch("text_fused_cls"),) if self.integrate and self.fused_pairs else ()

    @property
    def teacher_vectors(self) -> tuple[str, ...]:
        """Needs of the dual-stream teacher's vectors."""
        return (self.video_signal, "text_embedding")

    @property
    def fused_pairs(self) -> tuple[str, ...]:
        """Needs of the single-stream teacher's fused [CLS], none where it stores none."""
        if self.pairs == TOPK:
            return ()
        parts = ("text_index", "text_fused_cls", "video_index", "video_fused_cls")
        return tuple(of_batch(part) for part in parts)


class DualStudent(Student):
    """A vector a video and one a text out.

    While it learns from both teachers (`integrate`), `forward` also gives `fused_video`, `fused_text` [b, D]
    and `fused_logit_scale` [b]; of a batch without what these are made of it does not.
    width: of its vectors and the dual-stream teacher's. fused_width: of the single-stream teacher's [CLS],
    None without it.
    """

    config: Config
    serves: Mapping[str, tuple[str, ...]] = MappingProxyType({"integration.": FUSED})

    def __init__(self, config: Config, width: int, fused_width: int | None) -> None:
        super().__init__()
        self.config = config
        self.crops_frames = config.crop_area is not None
        if config.way_in == FRAMES:
            self.statistics = vision_statistics(config.vision, config.vision_weights)
            self.vision: nn.Module = FrameEncoder(config.vision, (), width, config.vision_channels)
            self.text: nn.Module = text_tower(
                config.text, config.architecture, width, config.words, config.vocabulary
            )
        else:
            self.vision, self.text = (
                nn.Sequential(nn.Linear(width, config.hidden), nn.GELU(), nn.Linear(config.hidden, width))
                for _ in range(2)
            )
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(config.logit_scale)))
        self.integration = (
            TeacherIntegration(width, fused_width, width, config.logit_scale) if config.integrate else None
        )
        fused = FUSED if config.integrate else ()
        self.limited_scales = ("log_logit_scale", *(["integration.log_logit_scale"] if fused else []))
        self.gives = ("video_embedding", "text_embedding", "logit_scale", *fused, "logits")

    def start(self) -> dict[str, Any]:
        """Take over the public weights of the configuration; what to record of them."""
        told = {}
        for name, weights in (("vision", self.config.vision_weights), ("text", self.config.text_weights)):
            if weights:
                told[name] = getattr(self, name).load_public(weights)
        return told

    def encode_videos(self, batch: Batch) -> dict[str, Tensor]:
        """`video_embedding` [b, D], not normalised."""
        valid = batch[FRAME_VALID]
        if self.config.way_in == FEATURES:
            mean = mean_of_frames(batch[self.config.video_signal], valid)
            return {"video_embedding": self.vision(mean)}
        pixels = normalised(batch[PIXELS], *self.statistics) * valid[..., None, None, None]
        if self.training and self.config.crop_area is not None:
            pixels = random_resized_crops(pixels, self.config.crop_area)
        features, _ = self.vision(pixels.flatten(0, 1))
        return {"video_embedding": mean_of_frames(features.unflatten(0, valid.shape), valid)}

    def encode_texts(self, batch: Batch) -> dict[str, Tensor]:
        """`text_embedding` [b, D], not normalised."""
        if self.config.way_in == FEATURES:
            return {"text_embedding": self.text(functional.normalize(batch["text_embedding"], dim=-1))}
        sentence, _, _ = self.text(batch[TEXT])
        return {"text_embedding": sentence}

    def similarity(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        cosine = cosine_similarity(videos["video_embedding"], texts["text_embedding"])
        return self.log_logit_scale.exp() * cosine

    def forward(self, batch: Batch) -> dict[str, Any]:
        outputs = super().forward(batch)
        rows = len(outputs["video_embedding"])
        outputs["logit_scale"] = self.log_logit_scale.exp().expand(rows)
        needed = (*self.config.teacher_vectors, *self.config.fused_pairs)
        if self.integration is not None and all(need in batch for need in needed):
            video, text = self.integration(*dual_vectors(batch, self.config), *self.pairs_of(batch, rows))
            scale = self.integration.log_logit_scale.exp().expand(rows)
            outputs |= dict(zip(FUSED, (video, text, scale), strict=True))
        return outputs

    def pairs_of(self, batch: Batch, rows: int) -> tuple[FusedPairs, ...]:
        """The fused [CLS] that move each own video's and each own text's vector; () where none are stored."""
        if not self.config.fused_pairs:
            return ()
        k = self.config.k
        text_index, of_videos, video_index, of_texts = (
            batch[need][:, :k] for need in self.config.fused_pairs
        )
        if self.config.fusion_pairs == MATCHED:
            own = torch.arange(rows, device=of_videos.device) + rank() * rows
            pairs = matched_pairs(own, (text_index, of_videos), (video_index, of_texts))
            return pairs, pairs
        return tuple(
            FusedPairs(fused, torch.ones_like(fused[..., 0]).bool()) for fused in (of_videos, of_texts)
        )


def mean_of_frames(frames_BMD: Tensor, valid_BM: Tensor) -> Tensor:
    """Mean [B, D] of the valid frames, each normalised first, as CLIP4Clip pools; 0 without any."""
    share_BM = valid_BM / valid_BM.sum(-1, keepdim=True).clamp(min=1)
    return (functional.normalize(frames_BMD, dim=-1) * share_BM.unsqueeze(-1)).sum(1)


def dual_vectors(batch: Batch, config: Config) -> tuple[Tensor, Tensor]:
    """The dual-stream teacher's vectors of own videos and texts [b, D], of length 1."""
    video = mean_of_frames(batch[config.video_signal], batch[FRAME_VALID])
    return functional.normalize(video, dim=-1), functional.normalize(batch["text_embedding"], dim=-1)


def cosine_block(video_bD: Tensor, text_bD: Tensor, scale: Tensor) -> PairBlock:
    """This process's strips of `scale` times the cosines of everybody's videos and texts, in float32."""
    with torch.autocast(video_bD.device.type, enabled=False):
        videos, texts = video_bD.float(), text_bD.float()
        rows = scale * cosine_similarity(videos, gather_rows(texts))
        columns = scale * cosine_similarity(gather_rows(videos), texts)
    return PairBlock(rows, columns, rank() * len(videos))


def build(config: Config, sizes: SignalSizes) -> DualStudent:
    """The student for a cache of `sizes`, as wide as the dual-stream teacher's joint space.

    Raises InputError where that teacher's frames and texts differ in width, or where the single-stream
    teacher stores no fused [CLS] to integrate.
    """
    width = sizes["text_embedding"]["D"]
    of_frames = sizes.get(config.video_signal, {"D": width})["D"]
    if of_frames != width:
        raise InputError(
            f"{config.video_signal} has a width of {of_frames} and text_embedding of {width}; student 'mcad' "
            "compares both, choose another teacher"
        )
    fused = None
    if config.integrate and config.fused_pairs:
        fused = of_plan(sizes, "text_fused_cls")["D"]
    return DualStudent(config, width, fused)


def of_plan(sizes: SignalSizes, part: str) -> Mapping[str, int]:
    """Sizes of what the single-stream teacher said of planned batches; raises InputError if it did not."""
    for name, found in sizes.items():
        signal, role = split_role(name)
        if role == SINGLE_STREAM and signal.startswith(PLANNED_TOPK) and signal.endswith(f"/{part}"):
            return found
    raise InputError(
        f"the teacher in the role {SINGLE_STREAM!r} stores no {part} of planned batches; dump it with "
        "--plan batch=...,epochs=...,k=... --fused-cls, and name it with --role single_stream=TEACHER"
    )
