from dataclasses import replace

import numpy as np
import pytest
import torch

from store.reader import Cache, TeacherReader, open_cache
from student_train.evaluate import metrics_of, retrieve, split_rows, teacher_metrics
from student_train.students import afa
from tests.student_train.learnable_cache import SIGNALS, learnable_samples, write_learnable_cache


@pytest.fixture
def student() -> afa.AfaStudent:
    torch.manual_seed(0)
    return afa.build(afa.Config(temporal_layers=1), {spec.name: spec.sizes for spec in SIGNALS})


def test_scores_are_cosines_of_every_video_with_every_text(
    learnable: Cache, oracle: TeacherReader, student: afa.AfaStudent, monkeypatch
) -> None:
    rows = split_rows(learnable, oracle, "test")
    whole = retrieve(student, oracle, rows)
    monkeypatch.setattr("student_train.evaluate.ROWS_AT_ONCE", 7)
    in_strips = retrieve(student, oracle, rows)
    assert whole.scores.shape == (40, 40)
    assert np.abs(whole.scores).max() <= 1 + 1e-6
    assert np.allclose(whole.scores, in_strips.scores, atol=1e-6)
    assert whole.frame_weight is not None
    assert np.allclose(whole.frame_weight.sum(1), 1, atol=1e-6)
    assert student.training


def test_videos_that_did_not_decode_and_their_captions_are_left_out(
    tmp_path, student: afa.AfaStudent
) -> None:
    samples = learnable_samples({"train": 8, "test": 8}, captions=2)
    cache = open_cache(write_learnable_cache(tmp_path / "c.zarr", samples, failed=frozenset({9})))
    teacher = cache.teacher("oracle")
    rows = split_rows(cache, teacher, "test")
    assert rows.video.tolist() == [8, *range(10, 16)]
    assert rows.left_out == 2
    assert np.array_equal(rows.video[rows.text_video], cache.text_video[rows.text])
    assert retrieve(student, teacher, rows).scores.shape == (7, 14)


def test_the_teacher_is_measured_by_its_own_pair_scores(learnable: Cache, oracle: TeacherReader) -> None:
    rows = split_rows(learnable, oracle, "test")
    found = teacher_metrics(oracle, rows)
    assert found["text_to_video"]["SumR"] > 290


def test_a_teacher_without_pair_scores_is_absent_for_a_reason(tmp_path) -> None:
    cache = open_cache(write_learnable_cache(tmp_path / "c.zarr", signals=SIGNALS[1:3]))
    teacher = cache.teacher("oracle")
    assert "pair scores" in teacher_metrics(teacher, split_rows(cache, teacher, "test"))["absent"]


def test_an_untrained_student_retrieves_by_chance(
    learnable: Cache, oracle: TeacherReader, student: afa.AfaStudent
) -> None:
    rows = split_rows(learnable, oracle, "test")
    metrics = metrics_of(retrieve(student, oracle, rows), rows)
    assert metrics["text_to_video"]["SumR"] < 250


def test_the_protocol_of_the_dataset_decides_what_competes(tmp_path, student: afa.AfaStudent) -> None:
    samples = learnable_samples({"train": 8, "test": 40}, captions=3)
    found = {}
    for protocol in ("every-caption", "multi-caption"):
        root = write_learnable_cache(tmp_path / f"{protocol}.zarr", replace(samples, protocol=protocol))
        cache = open_cache(root)
        teacher = cache.teacher("oracle")
        rows = split_rows(cache, teacher, "test")
        assert rows.protocol == protocol
        found[protocol] = metrics_of(retrieve(student, teacher, rows), rows)
    assert found["every-caption"]["text_to_video"] == found["multi-caption"]["text_to_video"]
    single, sets = (metrics["video_to_text"]["MnR"] for metrics in found.values())
    assert sets < single, "three captions of a rival count once"


def test_equal_captions_of_two_videos_are_right_for_both(tmp_path, student: afa.AfaStudent) -> None:
    samples = learnable_samples({"train": 8, "test": 40})
    texts = [replace(text, text="the same") if text.video >= 8 else text for text in samples.texts]
    for protocol, recall in (("equal-captions", 100), ("every-caption", None)):
        made = replace(samples, texts=tuple(texts), protocol=protocol)
        cache = open_cache(write_learnable_cache(tmp_path / f"{protocol}.zarr", made))
        teacher = cache.teacher("oracle")
        rows = split_rows(cache, teacher, "test")
        metrics = metrics_of(retrieve(student, teacher, rows), rows)
        assert (metrics["text_to_video"]["R@1"] == 100) == (recall == 100)
