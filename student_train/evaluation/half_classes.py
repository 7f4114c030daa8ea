"""The half-class protocol of zero-shot recognition: accuracy among a drawn half of the classes, ten times."""

from __future__ import annotations

import numpy as np

from store.retrieval_metrics import recognition_metrics

SPLITS = 10


def drawn_halves(classes: int) -> list[np.ndarray]:
    """The classes of each of the ten halves; whwu95/Text4Vis `test_zeroshot.py` draws the same ones."""
    return [np.random.RandomState(split).permutation(classes)[: classes // 2] for split in range(SPLITS)]


def half_class_metrics(scores_VC: np.ndarray, label_V: np.ndarray) -> list[dict[str, float]]:
    """The metrics of recognition within each half: only its videos, only its classes that have a video.

    scores_VC: [V, C]. label_V: int [V], each video's class from 0. A half without a video says nothing, so
    there may be fewer than ten.
    """
    found = []
    for half in drawn_halves(scores_VC.shape[1]):
        rows = np.flatnonzero(np.isin(label_V, half))
        if len(rows):
            classes, label = np.unique(label_V[rows], return_inverse=True)
            found.append(recognition_metrics(scores_VC[np.ix_(rows, classes)], label))
    return found
