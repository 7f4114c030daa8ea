"""Which class a student or the teacher gives a video, seen in several renditions (clips, crops).

Renditions are averaged in one of two ways, as the student says (`Student.averaged`): either the
probabilities, softmax of each rendition's logits (Side4Video's test), or what the student made of each
rendition, as it is, which is then classified once (whwu95/Text4Vis `test.py`, function validate). Ranks are
those of `store.retrieval_metrics`: of equals the right class is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from store.errors import LeftOutError, UnknownNameError
from store.pair_scores import FACTORED, normalised, pooled
from store.reader import TeacherReader
from store.retrieval_metrics import recognition_summary
from student_train.evaluation.encoding import batch_of, encode_texts, evaluating, kept
from student_train.evaluation.retrieval import UnscoredPairsError, known_scores
from student_train.evaluation.rows import ClassRows, strips
from student_train.students.base import Student
from student_train.teachers import Teachers

CLASS_LOGITS = "class_logits"
ClassLogits = Callable[[np.ndarray, int], np.ndarray]
"""(places of videos [v], rendition) -> logits [v, C]."""


@dataclass(frozen=True)
class Recognition:
    """metrics: of RECOGNITION_METRICS, in percent. renditions: how many of each video were averaged."""

    metrics: dict[str, float]
    renditions: int


def recognise(student: Student, teachers: Teachers, rows: ClassRows) -> Recognition:
    """Metrics of a student in eval mode, over all renditions of the teacher's view."""
    renditions = teachers.main.view.renditions
    logits = student_logits(student, teachers, rows)
    if student.averaged is None:
        return over_renditions(logits, rows, renditions)
    return Recognition(over_renditions(logits, rows, renditions=1).metrics, renditions)


def student_logits(student: Student, teachers: Teachers, rows: ClassRows) -> ClassLogits:
    """Of one rendition, or of the mean over all if the student averages what it says of them.

    Its video side says `class_logits` [b, C], or it compares videos with the class names as texts, whose
    logits are averaged over prompts.
    """
    by_name = CLASS_LOGITS not in student.gives
    classes = encode_texts(student, teachers, rows.text.ravel()) if by_name else {}

    def compared(said: Mapping[str, Tensor]) -> Tensor:
        return student.similarity(kept(student, said), classes).unflatten(1, rows.text.shape).mean(1)

    def of_one(video: np.ndarray, rendition: int, device: torch.device) -> Tensor:
        said = student.encode_videos(batch_of(student, teachers, "V", video, device, rendition))
        return compared(said) if by_name else said[CLASS_LOGITS]

    def of_mean(video: np.ndarray, name: str, device: torch.device) -> Tensor:
        every = range(teachers.main.view.renditions)
        batches = [batch_of(student, teachers, "V", video, device, rendition) for rendition in every]
        mean = torch.stack([student.encode_videos(batch)[name] for batch in batches]).mean(0)
        return compared({name: mean}) if by_name else student.classify(mean, batches[0])

    def logits(places: np.ndarray, rendition: int) -> np.ndarray:
        with evaluating(student) as device:
            video = rows.video[places]
            if student.averaged is None:
                found = of_one(video, rendition, device)
            else:
                found = of_mean(video, student.averaged, device)
            block: np.ndarray = found.float().cpu().numpy()
            return block

    return logits


def over_renditions(logits: ClassLogits, rows: ClassRows, renditions: int) -> Recognition:
    """Metrics of the mean probabilities; no more than a strip of videos is held against all classes."""
    ranks = []
    for places in strips(np.arange(len(rows.video))):
        probability = total_probability(logits, places, renditions)
        own = probability[np.arange(len(places)), rows.label[places]]
        ranks.append(np.count_nonzero(~(probability < own[:, np.newaxis]), axis=1))
    return Recognition(recognition_summary(np.concatenate(ranks), rows.label), renditions)


def total_probability(logits: ClassLogits, places: np.ndarray, renditions: int) -> np.ndarray:
    """[v, C] float64: the sum of the renditions' probabilities, which ranks as their mean."""
    each = (torch.from_numpy(logits(places, rendition)).double() for rendition in range(renditions))
    total: np.ndarray = sum(one.softmax(-1) for one in each).numpy()  # type: ignore[union-attr]
    return total


def class_scores(student: Student, teachers: Teachers, rows: ClassRows) -> np.ndarray:
    """[V, C] float64: what `recognise` ranks by, of all videos at once."""
    logits = student_logits(student, teachers, rows)
    renditions = teachers.main.view.renditions if student.averaged is None else 1
    parts = [total_probability(logits, some, renditions) for some in strips(np.arange(len(rows.video)))]
    return np.concatenate(parts)


def teacher_recognition(teacher: TeacherReader, rows: ClassRows) -> Recognition | dict[str, Any]:
    """The teacher's own metrics, or {"absent": reason}: over all renditions where embeddings are stored,
    otherwise of its stored scores, one for each video."""
    try:
        if teacher.pair_layout.layout == FACTORED:
            return over_renditions(factored_logits(teacher, rows), rows, teacher.view.renditions)
        scores = known_scores(teacher, rows.video, rows.text.ravel())

        def logits(places: np.ndarray, _: int) -> np.ndarray:
            every = scores(places, np.arange(rows.text.size)).astype(np.float32)
            mean: np.ndarray = every.reshape(len(places), *rows.text.shape).mean(1)
            return mean

        return over_renditions(logits, rows, renditions=1)
    except (LeftOutError, UnknownNameError, UnscoredPairsError) as error:
        return {"absent": str(error)}


def factored_logits(teacher: TeacherReader, rows: ClassRows) -> ClassLogits:
    """Logit scale times the cosine of a rendition's pooled frames with every class's text.

    A class's text is the mean direction of its prompts, as in CLIP's `Prompt_Engineering_for_ImageNet`.
    """
    layout = teacher.pair_layout
    assert layout.video_signal is not None
    assert layout.text_signal is not None
    assert layout.logit_scale is not None
    signal, scale = layout.video_signal, layout.logit_scale
    texts_ND = normalised(teacher.read_decoded(layout.text_signal, rows.text.ravel()))
    classes_CD = normalised(texts_ND.reshape(*rows.text.shape, -1).mean(0))

    def logits(places: np.ndarray, rendition: int) -> np.ndarray:
        video = rows.video[places]
        frames_VMD = teacher.read_decoded(signal, video)[:, rendition]
        product: np.ndarray = scale * pooled(frames_VMD, teacher.frame_valid[video, rendition]) @ classes_CD.T
        return product

    return logits
