"""Views with several renditions of each video: which is seen when, and what may be learned from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InputError
from store.inputs.view import View
from store.reader import TeacherReader, open_cache
from store.signals import SignalSpec
from store.writer import CacheWriter
from student_train.__main__ import main
from student_train.decoding import one_rendition
from student_train.needs import FRAME_VALID, PAIR_SCORES
from student_train.renditions import DrawnRenditions, drawn_renditions
from student_train.step_source import StepSource
from student_train.stream import TrainingStream, order_of
from student_train.teachers import Teachers
from student_train.training_rows import training_rows
from tests.synthetic_cache import FRAMES, WIDTH, shard_commits, synthetic_plan, synthetic_samples

RENDITIONS = 3
SIGNALS = (
    SignalSpec("frame_embedding", {"R": RENDITIONS, "M": FRAMES, "D": WIDTH}),
    SignalSpec("vit_layers/1", {"R": RENDITIONS, "M": FRAMES, "L": 3, "D": 2}, encoding="int8"),
    SignalSpec("text_embedding", {"D": WIDTH}),
)
NEEDS = tuple(spec.name for spec in SIGNALS)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose teacher saw three crops of every video."""
    path, samples = tmp_path_factory.mktemp("renditions") / "c.zarr", synthetic_samples(16)
    view = View("crops", FRAMES, 8, renditions=RENDITIONS, crops=RENDITIONS)
    plan = replace(synthetic_plan(samples, signals=SIGNALS), view=view)
    with CacheWriter(path, samples) as writer:
        writer.plan(plan)
        tasks = []
        for commit in shard_commits(path, samples, plan):
            tasks.append(commit.task)
            writer.commit(commit)
        writer.complete(plan, tasks)
    return path


@pytest.fixture
def teacher(path: Path) -> TeacherReader:
    return open_cache(path).teacher("synthetic")


@given(st.integers(0, 2**40), st.integers(0, 500), st.integers(1, 60), st.integers(1, 9))
def test_a_draw_is_a_function_of_seed_epoch_and_row_alone(
    seed: int, epoch: int, videos: int, count: int
) -> None:
    drawn, rows = DrawnRenditions(seed, videos, count), np.arange(videos)
    whole = drawn.of(epoch, rows)
    assert ((whole >= 0) & (whole < count)).all()
    backwards = rows[::-1]
    assert np.array_equal(drawn.of(epoch, backwards), whole[backwards])
    assert np.array_equal(drawn.of(epoch, rows[:1]), whole[:1])


def test_over_epochs_a_video_shows_every_rendition_about_as_often() -> None:
    drawn = DrawnRenditions(0, 50, RENDITIONS)
    seen = np.stack([drawn.of(epoch, np.arange(50)) for epoch in range(300)])
    counts = np.stack([(seen == rendition).sum(0) for rendition in range(RENDITIONS)])
    assert counts.min() > 60
    assert abs(np.corrcoef(seen[:-1].ravel(), seen[1:].ravel())[0, 1]) < 0.05


def test_a_step_holds_of_every_video_the_rendition_that_is_drawn(teacher: TeacherReader) -> None:
    teachers = Teachers(teacher)
    rows = training_rows(teacher.cache, teachers)
    drawn = drawn_renditions(teachers, NEEDS, seed=7)
    stream = TrainingStream(rows, teachers, NEEDS, order_of(rows, teachers, NEEDS, 4, seed=7), drawn)
    seen = set()
    with stream.steps(1, 6, True, CPU) as steps:
        for number, step in enumerate(steps, start=1):
            which = drawn.of(number // stream.steps_per_epoch, step.video)
            seen |= set(which.tolist())
            for signal in NEEDS[:2]:
                expected = one_rendition(teacher.read_decoded(signal, step.video), which)
                assert np.allclose(step.batch[signal].numpy(), expected, atol=1e-5)
            expected = teacher.frame_valid[step.video, which]
            assert np.array_equal(step.batch[FRAME_VALID].numpy(), expected)
            assert np.array_equal(
                step.batch["text_embedding"].numpy(), teacher.read("text_embedding", step.text)
            )
    assert seen == set(range(RENDITIONS))


def test_two_processes_see_the_renditions_that_one_sees(teacher: TeacherReader) -> None:
    video = text = np.arange(4)
    renditions = np.array([2, 0, 1, 2])
    whole, *halves = (
        StepSource(Teachers(teacher), NEEDS, own, True, CPU).batch((), video, text, renditions).batch
        for own in (slice(0, 4), slice(0, 2), slice(2, 4))
    )
    for need in NEEDS:
        assert torch.equal(torch.cat([half[need] for half in halves]), whole[need])


def test_what_belongs_to_the_first_rendition_alone_is_refused(teacher: TeacherReader) -> None:
    with pytest.raises(InputError, match=r"pair_scores .* first of 3 renditions .* renditions=first"):
        drawn_renditions(Teachers(teacher), (*NEEDS, PAIR_SCORES), seed=0)


def test_one_rendition_leaves_nothing_to_draw(oracle: TeacherReader) -> None:
    drawn = drawn_renditions(Teachers(oracle), ("frame_embedding", PAIR_SCORES), seed=0)
    assert not drawn.of(3, np.arange(48)).any()


def test_the_command_draws_where_it_is_told_and_says_why_it_can_not(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(path), "--recipe", "demo", "--epochs", "2", "--batch-size", "4", "--seeds", "0"]
    words += ["--learning-rates", "0.001", "--set", "losses={coarse_pearson: 1}", "--set"]
    found = {}
    for way in ("first", "drawn"):
        run = tmp_path / way
        assert main([*words, f"renditions={way}", "--arms", "untaught", "--out", str(run)]) == 0
        found[way] = next(run.glob("trainings/*/student.safetensors")).read_bytes()
    assert found["first"] != found["drawn"]
    capsys.readouterr()
    assert main([*words, "renditions=drawn", "--out", str(tmp_path / "taught")]) == 2
    assert "wrong label" in capsys.readouterr().err
