"""Retrieval metrics in NumPy: both stages report the same numbers by the same rules.

Scores are always [V, T]: row a video, column a text, higher is closer.

Ties and NaN never help. Whatever does not score strictly below the right answer counts as ranked
before it, so a model that gives every pair the same score (or NaN) ranks last, not first. (Official
codes list a tied answer at every rank of its tie, which can count one query several times over.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from store.errors import InputError

TEXT_TO_VIDEO = "text_to_video"
VIDEO_TO_TEXT = "video_to_text"
DIRECTIONS = (TEXT_TO_VIDEO, VIDEO_TO_TEXT)
RECALL_AT = (1, 5, 10)
METRICS = ("R@1", "R@5", "R@10", "MdR", "MnR", "SumR")


def retrieval_metrics(scores_VT: ArrayLike, text_video_T: ArrayLike) -> dict[str, dict[str, float]]:
    """R@1, R@5, R@10 (percent), MdR and MnR (ranks, from 1) and SumR in both directions.

    scores_VT: float [V, T]. text_video_T: int [T], the row in V of each text's own video.
    Raises InputError when the shapes do not fit or a text names no row of V.
    """
    scores, text_video = checked(scores_VT, text_video_T)
    return {
        TEXT_TO_VIDEO: summary(text_to_video_ranks(scores, text_video)),
        VIDEO_TO_TEXT: summary(video_to_text_ranks(scores, text_video)),
    }


def text_to_video_ranks(scores_VT: ArrayLike, text_video_T: ArrayLike) -> np.ndarray:
    """Rank [T] int64, from 1, of every text's own video among all V videos."""
    scores, text_video = checked(scores_VT, text_video_T)
    own = scores[text_video, np.arange(scores.shape[1])]
    return np.count_nonzero(~(scores < own), axis=0)


def video_to_text_ranks(scores_VT: ArrayLike, text_video_T: ArrayLike) -> np.ndarray:
    """Rank int64, from 1, of the best-ranked own text of every video among all T texts.

    Videos without a text are left out. The candidates are single texts. (CLIP4Clip's protocol for
    many captions a video puts one candidate a video in place of them, the best of its texts; with
    one text a video the two are the same.)
    """
    scores, text_video = checked(scores_VT, text_video_T)
    own = text_video[None, :] == np.arange(scores.shape[0])[:, None]
    best_own = np.where(own & ~np.isnan(scores), scores, -np.inf).max(axis=1, keepdims=True)
    not_below = ~(scores < best_own)
    foreign = np.count_nonzero(not_below & ~own, axis=1)
    return (foreign + 1)[own.any(axis=1)]


def summary(ranks: np.ndarray) -> dict[str, float]:
    """The metrics of `METRICS` from ranks that start at 1."""
    recall = {f"R@{k}": 100.0 * float(np.mean(ranks <= k)) for k in RECALL_AT}
    return {
        **recall,
        "MdR": float(np.median(ranks)),
        "MnR": float(np.mean(ranks)),
        "SumR": sum(recall.values()),
    }


def checked(scores_VT: ArrayLike, text_video_T: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays; raises InputError unless they fit each other."""
    scores, text_video = np.asarray(scores_VT), np.asarray(text_video_T)
    if scores.ndim != 2 or text_video.shape != (scores.shape[1],) or scores.size == 0:
        raise InputError(
            f"retrieval metrics need scores [V, T] and text_video [T], at least one of each, "
            f"got {scores.shape} and {text_video.shape}"
        )
    if text_video.dtype.kind not in "iu" or text_video.min() < 0 or text_video.max() >= scores.shape[0]:
        raise InputError(f"text_video holds row numbers from 0 to {scores.shape[0] - 1}, not what came")
    return scores, text_video
