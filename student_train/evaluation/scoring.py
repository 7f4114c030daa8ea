"""The one number by which an epoch is chosen while a student is trained."""

from __future__ import annotations

from store.reader import Cache
from store.retrieval_metrics import TEXT_TO_VIDEO
from student_train.evaluation.recognition import recognise
from student_train.evaluation.retrieval import PLAIN, retrieve
from student_train.evaluation.rows import ClassRows, SplitRows, class_rows, split_rows
from student_train.students.base import Student
from student_train.teachers import Teachers
from student_train.training_rows import is_recognition

EvaluationRows = SplitRows | ClassRows


def evaluation_rows(
    cache: Cache, teachers: Teachers, split_name: str, recognises: bool = False
) -> EvaluationRows:
    """The rows of a split, for recognition if the student `recognises` or the dataset's protocol says so,
    else for retrieval."""
    return (class_rows if recognises or is_recognition(cache) else split_rows)(cache, teachers, split_name)


def validation_score(student: Student, teachers: Teachers, rows: EvaluationRows) -> float:
    """SumR, text to video; top-1 of a dataset of classes."""
    if isinstance(rows, ClassRows):
        return recognise(student, teachers, rows).metrics["top-1"]
    return retrieve(student, teachers, rows).metrics[PLAIN][TEXT_TO_VIDEO]["SumR"]
