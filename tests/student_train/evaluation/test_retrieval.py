"""What students and the teacher retrieve, by the dataset's protocol, from blocks of scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from store.reader import Cache, TeacherReader, open_cache
from store.retrieval_metrics import retrieval_metrics
from student_train.configuration import Evaluation
from student_train.evaluation.encoding import StudentScores, encode_texts, encode_videos
from student_train.evaluation.retrieval import (
    DUAL_SOFTMAX,
    PLAIN,
    QUERY_BANK,
    bank_rows,
    retrieve,
    teacher_metrics,
)
from student_train.evaluation.rows import split_rows
from student_train.students import afa
from student_train.teachers import Teachers
from tests.student_train.learnable_cache import SIGNALS, learnable_samples, write_learnable_cache

STRIPS = "student_train.evaluation.rows.ROWS_AT_ONCE"


@pytest.fixture
def student() -> afa.AfaStudent:
    torch.manual_seed(0)
    return afa.build(afa.Config(temporal_layers=1), {spec.name: spec.sizes for spec in SIGNALS})


@pytest.fixture
def teachers(oracle: TeacherReader) -> Teachers:
    return Teachers(oracle)


def opened(root: Path, **made: object) -> tuple[Cache, Teachers]:
    cache = open_cache(write_learnable_cache(root, **made))
    return cache, Teachers(cache.teacher("oracle"))


def test_a_student_ranks_by_its_own_logits_of_every_video_with_every_text(
    learnable: Cache, teachers: Teachers, student: afa.AfaStudent, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = split_rows(learnable, teachers, "test")
    monkeypatch.setattr(STRIPS, 7)
    scores = StudentScores(
        student, encode_videos(student, teachers, rows.video), encode_texts(student, teachers, rows.text)
    )
    whole = scores(np.arange(40), np.arange(40))
    assert whole.shape == (40, 40)
    assert np.allclose(scores(np.array([5, 3]), np.array([7])), whole[[5, 3], 7][:, None], atol=1e-4)
    found = retrieve(student, teachers, rows)
    assert found.metrics[PLAIN] == retrieval_metrics(whole, rows.text_video, rows.protocol, rows.text_key)
    assert found.frame_weight is not None
    assert np.allclose(found.frame_weight.sum(1), 1, atol=1e-6)
    assert student.training, "as it was before"


def test_videos_that_did_not_decode_and_their_captions_are_left_out(
    tmp_path: Path, student: afa.AfaStudent
) -> None:
    samples = learnable_samples({"train": 8, "test": 8}, captions=2)
    cache, teachers = opened(tmp_path / "c.zarr", samples=samples, failed=frozenset({9}))
    rows = split_rows(cache, teachers, "test")
    assert rows.video.tolist() == [8, *range(10, 16)]
    assert rows.left_out == 2
    assert np.array_equal(rows.video[rows.text_video], cache.text_video[rows.text])
    assert retrieve(student, teachers, rows).metrics[PLAIN]["text_to_video"]["MnR"] <= 7


def test_the_teacher_is_measured_by_its_own_pair_scores(learnable: Cache, teachers: Teachers) -> None:
    rows = split_rows(learnable, teachers, "test")
    found = teacher_metrics(teachers.main, rows)
    scores, _ = teachers.main.pair_scores(rows.video, rows.text)
    assert found[PLAIN] == retrieval_metrics(scores, rows.text_video)
    assert found[PLAIN]["text_to_video"]["SumR"] > 290


def test_a_teacher_without_pair_scores_is_absent_for_a_reason(tmp_path: Path) -> None:
    cache, teachers = opened(tmp_path / "c.zarr", signals=SIGNALS[1:3])
    rows = split_rows(cache, teachers, "test")
    assert "pair scores" in teacher_metrics(teachers.main, rows)[PLAIN]["absent"]


def test_a_teacher_that_scored_only_some_pairs_is_absent_for_a_reason(
    learnable: Cache, teachers: Teachers, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = split_rows(learnable, teachers, "test")
    scores, known = (np.array(part) for part in teachers.main.pair_scores(rows.video[:40], rows.text[:40]))
    known[3, 4] = False
    monkeypatch.setattr(type(teachers.main), "pair_scores", lambda *_: (scores, known))
    assert (
        "1 of a block of 1600 pairs were not scored" in teacher_metrics(teachers.main, rows)[PLAIN]["absent"]
    )


def test_an_untrained_student_retrieves_by_chance(
    learnable: Cache, teachers: Teachers, student: afa.AfaStudent
) -> None:
    rows = split_rows(learnable, teachers, "test")
    assert retrieve(student, teachers, rows).metrics[PLAIN]["text_to_video"]["SumR"] < 250


def test_the_protocol_of_the_dataset_decides_what_competes(tmp_path: Path, student: afa.AfaStudent) -> None:
    samples = learnable_samples({"train": 8, "test": 40}, captions=3)
    found = {}
    for protocol in ("every-caption", "multi-caption"):
        cache, teachers = opened(tmp_path / f"{protocol}.zarr", samples=replace(samples, protocol=protocol))
        rows = split_rows(cache, teachers, "test")
        assert rows.protocol == protocol
        found[protocol] = retrieve(student, teachers, rows).metrics[PLAIN]
    assert found["every-caption"]["text_to_video"] == found["multi-caption"]["text_to_video"]
    single, sets = (metrics["video_to_text"]["MnR"] for metrics in found.values())
    assert sets < single, "three captions of a rival count once"


def test_equal_captions_of_two_videos_are_right_for_both(tmp_path: Path, student: afa.AfaStudent) -> None:
    samples = learnable_samples({"train": 8, "test": 40})
    texts = [replace(text, text="the same") if text.video >= 8 else text for text in samples.texts]
    for protocol, recall in (("equal-captions", 100), ("every-caption", None)):
        made = replace(samples, texts=tuple(texts), protocol=protocol)
        cache, teachers = opened(tmp_path / f"{protocol}.zarr", samples=made)
        metrics = retrieve(student, teachers, split_rows(cache, teachers, "test")).metrics[PLAIN]
        assert (metrics["text_to_video"]["R@1"] == 100) == (recall == 100)


def test_every_way_of_ranking_that_is_asked_for_is_told_of_student_and_teacher(
    learnable: Cache, teachers: Teachers, student: afa.AfaStudent
) -> None:
    rows = split_rows(learnable, teachers, "test")
    asked = Evaluation(dual_softmax=True, query_bank=True)
    bank = bank_rows(learnable, teachers, 20)
    of_student = retrieve(student, teachers, rows, asked, bank).metrics
    of_teacher = teacher_metrics(teachers.main, rows, asked, bank)
    assert list(of_student) == list(of_teacher) == [PLAIN, DUAL_SOFTMAX, QUERY_BANK]
    assert of_student[DUAL_SOFTMAX] != of_student[PLAIN] != of_student[QUERY_BANK]


def test_a_query_bank_is_taken_from_the_train_split_alone(learnable: Cache, teachers: Teachers) -> None:
    train = learnable.split("train")
    for most in (1, 20, 1000):
        bank = bank_rows(learnable, teachers, most)
        assert set(bank.text.tolist()) <= set(train.text.tolist())
        assert set(bank.video.tolist()) <= set(train.video.tolist())
        assert len(bank.text) == min(most, len(train.text))


def test_a_teacher_that_knows_the_test_split_alone_keeps_its_plain_row(
    learnable: Cache, teachers: Teachers, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = split_rows(learnable, teachers, "test")
    complete = type(teachers.main).pair_scores

    def of_test_alone(teacher: TeacherReader, videos: np.ndarray, texts: np.ndarray) -> tuple:
        scores, known = complete(teacher, videos, texts)
        return scores, known & np.isin(videos, rows.video)[:, None] & np.isin(texts, rows.text)

    monkeypatch.setattr(type(teachers.main), "pair_scores", of_test_alone)
    bank = bank_rows(learnable, teachers, 20)
    found = teacher_metrics(teachers.main, rows, Evaluation(query_bank=True), bank)
    assert found[PLAIN]["text_to_video"]["SumR"] > 290
    assert "not scored" in found[QUERY_BANK]["absent"]
