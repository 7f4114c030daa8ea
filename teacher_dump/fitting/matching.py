"""Fitting an ALBEF-shaped cross-encoder on the pairs of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from teacher_dump.fitting.contrastive import RetrievalCourse, by_shape
from teacher_dump.fitting.course import FitRequest, Place
from teacher_dump.fitting.cross_encoder import (
    MomentumCopy,
    clamp_temperature,
    contrast_loss,
    encode,
    match_loss,
    seen_frames,
    similarity,
)
from teacher_dump.fitting.pair_batches import Batch
from teacher_dump.models.albef_model import ENCODERS, Albef
from teacher_dump.teachers.albef import AlbefTeacher

IMAGE_ENCODER = "visual_encoder."
NOT_RANKED = -100.0


@dataclass(frozen=True)
class Matching:
    """What the cross-encoder's training has besides an optimiser; the defaults are salesforce/ALBEF
    `configs/Retrieval_flickr.yaml`.

    momentum, queue, alpha: of `MomentumCopy` and `contrast_loss`; alpha grows to its value over the first
    epoch. rerank: candidates of a query, by contrast, that validation matches (the yaml's k_test).
    temperature_rate: share of the learning rate at which the temperature learns, which is a plain number.
    """

    momentum: float = 0.995
    queue: int = 65536
    alpha: float = 0.4
    rerank: int = 128
    temperature_rate: float = 1.0


class CrossEncoderCourse(RetrievalCourse):
    """ITC and ITM with hard negatives, momentum copies and queue."""

    teacher: AlbefTeacher
    model: Albef
    memory: MomentumCopy
    image_tower = IMAGE_ENCODER

    def __init__(
        self,
        teacher: AlbefTeacher,
        request: FitRequest,
        started_from: Mapping[str, Any],
        matching: Matching = Matching(),
        slow: Albef | None = None,
        beside: Mapping[str, Tensor] | None = None,
    ) -> None:
        """slow: momentum copies to go on with; by default they begin as the model is. beside: tensors that
        are written in place of the copies."""
        super().__init__(teacher, request, started_from, beside)
        self.matching = matching
        self.memory = MomentumCopy(slow or self.model, matching.momentum, matching.queue).to(request.device)

    def groups(self) -> list[dict[str, Any]]:
        """The image encoder at the rate of what is pre-trained, all else at the other; vectors do not decay
        (timm's `add_weight_decay`, which ALBEF's `create_optimizer` calls)."""
        settings, named = self.settings, list(self.model.named_parameters())
        temperature = {
            "params": [self.model.temp],
            "lr": settings.learning_rate * self.matching.temperature_rate,
            "weight_decay": 0.0,
        }
        others = [p for name, p in named if not name.startswith((IMAGE_ENCODER, "temp"))]
        groups = [temperature, *by_shape(others, settings.learning_rate, settings.weight_decay)]
        if self.locks_images:
            return groups
        images = [p for name, p in named if name.startswith(IMAGE_ENCODER)]
        return [*groups, *by_shape(images, settings.pretrained_learning_rate, settings.weight_decay)]

    def loss(self, batch: Batch, place: Place) -> Tensor:
        device, memory = self.teacher.device, self.memory
        ids = self.teacher.tokenizer.ids_of(batch.texts).to(device)
        valid, owner = self.teacher.tokenizer.valid_of(ids), batch.owner.to(device)
        clamp_temperature(self.model)
        image = self.images(batch, partial(self.seen, self.model))
        online = encode(self.model, image, ids, valid)
        memory.follow(self.model)
        with torch.no_grad():
            if not self.locks_images:
                image = self.seen(memory.model, batch)
            slow = encode(memory.model, image, ids, valid)
        alpha = self.matching.alpha * min(1.0, place.step / place.steps_per_epoch)
        contrast = contrast_loss(online, slow, memory, owner, self.model.temp, alpha)
        match = match_loss(self.model, online, slow, owner, place.generator(self.settings.seed))
        memory.push(slow, owner)
        return contrast + match

    def seen(self, model: Albef, batch: Batch) -> Tensor:
        """Tokens [B, M, L, D] of the batch's frames as `model` has them."""
        pixels = self.teacher.pixels(batch.frames, batch.valid, self.teacher.device)
        return seen_frames(model, pixels, batch.valid.shape)

    def validate(self) -> dict[str, float]:
        return self.check.metrics(
            self.teacher, (f"vit_layers/{self.teacher.last}", "frame_embedding"), self.reranked
        )

    def reranked(self, videos: Mapping[str, Tensor], texts: Mapping[str, Tensor]) -> Tensor:
        """Match logits [V, T] of every query's first candidates by contrast, in both directions; a pair that
        is nobody's candidate comes after all of them, as in the official evaluation."""
        device = self.teacher.device
        with self.teacher.forward():
            frames_VMD = functional.normalize(videos["frame_embedding"], dim=-1)
            contrast_VT = similarity(frames_VMD, functional.normalize(texts["text_embedding"], dim=-1))
            chosen_VT = torch.zeros_like(contrast_VT, dtype=torch.bool)
            for axis in (0, 1):
                most = min(self.matching.rerank, contrast_VT.shape[axis])
                chosen_VT.scatter_(axis, contrast_VT.topk(most, axis).indices, True)
            scores_VT = torch.full_like(contrast_VT, NOT_RANKED)
            for row, chosen_T in enumerate(chosen_VT):
                image = {name: value[row : row + 1] for name, value in videos.items()}
                words = {name: value[chosen_T] for name, value in texts.items()}
                scores_VT[row, chosen_T] = self.teacher.score_pairs(image, words)[0].to("cpu")
        return scores_VT.to(device)

    def weights(self) -> dict[str, Tensor]:
        """The online weights, and the momentum copies as the official file names them."""
        own = super().weights()
        if self.beside:
            return own
        copies = {
            name.replace(f"{part}.", f"{part}_m.", 1): value
            for name, value in self.memory.model.state_dict().items()
            for part in ENCODERS
            if name.startswith(f"{part}.")
        }
        return own | copies

    def described(self) -> dict[str, Any]:
        return asdict(self.matching)
