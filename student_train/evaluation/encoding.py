"""Rows of a cache as a student sees them: encoded once, strip by strip, and compared block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from student_train.evaluation.rows import strips
from student_train.row_tensors import row_tensors
from student_train.students.base import Student
from student_train.teachers import Teachers

FRAME_WEIGHT = "frame_weight"
Encoded = Mapping[str, Tensor]
"""What a student says of rows [N, ...], on its device: what it compares, and the frame weights of videos."""


@contextmanager
def evaluating(student: Student) -> Iterator[torch.device]:
    """The student in eval mode and without gradients; gives its device."""
    was_training = student.training
    student.eval()
    try:
        with torch.no_grad():
            yield next(student.parameters()).device
    finally:
        student.train(was_training)


def encode_videos(student: Student, teachers: Teachers, rows: np.ndarray) -> dict[str, Tensor]:
    """Of the videos `rows` [V], rendition 0; frame weights only if the student weighs frames."""
    parts = []
    with evaluating(student) as device:
        for some in strips(rows):
            batch = batch_of(student, teachers, "V", some, device)
            parts.append(kept(student, student.encode_videos(batch)))
    return joined(parts)


def encode_texts(student: Student, teachers: Teachers, rows: np.ndarray) -> dict[str, Tensor]:
    """Of the texts `rows` [T]."""
    parts = []
    with evaluating(student) as device:
        for some in strips(rows):
            batch = batch_of(student, teachers, "T", some, device)
            parts.append(kept(student, student.encode_texts(batch)))
    return joined(parts)


def batch_of(
    student: Student,
    teachers: Teachers,
    axis: str,
    rows: np.ndarray,
    device: torch.device,
    rendition: int = 0,
) -> dict[str, Any]:
    """What the student needs of a few videos ("V") or texts ("T"), on `device`."""
    batch = row_tensors(teachers, student.config.needs, axis, rows, rendition)
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def kept(student: Student, said: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What has to be held of all rows; the rest of what a student says is let go."""
    return {name: value for name, value in said.items() if name in (*student.gathers, FRAME_WEIGHT)}


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class StudentScores:
    """Logits, float32 [v, t], of a student for any places among encoded `videos` [V] and `texts` [T]."""

    def __init__(self, student: Student, videos: Encoded, texts: Encoded) -> None:
        self.student = student
        self.videos = {name: value for name, value in videos.items() if name in student.gathers}
        self.texts = {name: value for name, value in texts.items() if name in student.gathers}

    def __call__(self, video_places: np.ndarray, text_places: np.ndarray) -> np.ndarray:
        with evaluating(self.student) as device:
            videos, texts = (
                {name: value[torch.from_numpy(places).to(device)].float() for name, value in side.items()}
                for side, places in ((self.videos, video_places), (self.texts, text_places))
            )
            block: np.ndarray = self.student.similarity(videos, texts).float().cpu().numpy()
            return block
