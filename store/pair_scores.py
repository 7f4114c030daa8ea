"""Scores of video-text pairs: where a teacher's come from, and how they are computed at read time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from store.signals import SignalSpec

DENSE, FACTORED, NO_PAIRS = "dense", "factored", "none"


@dataclass(frozen=True)
class PairScores:
    """Where the scores of video-text pairs come from (DESIGN.md section 4).

    dense: the array `video_text_logits`. factored: logit_scale times the cosine of the masked mean
    of normalised `video_signal` frames with `text_signal`. none: this teacher has no pair scores.
    """

    layout: str
    logit_scale: float | None = None
    video_signal: str | None = None
    text_signal: str | None = None

    @classmethod
    def of(cls, signals: Mapping[str, SignalSpec], logit_scale: float | None) -> PairScores:
        if "video_text_logits" in signals:
            return cls(DENSE, logit_scale)
        frames = next((s for s in ("temporal_frame_embedding", "frame_embedding") if s in signals), None)
        if logit_scale is None or frames is None or "text_embedding" not in signals:
            return cls(NO_PAIRS)
        return cls(FACTORED, logit_scale, frames, "text_embedding")


def factored_scores(
    frames_VMD: np.ndarray, valid_VM: np.ndarray, texts_TD: np.ndarray, logit_scale: float
) -> np.ndarray:
    """Logits [V, T] float32: logit_scale times the cosine of the pooled frames with the text.

    Pooling is CLIP4Clip's (`modules/modeling.py: _mean_pooling_for_similarity_visual`): frames
    normalised, mean over the valid ones, normalised again.
    """
    frames_VMD = np.where(valid_VM[..., None], normalised(frames_VMD), 0)
    videos_VD = normalised(frames_VMD.sum(1) / valid_VM.sum(1, keepdims=True))
    return logit_scale * (videos_VD @ normalised(texts_TD).T)


def normalised(values: np.ndarray) -> np.ndarray:
    """Float32 vectors of length 1 along the last axis; a zero vector stays zero."""
    values = values.astype(np.float32)
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return values / np.where(length > 0, length, 1)
