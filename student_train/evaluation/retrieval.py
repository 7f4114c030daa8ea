"""What a student or the teacher retrieves on a split: scores in blocks, ranked by the dataset's protocol.

Each is ranked by its own scores, and, if asked for, by those scores re-weighted (`reweighting`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from store.errors import InputError, LeftOutError, UnknownNameError
from store.reader import Cache, TeacherReader
from store.streamed_ranks import ScoreBlock, undirected
from student_train.config import TRAIN_SPLIT
from student_train.configuration import Evaluation
from student_train.evaluation.encoding import FRAME_WEIGHT, StudentScores, encode_texts, encode_videos
from student_train.evaluation.reweighting import Bank, Scores, dual_softmax, query_bank
from student_train.evaluation.rows import SplitRows
from student_train.needs import RELEVANCE
from student_train.row_tensors import frame_distribution, row_tensors
from student_train.students.base import Student
from student_train.teachers import Teachers
from student_train.training_rows import paired_rows

PLAIN, DUAL_SOFTMAX, QUERY_BANK = "plain", "dual_softmax", "query_bank"
Metrics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Retrieval:
    """metrics: way of ranking -> direction -> metric -> value. frame_weight: [V, M], rows sum to 1; None if
    the student weighs no frames."""

    metrics: dict[str, Metrics]
    frame_weight: np.ndarray | None


@dataclass(frozen=True)
class BankRows:
    """Videos and texts of the train split, rows of the cache, that stand for queries to come."""

    video: np.ndarray
    text: np.ndarray


class UnscoredPairsError(InputError):
    """A teacher did not score every pair that a table needs."""


def bank_rows(cache: Cache, teachers: Teachers, most: int) -> BankRows:
    """Up to `most` pairs of the train split, spread evenly over its rows."""
    pairs = paired_rows(cache, teachers, TRAIN_SPLIT)
    chosen = np.unique(np.linspace(0, len(pairs.text) - 1, min(most, len(pairs.text))).astype(np.int64))
    return BankRows(np.unique(pairs.video[chosen]), pairs.text[chosen])


def retrieve(
    student: Student,
    teachers: Teachers,
    rows: SplitRows,
    asked: Evaluation | None = None,
    bank: BankRows | None = None,
) -> Retrieval:
    """Metrics and frame weights of a student, in eval mode and float32; bank: where one is asked for."""
    videos, texts = encode_videos(student, teachers, rows.video), encode_texts(student, teachers, rows.text)

    def scored_bank() -> Bank:
        assert bank is not None
        bank_videos = encode_videos(student, teachers, bank.video)
        bank_texts = encode_texts(student, teachers, bank.text)
        sizes = len(bank.video), len(bank.text)
        return Bank(
            StudentScores(student, videos, bank_texts), StudentScores(student, bank_videos, texts), *sizes
        )

    ways = rankings(StudentScores(student, videos, texts), rows, asked, scored_bank)
    metrics = {way: rows.metrics(make()) for way, make in ways.items()}
    weight = videos.get(FRAME_WEIGHT)
    return Retrieval(metrics, None if weight is None else weight.float().cpu().numpy())


def rankings(
    scores: Scores, rows: SplitRows, asked: Evaluation | None, bank: Callable[[], Bank]
) -> dict[str, Callable[[], ScoreBlock]]:
    """Every way of ranking that is asked for, the plain one first, each made when it is called."""
    asked = asked or Evaluation()
    size = len(rows.video), len(rows.text)
    found: dict[str, Callable[[], ScoreBlock]] = {PLAIN: lambda: undirected(scores)}
    if asked.dual_softmax:
        found[DUAL_SOFTMAX] = lambda: dual_softmax(scores, *size, asked.dual_softmax_temperature)
    if asked.query_bank:
        found[QUERY_BANK] = lambda: query_bank(scores, *size, bank(), asked.query_bank_beta)
    return found


def teacher_metrics(
    teacher: TeacherReader, rows: SplitRows, asked: Evaluation | None = None, bank: BankRows | None = None
) -> dict[str, dict[str, Any]]:
    """The teacher's metrics from its own pair scores by way of ranking, or {"absent": reason} there."""

    def scored_bank() -> Bank:
        assert bank is not None
        of_texts = known_scores(teacher, rows.video, bank.text)
        of_videos = known_scores(teacher, bank.video, rows.text)
        return Bank(of_texts, of_videos, len(bank.video), len(bank.text))

    found: dict[str, dict[str, Any]] = {}
    scores = known_scores(teacher, rows.video, rows.text)
    for way, make in rankings(scores, rows, asked, scored_bank).items():
        try:
            found[way] = rows.metrics(make())
        except (LeftOutError, UnknownNameError, UnscoredPairsError) as error:
            found[way] = {"absent": str(error)}
    return found


def known_scores(teacher: TeacherReader, video_rows: np.ndarray, text_rows: np.ndarray) -> Scores:
    """The teacher's raw logits for any places among these rows; unknown ones raise UnscoredPairsError."""

    def block(videos: np.ndarray, texts: np.ndarray) -> np.ndarray:
        scores, known = teacher.pair_scores(video_rows[videos], text_rows[texts])
        if not known.all():
            unknown = int(np.count_nonzero(~known))
            raise UnscoredPairsError(
                f"{unknown} of a block of {known.size} pairs were not scored by teacher {teacher.name!r}"
            )
        return scores

    return block


def teacher_frame_weight(teacher: TeacherReader, rows: SplitRows) -> np.ndarray | None:
    """Frame relevance [T, M] of the teacher for every text with its own video; None if not stored."""
    if RELEVANCE not in teacher.signals or not teacher.signals[RELEVANCE].attributes.get("temperature"):
        return None
    video = rows.video[rows.text_video]
    score = row_tensors(Teachers(teacher), [RELEVANCE], "T", rows.text)[RELEVANCE]
    valid = torch.from_numpy(teacher.frame_valid[video, 0])
    return frame_distribution(teacher, score, valid).numpy()
