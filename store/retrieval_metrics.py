"""Retrieval and recognition metrics in NumPy: both stages report the same numbers by the same rules.

Scores are always [V, T]: row a video, column a text, higher is closer. What is right, and which candidates
compete, is the dataset's protocol (store/inputs/protocol.py).

Ties and NaN never help. Whatever does not score strictly below the right answer counts as ranked
before it, so a model that gives every pair the same score (or NaN) ranks last, not first. (Official
codes list a tied answer at every rank of its tie, which can count one query several times over.)

Sources: CLIP4Clip, metrics.py (compute_metrics, tensor_text_to_video_metrics, tensor_video_to_text_sim) and
the multi-sentence branch of main_task_retrieval.py; X-Pool, modules/metrics.py (t2v_metrics, v2t_metrics);
for every-caption the itm_eval of ALBEF, Retrieval.py. Without ties the numbers are theirs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from store.errors import InputError
from store.inputs.protocol import (
    EQUAL_CAPTIONS,
    EVERY_CAPTION,
    MULTI_CAPTION,
    PARAGRAPH,
    RETRIEVAL_PROTOCOLS,
    SINGLE_CAPTION,
)
from store.lookup import check_name

TEXT_TO_VIDEO = "text_to_video"
VIDEO_TO_TEXT = "video_to_text"
DIRECTIONS = (TEXT_TO_VIDEO, VIDEO_TO_TEXT)
RECALL_AT = (1, 5, 10)
METRICS = ("R@1", "R@5", "R@10", "MdR", "MnR", "SumR")
TOP = (1, 5)
RECOGNITION_METRICS = ("top-1", "top-5", "mean class")


def retrieval_metrics(
    scores_VT: ArrayLike,
    text_video_T: ArrayLike,
    protocol: str = EVERY_CAPTION,
    text_key_T: ArrayLike | None = None,
) -> dict[str, dict[str, float]]:
    """R@1, R@5, R@10 (percent), MdR and MnR (ranks, from 1) and SumR in both directions.

    scores_VT: float [V, T]. text_video_T: int [T], the row in V of each text's own video. text_key_T: int
    [T], the same number for equal texts; needed under equal-captions alone. Raises InputError when the shapes
    do not fit, a text names no row of V, or a video has two texts under a protocol of one; UnknownNameError
    for a protocol that is none of retrieval.
    """
    scores, text_video = checked(scores_VT, text_video_T)
    check_protocol(protocol, text_video)
    if protocol == EQUAL_CAPTIONS:
        true = equal_text_pairs(scores.shape[0], text_video, text_key_T)
        ranks = best_true_ranks(scores.T, true.T), best_true_ranks(scores, true)
    elif protocol == MULTI_CAPTION:
        ranks = text_to_video_ranks(scores, text_video), video_to_caption_set_ranks(scores, text_video)
    else:
        ranks = text_to_video_ranks(scores, text_video), video_to_text_ranks(scores, text_video)
    return {direction: summary(found) for direction, found in zip(DIRECTIONS, ranks, strict=True)}


def check_protocol(protocol: str, text_video: np.ndarray) -> None:
    """Raise UnknownNameError for a protocol not of retrieval, InputError where the texts do not fit it."""
    check_name("protocol of retrieval", protocol, RETRIEVAL_PROTOCOLS)
    if protocol in (SINGLE_CAPTION, PARAGRAPH) and len(np.unique(text_video)) < len(text_video):
        raise InputError(
            f"{len(text_video)} texts of {len(np.unique(text_video))} videos do not fit the protocol "
            f"{protocol!r}, one text a video; the dataset needs {MULTI_CAPTION!r} or {EVERY_CAPTION!r}"
        )


def text_to_video_ranks(scores_VT: ArrayLike, text_video_T: ArrayLike) -> np.ndarray:
    """Rank [T] int64, from 1, of every text's own video among all V videos."""
    scores, text_video = checked(scores_VT, text_video_T)
    own = scores[text_video, np.arange(scores.shape[1])]
    return np.count_nonzero(~(scores < own), axis=0)


def video_to_text_ranks(scores_VT: ArrayLike, text_video_T: ArrayLike) -> np.ndarray:
    """Rank int64, from 1, of the best-ranked own text of every video among all T texts.

    Videos without a text are left out. The candidates are single texts.
    """
    scores, text_video = checked(scores_VT, text_video_T)
    return best_true_ranks(scores, text_video[None, :] == np.arange(scores.shape[0])[:, None])


def video_to_caption_set_ranks(scores_VT: ArrayLike, text_video_T: ArrayLike) -> np.ndarray:
    """Rank int64, from 1, of every video's own set of captions among the sets of all videos.

    A set scores as its best caption does. Videos without a text are neither queries nor candidates.
    """
    scores, text_video = checked(scores_VT, text_video_T)
    order = np.argsort(text_video, kind="stable")
    with_text, begins = np.unique(text_video[order], return_index=True)
    own = text_video[None, :] == with_text[:, None]
    not_below = ~(scores[with_text] < best_scores(scores[with_text], own))
    set_not_below = np.logical_or.reduceat(not_below[:, order], begins, axis=1)
    np.fill_diagonal(set_not_below, False)
    return np.count_nonzero(set_not_below, axis=1) + 1


def equal_text_pairs(videos: int, text_video: np.ndarray, text_key_T: ArrayLike | None) -> np.ndarray:
    """bool [V, T]: the video has a text of its own that equals this one."""
    key = checked_keys(text_video, text_key_T)
    has_key = np.zeros((videos, key.max() + 1), dtype=bool)
    has_key[text_video, key] = True
    return has_key[:, key]


def checked_keys(text_video: np.ndarray, text_key_T: ArrayLike | None) -> np.ndarray:
    """int [T], from 0 without gaps: the same number for equal texts; raises InputError if they do not fit."""
    if text_key_T is None or np.shape(text_key_T) != text_video.shape:
        raise InputError(
            f"protocol {EQUAL_CAPTIONS!r} needs text_key [{len(text_video)}], a number for equal texts, "
            f"got {None if text_key_T is None else np.shape(text_key_T)}"
        )
    return np.unique(np.asarray(text_key_T), return_inverse=True)[1]


def best_true_ranks(scores_NC: np.ndarray, true_NC: np.ndarray) -> np.ndarray:
    """Rank int64, from 1, of the best right candidate of every query among all that are not right as well.

    scores_NC: float [queries, candidates]. true_NC: bool. Queries without a right candidate are left out.
    """
    not_below = ~(scores_NC < best_scores(scores_NC, true_NC))
    foreign = np.count_nonzero(not_below & ~true_NC, axis=1)
    return (foreign + 1)[true_NC.any(axis=1)]


def best_scores(scores_NC: np.ndarray, true_NC: np.ndarray) -> np.ndarray:
    """[N, 1]: the best score of the right candidates; -inf where every one is NaN."""
    usable = true_NC & ~np.isnan(scores_NC)
    return np.where(usable, scores_NC, -np.inf).max(axis=1, keepdims=True)


def recognition_metrics(scores_VC: ArrayLike, label_V: ArrayLike) -> dict[str, float]:
    """top-1 and top-5 accuracy and `mean class`, in percent, see `recognition_summary`.

    scores_VC: float [V, C]. label_V: int [V], each video's class from 0. Raises InputError when they do not
    fit.
    """
    scores, label = np.asarray(scores_VC), np.asarray(label_V)
    ranks = text_to_video_ranks(scores.T, label) if scores.ndim == 2 else text_to_video_ranks(scores, label)
    return recognition_summary(ranks, label)


def recognition_summary(ranks_V: np.ndarray, label_V: np.ndarray) -> dict[str, float]:
    """The metrics of `RECOGNITION_METRICS` from the rank, from 1, of each video's own class.

    top-k: the share of videos whose class ranks among the first k. mean class: top-1 of every class that
    occurs, and their mean.
    """
    _, place = np.unique(label_V, return_inverse=True)
    right = np.bincount(place, weights=ranks_V == 1) / np.bincount(place)
    top = {f"top-{k}": 100.0 * float(np.mean(ranks_V <= k)) for k in TOP}
    return {**top, "mean class": 100.0 * float(np.mean(right))}


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
