"""What a student (or the teacher) retrieves on a split, and which frames it looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from store.errors import UnknownNameError
from store.reader import Cache, TeacherReader
from store.retrieval_metrics import retrieval_metrics
from student_train.needs import RELEVANCE
from student_train.stream import frame_distribution, paired_rows, row_tensors
from student_train.students.base import Student, cosine_similarity
from student_train.teachers import Teachers

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

    def metrics(self, scores_VT: np.ndarray) -> dict[str, dict[str, float]]:
        """R@1/5/10, MdR, MnR and SumR in both directions, under the dataset's protocol."""
        return retrieval_metrics(scores_VT, self.text_video, self.protocol, self.text_key)


@dataclass(frozen=True)
class Retrieval:
    """scores: cosine [V, T]. frame_weight: [V, M], rows sum to 1; None if the student weighs no frames."""

    scores: np.ndarray
    frame_weight: np.ndarray | None


def split_rows(cache: Cache, teacher: TeacherReader, split_name: str) -> SplitRows:
    """The usable videos of a split, those without a caption included, and the captions of them."""
    pairs = paired_rows(cache, teacher, split_name)
    video = cache.split(split_name).video
    video = np.unique(np.concatenate([video[teacher.video_usable[video]], pairs.video]))
    number_of: dict[str, int] = {}
    text_key = [number_of.setdefault(cache.texts[row], len(number_of)) for row in pairs.text]
    text_video = np.searchsorted(video, pairs.video)
    return SplitRows(video, pairs.text, text_video, pairs.left_out, cache.protocol, np.array(text_key))


def retrieve(student: Student, teacher: TeacherReader, rows: SplitRows) -> Retrieval:
    """Scores and frame weights of a student, in eval mode and float32."""
    device = next(student.parameters()).device
    was_training = student.training
    student.eval()
    videos, weights, texts = [], [], []
    with torch.no_grad():
        for some in strips(rows.video):
            batch = row_tensors(Teachers(teacher), student.config.needs, "V", some)
            encoded = student.encode_videos({name: value.to(device) for name, value in batch.items()})
            videos.append(encoded["video_embedding"])
            weights.append(encoded.get("frame_weight"))
        for some in strips(rows.text):
            batch = row_tensors(Teachers(teacher), student.config.needs, "T", some)
            encoded = student.encode_texts({name: value.to(device) for name, value in batch.items()})
            texts.append(encoded["text_embedding"])
        scores = cosine_similarity(torch.cat(videos), torch.cat(texts)).cpu().numpy()
    student.train(was_training)
    known = [weight for weight in weights if weight is not None]
    return Retrieval(scores, torch.cat(known).cpu().numpy() if known else None)


def strips(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]


def metrics_of(retrieval: Retrieval, rows: SplitRows) -> dict[str, dict[str, float]]:
    """R@1/5/10, MdR, MnR and SumR in both directions."""
    return rows.metrics(retrieval.scores)


def teacher_metrics(teacher: TeacherReader, rows: SplitRows) -> dict[str, Any]:
    """The teacher's own metrics from its pair scores, or {"absent": reason} where it has none."""
    try:
        scores, known = teacher.pair_scores(rows.video, rows.text)
    except UnknownNameError as error:
        return {"absent": str(error)}
    if not known.all():
        unknown = int(np.count_nonzero(~known))
        return {"absent": f"{unknown} of {known.size} pairs of the split were not scored by the teacher"}
    return rows.metrics(scores)


def teacher_frame_weight(teacher: TeacherReader, rows: SplitRows) -> np.ndarray | None:
    """Frame relevance [T, M] of the teacher for every text with its own video; None if not stored."""
    if RELEVANCE not in teacher.signals or not teacher.signals[RELEVANCE].attributes.get("temperature"):
        return None
    video = rows.video[rows.text_video]
    score = row_tensors(Teachers(teacher), [RELEVANCE], "T", rows.text)[RELEVANCE]
    valid = torch.from_numpy(teacher.frame_valid[video, 0])
    return frame_distribution(teacher, score, valid).numpy()
