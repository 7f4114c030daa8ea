"""Classes of videos that are seen several times, held to the metrics of the mean probabilities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from store.inputs.protocol import RECOGNITION
from store.inputs.samples import CLASS, DatasetCard, Samples, Split, Text, Video
from store.inputs.view import View
from store.layout import TeacherPlan
from store.reader import Cache, open_cache
from store.retrieval_metrics import RECOGNITION_METRICS, recognition_metrics
from store.signals import SignalSpec
from store.writer import CacheWriter
from student_train.checkpoint import save_training
from student_train.config import ARMS
from student_train.evaluation.encoding import batch_of, encode_texts, evaluating
from student_train.evaluation.figure import draw
from student_train.evaluation.half_classes import drawn_halves, half_class_metrics
from student_train.evaluation.measure import measure
from student_train.evaluation.recognition import (
    Recognition,
    class_scores,
    factored_logits,
    over_renditions,
    recognise,
    teacher_recognition,
)
from student_train.evaluation.report import markdown
from student_train.evaluation.request import Request
from student_train.evaluation.rows import ClassRows, class_rows
from student_train.evaluation.scoring import validation_score
from student_train.run_folder import RunFolder
from student_train.students import afa, text4vis
from student_train.teachers import Teachers
from tests.synthetic_cache import shard_commits


def rows_of(label: np.ndarray, classes: int) -> ClassRows:
    return ClassRows(np.arange(len(label)), np.arange(classes)[np.newaxis], label, 0)


def softmax(values: np.ndarray) -> np.ndarray:
    exp = np.exp(values - values.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 4), st.integers(0, 9999), st.integers(1, 6))
def test_probabilities_of_renditions_are_averaged_before_they_are_ranked(
    videos: int, classes: int, renditions: int, seed: int, strip: int
) -> None:
    rng = np.random.default_rng(seed)
    logits_RVC = rng.normal(0, 3, (renditions, videos, classes))
    label = rng.integers(0, classes, videos)
    with pytest.MonkeyPatch.context() as context:
        context.setattr("student_train.evaluation.rows.ROWS_AT_ONCE", strip)
        found = over_renditions(
            lambda places, rendition: logits_RVC[rendition, places], rows_of(label, classes), renditions
        )
    assert found.metrics == recognition_metrics(softmax(logits_RVC).mean(0), label)
    assert tuple(found.metrics) == RECOGNITION_METRICS
    assert found.renditions == renditions


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_model_that_says_the_same_of_every_class_is_never_right(value: float) -> None:
    found = over_renditions(
        lambda places, _: np.full((len(places), 10), value), rows_of(np.arange(10), 10), 2
    )
    assert set(found.metrics.values()) == {0.0}


CLASSES, CLIPS, WIDTH = 4, 2, 16
SIGNALS = (
    SignalSpec("frame_embedding", {"R": CLIPS, "M": 3, "D": WIDTH}),
    SignalSpec("text_embedding", {"D": WIDTH}),
)


def class_samples(videos: int = 12) -> Samples:
    """Videos of CLASSES classes in turn, whose names are told in two prompts."""
    texts = tuple(Text(f"{prompt} {name}", -1, CLASS) for prompt in "ab" for name in range(CLASSES))
    rows = tuple(Video(f"v{row}", Path(f"v{row}.mp4"), label=row % CLASSES) for row in range(videos))
    test = Split(np.arange(videos), np.arange(0))
    card = DatasetCard("classes", "CC0-1.0", "none")
    return Samples("classes", card, rows, texts, {"test": test}, RECOGNITION, prompts=("a {}", "b {}"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Frames show their class with noise, in the second clip with less of it; video 5 did not decode."""
    samples = class_samples()
    rng = np.random.default_rng(0)
    meaning_CD = rng.normal(size=(CLASSES, WIDTH))
    label = np.array([video.label for video in samples.videos])
    noise = np.array([2.0, 0.5])[:, None, None]
    frames = meaning_CD[label][:, None, None] + noise * rng.normal(size=(len(label), CLIPS, 3, WIDTH))
    texts = np.tile(meaning_CD, (2, 1)) + 0.3 * rng.normal(size=(2 * CLASSES, WIDTH))
    values = {"frame_embedding": frames.astype(np.float32), "text_embedding": texts.astype(np.float32)}
    root = tmp_path_factory.mktemp("caches") / "classes.zarr"
    execution = {
        "phase_of": {"frame_embedding": "V", "text_embedding": "T"},
        "shard_rows": {"V": 20, "T": 20, "videos": 20},
    }
    view = View("two_clips", 3, 8, sampling="uniform", renditions=CLIPS, clips=CLIPS)
    identity = {"weights_sha256": "0" * 64, "logit_scale": 20.0}
    plan = TeacherPlan("oracle", identity, view, SIGNALS, execution, {})
    with CacheWriter(root, samples) as writer:
        writer.plan(plan)
        tasks = []
        for commit in shard_commits(root, samples, plan, frozenset({5}), values):
            tasks.append(commit.task)
            writer.commit(commit)
        writer.complete(plan, tasks)
    return open_cache(root)


@pytest.fixture
def teachers(cache: Cache) -> Teachers:
    return Teachers(cache.teacher("oracle"))


def test_a_video_keeps_its_class_and_one_that_did_not_decode_is_left_out(
    cache: Cache, teachers: Teachers
) -> None:
    rows = class_rows(cache, teachers, "test")
    assert rows.video.tolist() == [0, 1, 2, 3, 4, *range(6, 12)]
    assert rows.label.tolist() == [row % CLASSES for row in rows.video]
    assert rows.text.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert rows.left_out == 1


def test_the_teacher_sees_every_rendition_and_its_first_one_is_that_of_pair_scores(
    cache: Cache, teachers: Teachers
) -> None:
    rows = class_rows(cache, teachers, "test")
    found = teacher_recognition(teachers.main, rows)
    assert isinstance(found, Recognition)
    assert found.renditions == CLIPS
    one_prompt = replace(rows, text=rows.text[:1])
    logits = factored_logits(teachers.main, one_prompt)(np.arange(len(rows.video)), 0)
    scores, _ = teachers.main.pair_scores(rows.video, rows.text[0])
    assert np.allclose(logits, scores, atol=1e-3)
    assert found.metrics["top-1"] >= recognition_metrics(scores, rows.label)["top-1"]


def test_a_student_that_compares_videos_with_class_names_is_measured_on_all_renditions(
    cache: Cache, teachers: Teachers
) -> None:
    torch.manual_seed(0)
    config = afa.Config(temporal_layers=0, aggregation="mean")
    student = afa.build(config, teachers.sizes(config.needs))
    rows = class_rows(cache, teachers, "test")
    found = recognise(student, teachers, rows)
    probability = []
    texts = encode_texts(student, teachers, rows.text.ravel())
    for rendition in range(CLIPS):
        with evaluating(student) as device:
            batch = batch_of(student, teachers, "V", rows.video, device, rendition)
            logits = student.similarity(student.encode_videos(batch), texts)
        probability.append(softmax(logits.reshape(-1, 2, CLASSES).mean(1).numpy().astype(np.float64)))
    assert found.metrics == recognition_metrics(np.mean(probability, 0), rows.label)
    assert found.renditions == CLIPS
    assert validation_score(student, teachers, rows) == found.metrics["top-1"]


def test_a_run_on_classes_tells_its_accuracy_beside_the_teachers(
    cache: Cache, teachers: Teachers, tmp_path: Path
) -> None:
    config = afa.Config(temporal_layers=0, aggregation="mean")
    run = RunFolder(tmp_path)
    experiment = SimpleNamespace(
        cache=cache,
        teacher=teachers.main,
        teachers=teachers,
        run=run,
        recognises=False,
        student=lambda arm: afa.build(config, teachers.sizes(config.needs)),
    )
    for arm in ARMS:
        for seed in (0, 1):
            torch.manual_seed(seed + 2 * (arm == "taught"))
            student = experiment.student(arm)
            torch.nn.init.normal_(student.text_projection.weight)
            save_training(run.training(arm, 0.1, seed), student.state_dict(), {})
    measured = measure(experiment, Request(ARMS, (0, 1), (0.1,)), 0.1)
    for who, count in (("teacher", 1), ("untaught", 2), ("taught", 2)):
        assert tuple(measured[who]["recognition"]) == RECOGNITION_METRICS
        assert len(measured[who]["recognition"]["top-1"]["per_seed"]) == count
        assert measured["renditions"][who] == CLIPS
    told = {
        "learning_rate": 0.1,
        "learning_rates_tried": {},
        "learning_rate_chosen_for": None,
        "kept_epoch": "last",
        "seconds": {},
        "bytes": {},
    }
    names = {"student": "afa", "recipe": "demo", "seeds": [0, 1]}
    results = {**measured, **told, **names, "cache": {"dataset": "classes", "teacher": "oracle"}}
    table = markdown(results)
    assert "11 videos, 4 classes, 1 left out that did not decode" in table
    assert "that are averaged: teacher 2, untaught 2, taught 2" in table
    assert "| recognition | taught" in table
    assert "Gain of teaching, recognition:" in table
    assert draw(results).startswith(b"\x89PNG")


def test_a_student_that_averages_embeddings_is_classified_once_for_all_renditions(
    cache: Cache, teachers: Teachers
) -> None:
    torch.manual_seed(0)
    config = text4vis.Config(temporal="tap")
    student = text4vis.build(config, teachers.sizes(config.needs)).eval()
    torch.nn.init.normal_(student.projection.weight)
    rows = class_rows(cache, teachers, "test")
    batches = [
        batch_of(student, teachers, "V", rows.video, torch.device("cpu"), rendition)
        for rendition in range(CLIPS)
    ]
    mean = torch.stack([student.encode_videos(batch)["video_embedding"] for batch in batches]).mean(0)
    logits = student.classify(mean, batches[0]).detach().numpy()
    found = recognise(student, teachers, rows)
    assert found == Recognition(recognition_metrics(logits, rows.label), CLIPS)
    assert np.allclose(class_scores(student, teachers, rows), softmax(logits.astype(np.float64)), atol=1e-5)


def test_halves_of_the_classes_are_the_published_ones_and_hold_their_own_videos_alone() -> None:
    halves = drawn_halves(5)
    assert len(halves) == 10
    np.random.seed(3)
    assert halves[3].tolist() == np.random.permutation(5)[:2].tolist()
    label = np.array([0, 1, 2, 3, 4, 4])
    scores = np.eye(5)[label] + np.array([0, 0, 0, 0, 9.0])  # class 4 wins wherever it takes part
    found = half_class_metrics(scores, label)
    assert [one["top-1"] for one in found] == pytest.approx(
        [100 * (2 / 3 if 4 in half else 1) for half in halves]
    )
