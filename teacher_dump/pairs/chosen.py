"""What a teacher says of single pairs that somebody chose: MCAD's equation 6."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from store.planned_topk import FUSED, MISMATCH, SCORE
from teacher_dump.shard_files import StoredFeatures, blocks
from teacher_dump.teachers.base import Teacher

Parts = dict[str, np.ndarray]


class ChosenPairs:
    """Scores pairs from stored features: each video with all of its texts, up to `block_texts` at once."""

    def __init__(self, teacher: Teacher, stored: StoredFeatures, block_texts: int) -> None:
        self._teacher = teacher
        self._stored = stored
        self._block_texts = block_texts

    def of_pairs(self, videos: np.ndarray, texts: np.ndarray, fused_cls: bool = False) -> Parts:
        """float32 arrays of the shape of `videos` and `texts`, which hold row numbers; with -1 it is no pair.

        "score"; of a cross-encoder also "mismatch", and if wanted "fused_cls" with D behind; 0 where there is
        no pair. A pair that stands there twice is scored once.
        """
        width = self._teacher.fused_width
        parts: Parts = {SCORE: np.zeros(videos.shape, dtype=np.float32)}
        if width is not None:
            parts[MISMATCH] = np.zeros(videos.shape, dtype=np.float32)
            if fused_cls:
                parts[FUSED] = np.zeros((*videos.shape, width), dtype=np.float32)
        there = (videos >= 0) & (texts >= 0)
        if there.any():
            chosen = np.stack([videos[there], texts[there]])
            pairs, inverse = np.unique(chosen, axis=1, return_inverse=True)
            found = list(self._of_each_video(pairs, fused_cls))
            for name, values in parts.items():
                said = np.concatenate([part[name] for part in found])
                values[there] = said[inverse.reshape(-1)]
        return parts

    def _of_each_video(self, pairs: np.ndarray, fused_cls: bool) -> Iterator[Parts]:
        """What is said of `pairs` [2, P], sorted by video, in their order."""
        videos, begins = np.unique(pairs[0], return_index=True)
        for video, texts in zip(videos, np.split(pairs[1], begins[1:]), strict=True):
            of_video = self._stored.videos(np.array([video]))
            for some in blocks(texts, self._block_texts):
                of_texts = self._stored.texts(some)
                if self._teacher.fused_width is None:
                    yield {SCORE: self._teacher.score_pairs(of_video, of_texts)[0].float().cpu().numpy()}
                    continue
                said = self._teacher.match_pairs(of_video, of_texts)
                mismatch, match = said["match_logits"].float().cpu().unbind(1)
                parts = {SCORE: match.numpy(), MISMATCH: mismatch.numpy()}
                if fused_cls:
                    parts[FUSED] = said["fused_cls"].float().cpu().numpy()
                yield parts
