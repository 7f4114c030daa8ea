"""A training stream whose teacher runs in every step, as TeachCLIP's official loop has it.

What a cache holds is computed here instead, in float32: the frames of the batch go through the teacher's
towers, its texts too, then its scores of pairs and frames. For tests and benches: no student does this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from student_train.needs import FRAME_VALID, PAIR_SCORES, RELEVANCE, in_role
from student_train.rows import PairBlock
from student_train.step_source import Step
from student_train.stream import TrainingStream
from teacher_dump.teachers.base import Teacher

Frames = Callable[[np.ndarray], tuple[Tensor, Tensor]]
"""Video rows [B] -> uint8 frames [B, M, Y, X, C] and which of them are there, bool [B, M]."""


class LiveTeacher:
    """One teacher in its role, asked for the signals of a batch.

    temperature: of its frame relevance. A teacher without logits of its own (CLIP4Clip) scores pairs by the
    cosine of the mean of its frames after time with the text.
    """

    def __init__(self, teacher: Teacher, temperature: float = 1.0, role: str = "") -> None:
        self.teacher = teacher
        self.temperature = temperature
        self.role = role

    @torch.no_grad()
    def __call__(self, frames: Tensor, valid: Tensor, texts: Sequence[str]) -> dict[str, Any]:
        videos = {**self.teacher.encode_videos(frames, valid), FRAME_VALID: valid}
        words = self.teacher.encode_texts(texts)
        emitted = {spec.name for spec in self.teacher.signals}
        found: dict[str, Any] = {**videos, **words}
        if "video_text_logits" in emitted:
            score = self.teacher.score_pairs(videos, words)
        else:
            score = self.factored(videos["temporal_frame_embedding"], valid, words["text_embedding"])
        found[PAIR_SCORES] = PairBlock.whole(score.float())
        if RELEVANCE in emitted:
            relevance = self.teacher.relevance(videos, words) / self.temperature
            found[RELEVANCE] = relevance.masked_fill(~valid, -torch.inf).softmax(-1)
        # Tensors of inference mode can't take part in a backward pass.
        return {in_role(name, self.role): detached(value) for name, value in found.items()}

    def factored(self, frames: Tensor, valid: Tensor, texts: Tensor) -> Tensor:
        """What `store.pair_scores` computes of stored embeddings."""
        share = valid / valid.sum(-1, keepdim=True)
        video = (functional.normalize(frames, dim=-1) * share.unsqueeze(-1)).sum(1)
        scale: float = self.teacher.identity()["logit_scale"]
        return scale * functional.normalize(video, dim=-1) @ functional.normalize(texts, dim=-1).T


def detached(value: Any) -> Any:
    return value.map(torch.clone) if isinstance(value, PairBlock) else value.clone()


class LiveStream:
    """The steps of `stream`, in its order, with what `teachers` say live over what its cache holds."""

    def __init__(self, stream: TrainingStream, teachers: Sequence[LiveTeacher], frames: Frames) -> None:
        self._stream = stream
        self._live = teachers
        self._frames = frames
        self.teachers = stream.teachers
        self.steps_per_epoch = stream.steps_per_epoch
        self.batch_size = stream.batch_size

    @contextmanager
    def steps(
        self, first: int, behind: int, siblings_are_negatives: bool, device: torch.device
    ) -> Iterator[Iterator[Step]]:
        with self._stream.steps(first, behind, siblings_are_negatives, device) as feed:
            yield (self._taught_live(step) for step in feed)

    def _taught_live(self, step: Step) -> Step:
        frames, valid = self._frames(step.video)
        cache = self.teachers.cache
        texts = [cache.texts[row] for row in step.text.tolist()]
        said: dict[str, Any] = {}
        for live in self._live:
            said |= live(frames, valid, texts)
        return Step(step.video, step.text, {**step.batch, **said})
