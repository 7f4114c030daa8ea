"""Text4Vis's student: frames, temporal modelling, one vector a video, and a classifier that is not learned.

    features   frame_embedding -+
                                +-> TAP | T1D | T-Trans -> mean of the valid frames -> video embedding
    frames     pixels -> CLIP --+                                     |
                                                         scale * cosine with each class's text: logits [b, C]

The rows of the classifier come from the cache with every batch (`class:text_embedding`), so other classes are
recognised by reading other names. On frozen features a linear map of the video, which starts as the identity,
stands for the training of the visual tower.

Wu et al. 2023, "Transferring Textual Knowledge for Visual Recognition", section 2.2, equation 3; equal in
numbers to whwu95/Text4Vis `modules/video_clip.py` and `test.py`: frames are averaged as they are and the
average is normalised; training learns the logit scale, evaluation takes 100; of several views the embeddings
are averaged, not normalised, before they are classified.
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
from student_train.clip_towers import require_frame_size
from student_train.frame_shift import TSM_SHARE, FrameConvolution
from student_train.needs import CLASS, FRAME_VALID, OF_CLASSES, PIXELS, in_role
from student_train.students.base import Batch, SignalSizes, Student, StudentConfig, cosine_similarity
from student_train.temporal_transformer import TemporalTransformer, default_heads
from student_train.visual_tower import PLAIN, VisualTower

TAP, T1D, T_TRANS = "tap", "t1d", "t_trans"
TEMPORAL = (TAP, T1D, T_TRANS)
TEXT_ROWS, UNFROZEN, LINEAR, MATCHING = "text", "unfrozen", "linear", "matching"
CLASSIFIERS = (TEXT_ROWS, UNFROZEN, LINEAR, MATCHING)
ALL_PROMPTS, ONE_DRAWN = "mean", "drawn"
FEATURES, FRAMES = "features", "frames"
NAMES_ROLE = "classifier"
CLASS_ROWS = in_role(OF_CLASSES + "text_embedding", NAMES_ROLE)
"""The classifier's rows: of the teacher in the role "classifier", the main one if that is not filled."""
EVALUATION_SCALE = 100.0
BY_CLASSES = ("video_embedding", "class_logits")


@dataclass(frozen=True)
class Config(StudentConfig):
    """What the student is made of.

    temporal: "tap", the mean; "t1d", a convolution over frames first; "t_trans", a transformer of
    `temporal_layers` blocks and `heads` (None: one for 64 of width). classifier: "text", the frozen rows of
    the cache; "unfrozen", the same as a start; "linear", learned from nothing (vision only); "matching", no
    classifier but the contrast of videos with their class's text. prompts: of several prompts a class the
    "mean" direction, or one "drawn" a step in training. projection: a linear map of the video, at first the
    identity. logit_scale: at the start; it is trained, and 100 in evaluation.

    way_in: "features" or "frames". inside: what frames see of each other inside the tower, see
    `student_train.visual_tower`. architecture: of open_clip. weights: public ones to start from, None: none.
    """

    temporal: str = T_TRANS
    temporal_layers: int = 6
    heads: int | None = None
    classifier: str = TEXT_ROWS
    prompts: str = ALL_PROMPTS
    projection: bool = True
    logit_scale: float = 100.0
    way_in: str = FEATURES
    inside: str = PLAIN
    architecture: str = "ViT-B-16-quickgelu"
    weights: str | None = None

    def __post_init__(self) -> None:
        check_name("temporal", self.temporal, TEMPORAL)
        check_name("classifier", self.classifier, CLASSIFIERS)
        check_name("prompts", self.prompts, (ALL_PROMPTS, ONE_DRAWN))
        check_name("way_in", self.way_in, (FEATURES, FRAMES))
        if self.temporal_layers < 1 or self.logit_scale <= 0:
            raise InputError(f"layers start at 1 and the logit scale lies above 0, got {self}")
        if self.inside != PLAIN and self.way_in == FEATURES:
            raise InputError(f"inside={self.inside!r} needs frames: way_in=frames, with pixels in the cache")

    @property
    def recognises(self) -> bool:
        return True

    @property
    def swaps_classes(self) -> bool:
        return self.classifier in (TEXT_ROWS, MATCHING)

    @property
    def needs(self) -> tuple[str, ...]:
        seen = "frame_embedding" if self.way_in == FEATURES else PIXELS
        if self.classifier == MATCHING:
            return (seen, in_role("text_embedding", NAMES_ROLE))
        return (seen, CLASS) if self.classifier == LINEAR else (seen, CLASS, CLASS_ROWS)


@dataclass(frozen=True)
class ModelSizes:
    """M frames of a width D; the classifier's width and C classes (0 where no row is learned)."""

    frames: int
    width: int
    classifier_width: int
    classes: int = 0


class Text4VisStudent(Student):
    """sizes: width D of frames, M of them, and of the classifier: its width and C classes."""

    config: Config
    averaged = "video_embedding"

    def __init__(self, config: Config, sizes: ModelSizes, tower: VisualTower | None = None) -> None:
        super().__init__()
        self.config, self.tower = config, tower
        width = sizes.width
        self.temporal: nn.Module | None = None
        if config.temporal == T_TRANS:
            heads = config.heads or default_heads(width)
            if width % heads:
                raise InputError(f"{heads} attention heads do not divide a width of {width}; take another")
            self.temporal = TemporalTransformer(width, sizes.frames, config.temporal_layers, heads)
        elif config.temporal == T1D:
            self.temporal = FrameConvolution(width, TSM_SHARE)
        is_linear = config.classifier == LINEAR
        self.projection: nn.Linear | None = None
        if not is_linear and (config.projection or sizes.classifier_width != width):
            self.projection = nn.Linear(width, sizes.classifier_width, bias=False)
            start = nn.init.eye_ if sizes.classifier_width == width else nn.init.orthogonal_
            start(self.projection.weight)
        self.linear = nn.Linear(width, sizes.classes) if is_linear else None
        unfrozen = torch.zeros(sizes.classes, sizes.classifier_width)
        self.row_change = nn.Parameter(unfrozen) if config.classifier == UNFROZEN else None
        scaled = nn.Parameter(torch.tensor(math.log(config.logit_scale)))
        self.log_logit_scale = None if is_linear else scaled
        matches = config.classifier == MATCHING
        self.gathers = ("video_embedding", "text_embedding") if matches else ()
        self.gives = ("video_embedding", "text_embedding", "logits") if matches else BY_CLASSES

    def start(self) -> dict[str, Any]:
        """Take over the public weights of the configuration, for the visual tower and the logit scale."""
        if self.tower is None or self.config.weights is None:
            return {}
        told = self.tower.load_public(self.config.weights)
        if self.log_logit_scale is not None:
            with torch.no_grad():
                self.log_logit_scale.fill_(told["log_logit_scale"])
        return {"visual": told}

    def encode_videos(self, batch: Batch) -> dict[str, Tensor]:
        """`video_embedding` [b, D], not normalised; `class_logits` [b, C] but for "matching"."""
        if self.tower is None:
            frames = batch["frame_embedding"]
        else:
            frames = self.tower.encode_frames(batch[PIXELS], batch[FRAME_VALID])
        video = self.pool(frames, batch[FRAME_VALID])
        if self.config.classifier == MATCHING:
            return {"video_embedding": video}
        return {"video_embedding": video, "class_logits": self.classify(video, batch)}

    def pool(self, frames_BMD: Tensor, valid_BM: Tensor) -> Tensor:
        """Video embeddings [B, D] of frame features."""
        frames = frames_BMD
        if isinstance(self.temporal, TemporalTransformer):
            frames = self.temporal(frames, valid_BM)
        elif self.temporal is not None:
            frames = self.temporal(frames * valid_BM[..., None])
        weight = valid_BM / valid_BM.sum(-1, keepdim=True).clamp(min=1)
        video = (frames * weight[..., None]).sum(1)
        return video if self.projection is None else self.projection(video)

    def classify(self, video_embedding: Tensor, batch: Batch) -> Tensor:
        if self.linear is not None:
            logits: Tensor = self.linear(video_embedding)
            return logits
        rows_CD = self.class_rows(batch[CLASS_ROWS])
        return self.scale * cosine_similarity(video_embedding.float(), rows_CD)

    def class_rows(self, rows_PCD: Tensor) -> Tensor:
        """The classifier [C, D] of class names in P prompts: a prompt's own rows, or the mean direction."""
        if self.config.prompts == ONE_DRAWN and self.training:
            rows_CD = rows_PCD[int(torch.randint(len(rows_PCD), ()))]
        elif self.config.prompts == ONE_DRAWN or len(rows_PCD) == 1:
            rows_CD = rows_PCD[0]
        else:
            rows_CD = functional.normalize(rows_PCD, dim=-1).mean(0)
        if self.row_change is None:
            return rows_CD
        if len(self.row_change) != len(rows_CD):
            raise InputError(
                f"an unfrozen classifier of {len(self.row_change)} classes can't recognise {len(rows_CD)} "
                "others; train with the frozen one, classifier=text"
            )
        return rows_CD + self.row_change

    @property
    def scale(self) -> Tensor | float:
        """What multiplies the cosines: learned while it trains, 100 in evaluation."""
        assert self.log_logit_scale is not None
        return self.log_logit_scale.exp() if self.training else EVALUATION_SCALE

    def encode_texts(self, batch: Batch) -> dict[str, Tensor]:
        if self.config.classifier != MATCHING:
            return {}
        return {"text_embedding": batch[in_role("text_embedding", NAMES_ROLE)]}

    def similarity(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        return self.scale * cosine_similarity(videos["video_embedding"], texts["text_embedding"])


def build(config: Config, sizes: SignalSizes) -> Text4VisStudent:
    """The student for a cache of `sizes`; raises InputError for frames of another size than the tower's."""
    tower = None
    if config.way_in == FRAMES:
        tower = VisualTower.of(config.architecture, config.inside, config.weights)
        pixels = sizes[PIXELS]
        require_frame_size(pixels, tower.image_size, config.architecture)
        frames, width = pixels["M"], tower.width
    else:
        frames, width = (sizes["frame_embedding"][axis] for axis in "MD")
    if config.classifier == LINEAR:
        return Text4VisStudent(config, ModelSizes(frames, width, width, sizes[CLASS]["C"]), tower)
    rows = sizes[in_role("text_embedding", NAMES_ROLE) if config.classifier == MATCHING else CLASS_ROWS]
    return Text4VisStudent(config, ModelSizes(frames, width, rows["D"], rows.get("C", 0)), tower)
