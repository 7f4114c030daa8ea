"""Rechecking what is said of pairs: relevance, dense and planned scores, top-k lists.

As a dump does, from the features that are stored: where those hold, so must what is computed from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from store.joined_rows import JoinedRows, Rows
from store.reader import TeacherReader
from teacher_dump.comparison import PAIRS, Comparison
from teacher_dump.shard_files import StoredFeatures, blocks
from teacher_dump.stored_comparison import new_comparison, take
from teacher_dump.teachers.base import Teacher

PAIR_SIGNALS = ("frame_relevance", "video_text_logits", "topk_scores", "planned_scores", "planned_topk")
SIDE = 16
"""Partners with which each sampled row is scored: a pair of a cross-encoder costs a forward."""


@dataclass(frozen=True)
class PairRecheck:
    """What scores pairs anew: the teacher, on stored features of the cache behind `reader`."""

    reader: TeacherReader
    teacher: Teacher
    stored: StoredFeatures

    def array(self, signal: str) -> Rows:
        """A signal that is one array."""
        return self.reader.stored[signal].rows(self.reader.cache.path, "")

    def block(self, videos: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Logits float32 [V, T]."""
        of_texts = self.stored.texts(texts)
        rows = [
            self.teacher.score_pairs(self.stored.videos(some), of_texts).float().cpu().numpy()
            for some in blocks(videos, self.reader.plan.execution["batch_videos"])
        ]
        return np.concatenate(rows)


def compare_pairs(
    reader: TeacherReader, teacher: Teacher, videos: np.ndarray, texts: np.ndarray
) -> Iterator[Comparison]:
    """Of every signal of pairs that is stored, its comparison on the sampled rows."""
    if not any(name.split("/")[0] in PAIR_SIGNALS for name in reader.signals):
        return
    segments = reader.cache.tables.segments[: reader.segments]
    stored = StoredFeatures(reader.cache.path, reader.plan, teacher.pair_inputs, segments)
    anew = PairRecheck(reader, teacher, stored)
    if "frame_relevance" in reader.signals:
        yield compare_relevance(anew, texts)
    if "video_text_logits" in reader.signals:
        yield compare_dense(anew, videos, texts)


def compare_relevance(anew: PairRecheck, texts: np.ndarray) -> Comparison:
    """Of the sampled texts that have a video with frames."""
    reader, own = anew.reader, anew.reader.cache.text_video
    comparison = new_comparison(reader, "frame_relevance", PAIRS)
    matched = texts[(own[texts] >= 0) & reader.video_usable[own[texts]]]
    for rows in blocks(matched, reader.plan.execution["batch_texts"]):
        found_BM = anew.teacher.relevance(anew.stored.videos(own[rows]), anew.stored.texts(rows))
        take(comparison, reader, rows, found_BM[:, None].float().cpu().numpy())
    return comparison


def compare_dense(anew: PairRecheck, videos: np.ndarray, texts: np.ndarray) -> Comparison:
    """Every sampled video against SIDE of the sampled texts."""
    comparison = new_comparison(anew.reader, "video_text_logits", PAIRS)
    texts = texts[:: max(len(texts) // SIDE, 1)][:SIDE]
    logits = anew.array("video_text_logits")
    assert not isinstance(logits, JoinedRows)  # blocks of pairs are joined as `JoinedScores`
    stored_VT = logits.gather(videos, texts)
    comparison.add(videos, stored_VT, anew.block(videos, texts).astype(np.float16))
    return comparison
