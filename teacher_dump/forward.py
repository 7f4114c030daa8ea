"""A teacher's forward over decoded videos and over texts, as arrays: what a dump stores, and measures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from store.inputs.frames import DecodedVideo
from teacher_dump.teachers.base import Teacher


def video_signals(
    teacher: Teacher, frames_BRMYXC: np.ndarray, valid_BRM: np.ndarray
) -> dict[str, np.ndarray]:
    """float32 signals [B, R, M, ...] of a batch: renditions are videos of their own to a teacher."""
    encoded = teacher.encode_videos(
        torch.from_numpy(frames_BRMYXC).flatten(0, 1), torch.from_numpy(valid_BRM).flatten(0, 1)
    )
    return {
        name: values.unflatten(0, valid_BRM.shape[:2]).float().cpu().numpy()
        for name, values in encoded.items()
    }


def stacked(videos: Sequence[DecodedVideo]) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [B, R, M, Y, X, C] of a batch, and which of them are there: bool [B, R, M]."""
    return np.stack([video.frames for video in videos]), np.stack([video.frame_valid for video in videos])


def text_signals(teacher: Teacher, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """float32 signals [B, ...] of texts."""
    return {name: values.float().cpu().numpy() for name, values in teacher.encode_texts(texts).items()}
