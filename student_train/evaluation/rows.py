"""The rows of a split as an evaluation sees them: what is asked, what competes, what is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from store.reader import Cache
from store.streamed_ranks import ScoreBlock, streamed_metrics
from student_train.teachers import Teachers
from student_train.training_rows import paired_rows, videos_of_classes

ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class SplitRows:
    """A split as retrieval sees it: `video` [V] and `text` [T] are row numbers of the cache, int64.

    text_video: [T], index into `video` of each text's own. left_out: texts whose video did not decode.
    protocol: how the dataset is evaluated. text_key: [T], the same number for equal texts.
    """

    video: np.ndarray
    text: np.ndarray
    text_video: np.ndarray
    left_out: int
    protocol: str
    text_key: np.ndarray

    def metrics(self, scores: ScoreBlock) -> dict[str, dict[str, float]]:
        """R@1/5/10, MdR, MnR and SumR in both directions, under the dataset's protocol."""
        return streamed_metrics(scores, len(self.video), self.text_video, self.protocol, self.text_key)


@dataclass(frozen=True)
class ClassRows:
    """A split as recognition sees it, in row numbers of the cache, int64.

    video: [V]. text: [P, C], the class names in each of P prompts. label: [V], each video's
    class from 0. left_out: videos that did not decode.
    """

    video: np.ndarray
    text: np.ndarray
    label: np.ndarray
    left_out: int


def split_rows(cache: Cache, teachers: Teachers, split_name: str) -> SplitRows:
    """The usable videos of a split, those without a caption included, and the captions of them."""
    pairs = paired_rows(cache, teachers, split_name)
    video = cache.split(split_name).video
    video = np.unique(np.concatenate([video[teachers.video_usable[video]], pairs.video]))
    number_of: dict[str, int] = {}
    text_key = [number_of.setdefault(cache.texts[row], len(number_of)) for row in pairs.text]
    text_video = np.searchsorted(video, pairs.video)
    return SplitRows(video, pairs.text, text_video, pairs.left_out, cache.protocol, np.array(text_key))


def class_rows(cache: Cache, teachers: Teachers, split_name: str) -> ClassRows:
    """The usable videos of a split that have one of the teachers' classes, and the names of these.

    Raises InputError if there is no such video.
    """
    rows = videos_of_classes(cache, teachers, split_name)
    return ClassRows(rows.video, teachers.class_text, teachers.class_numbers(rows.video), rows.left_out)


def strips(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]
