"""Fitting the dual encoders CLIP4Clip and X-CLIP: each video against every text of its batch.

The loss is CLIP's (Radford et al. 2021, figure 3), as ArrowLuo/CLIP4Clip `modules/modeling.py` and
xuguohai/X-CLIP `modules/modeling_xclip.py` have it: the mean of both directions' cross entropy. Weights stay
float32; the official codes keep CLIP's in float16, where a step of 1e-7 mostly rounds to nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from teacher_dump.fitting.course import Course, FitRequest, Place, decayed
from teacher_dump.fitting.pair_batches import MEGABYTE, Batch, FrameSource, PairBatches
from teacher_dump.fitting.settings import ADAMW
from teacher_dump.fitting.validation import RetrievalCheck
from teacher_dump.models.clip4clip_model import Clip4Clip
from teacher_dump.models.clip_towers import encode_frames, encode_words
from teacher_dump.models.frozen import TowersTeacher
from teacher_dump.models.xclip_scores import XClip

MAX_LOGIT_SCALE = 100.0
VIDEOS_SCORED_AT_ONCE = 50
# CLIP's LayerNorms are called ln_*, so that the official list leaves their weights decayed.
OFFICIALLY_NOT_DECAYED = ("bias", "LayerNorm.bias", "LayerNorm.weight")


class RetrievalCourse(Course):
    """What the courses on pairs of a dataset share.

    teacher: whose model is trained; a dump's own forward validates it. A pretrained_learning_rate of 0 locks
    the image tower (LiT, Zhai et al. 2022) and trains all else at the other rate; what a locked tower says of
    a video is computed once and kept, as far as `keep_mb` reaches.
    """

    image_tower: str

    def __init__(
        self,
        teacher: Any,
        request: FitRequest,
        started_from: Mapping[str, Any],
        beside: Mapping[str, Tensor] | None = None,
    ) -> None:
        """beside: tensors that are written with the weights, e.g. a vocabulary."""
        self.teacher = teacher
        self.beside = dict(beside or {})
        self.model = teacher.to(request.device).model.requires_grad_(True)
        self.settings = request.settings
        self.started_from = started_from
        self.source = FrameSource(request.samples, teacher.view, request.decoding)
        self.train = PairBatches(
            self.source, request.train_split, request.settings.batch_size, request.settings.seed
        )
        self.locks_images = request.settings.pretrained_learning_rate == 0
        self._kept: dict[int, Tensor] = {}
        self._room = request.decoding.keep_mb * MEGABYTE
        for name, parameter in self.model.named_parameters():
            if self.locks_images and name.startswith(self.image_tower):
                parameter.requires_grad_(False)
        self.check = RetrievalCheck(self.source, request.val_split, request.decoding.val_videos)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train)

    def batches(self, epoch: int) -> Iterator[Batch]:
        return self.train.of_epoch(epoch)

    def images(self, batch: Batch, encode: Callable[[Batch], Tensor]) -> Tensor:
        """What `encode` says of the batch's videos [B, ...]; from a locked tower without gradients."""
        if not self.locks_images:
            return encode(batch)
        owners = batch.owner.tolist()
        fresh: dict[int, Tensor] = {}
        if new := [place for place, row in enumerate(owners) if row not in self._kept]:
            with torch.no_grad():
                encoded = encode(
                    Batch(
                        batch.frames[new],
                        batch.valid[new],
                        tuple(batch.texts[p] for p in new),
                        batch.owner[new],
                    )
                )
            fresh = {owners[place]: of_video for place, of_video in zip(new, encoded, strict=True)}
        found = torch.stack([self._kept[row] if row in self._kept else fresh[row] for row in owners])
        for row, of_video in fresh.items():
            if len(self._kept) < self._room // of_video.nbytes:
                self._kept[row] = of_video.clone()
        return found

    def weights(self) -> dict[str, Tensor]:
        return {**self.model.state_dict(), **self.beside}

    def failures(self) -> Mapping[str, str]:
        videos = self.source.samples.videos
        return {videos[row].id: reason for row, reason in self.source.failures.items()}

    def close(self) -> None:
        self.source.close()


class DualCourse(RetrievalCourse):
    """A teacher over CLIP's towers, trained by the scores of its batch."""

    teacher: TowersTeacher
    model: Clip4Clip | XClip
    image_tower = "clip.visual."

    def groups(self) -> list[dict[str, Any]]:
        """CLIP's parameters and the new ones, each with and without decay (`prep_optimizer` of CLIP4Clip);
        for AdamW, matrices decay and vectors do not."""
        settings = self.settings
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        if settings.optimiser == ADAMW:
            return by_shape([p for _, p in named], settings.learning_rate, settings.weight_decay)
        of_towers = settings.learning_rate if self.locks_images else settings.pretrained_learning_rate
        return [
            group
            for of_clip, lr in ((True, of_towers), (False, settings.learning_rate))
            for group in decayed(
                [(name, p) for name, p in named if name.startswith("clip.") == of_clip],
                lr,
                settings.weight_decay,
                OFFICIALLY_NOT_DECAYED,
            )
        ]

    def loss(self, batch: Batch, place: Place) -> Tensor:
        teacher, device = self.teacher, self.teacher.device
        valid, frames = batch.valid.to(device), self.images(batch, self.encoded_frames)
        sentence, words = encode_words(self.model.clip, teacher.tokenizer.ids_of(batch.texts).to(device))
        return contrastive_loss(self.logits(frames, valid, sentence, words))

    def encoded_frames(self, batch: Batch) -> Tensor:
        """[B, M, D] of the image tower."""
        pixels = self.teacher.pixels(batch.frames, batch.valid, self.teacher.device)
        return encode_frames(self.model.clip.visual, pixels)[0].unflatten(0, batch.valid.shape)

    @abstractmethod
    def logits(self, frames_VMD: Tensor, valid_VM: Tensor, sentence_TD: Tensor, words_TWD: Tensor) -> Tensor:
        """[V, T] from what the towers say."""

    @torch.no_grad()
    def after_step(self) -> None:
        self.model.clip.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def validate(self) -> dict[str, float]:
        def scores(videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
            blocks = []
            for start in range(0, len(videos["frame_valid"]), VIDEOS_SCORED_AT_ONCE):
                rows = slice(start, start + VIDEOS_SCORED_AT_ONCE)
                with self.teacher.scoring({n: v[rows] for n, v in videos.items()}, texts) as (v, t):
                    blocks.append(
                        self.logits(
                            v["frame_embedding"], v["frame_valid"], t["text_embedding"], t["word_embedding"]
                        )
                    )
            return torch.cat(blocks)

        return self.check.metrics(self.teacher, ("frame_embedding",), scores)


class Clip4ClipCourse(DualCourse):
    """CLIP4Clip: the mean of the frames after the temporal transformer."""

    model: Clip4Clip

    def logits(self, frames_VMD: Tensor, valid_VM: Tensor, sentence_TD: Tensor, words_TWD: Tensor) -> Tensor:
        found: Tensor = self.model.logits(
            self.model.temporal_frames(frames_VMD, valid_VM), valid_VM, sentence_TD
        )
        return found


class XClipCourse(DualCourse):
    """X-CLIP: the mean of its four scores."""

    model: XClip

    def logits(self, frames_VMD: Tensor, valid_VM: Tensor, sentence_TD: Tensor, words_TWD: Tensor) -> Tensor:
        found: Tensor = self.model.logits(frames_VMD, valid_VM, sentence_TD, words_TWD)
        return found


def by_shape(parameters: list[torch.nn.Parameter], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices, which decay, and vectors, which do not."""
    return [
        {"params": [p for p in parameters if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]


def contrastive_loss(logits_VT: Tensor) -> Tensor:
    """Mean of both directions' cross entropy with the diagonal."""
    target = torch.arange(len(logits_VT), device=logits_VT.device)
    return (functional.cross_entropy(logits_VT, target) + functional.cross_entropy(logits_VT.T, target)) / 2
