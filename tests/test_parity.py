"""Cached teaching equals live teaching: 50 steps both ways, and what the students then retrieve."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from store.cli import run_cli
from store.inputs.demo_clips import render
from store.inputs.frames import decode_view
from store.reader import TeacherReader, open_cache
from student_train.config import KEEP_LAST, TAUGHT, TEST_SPLIT
from student_train.evaluation.retrieval import PLAIN, retrieve
from student_train.evaluation.rows import split_rows
from student_train.stream import TrainingStream, order_of
from student_train.students import afa
from student_train.students.base import Task
from student_train.teachers import Teachers
from student_train.trainer import Watch, train
from student_train.training_rows import training_rows
from teacher_dump.__main__ import build_parser
from teacher_dump.teachers import demo
from teacher_dump.teachers.base import TeacherOptions
from tests.live_teaching import LiveStream, LiveTeacher
from tests.student_train.small_training import Lines

pytestmark = pytest.mark.slow
STEPS, RATE = 50, 1e-3
TOLERANCE = 1e-3
"""Of a loss: float16 keeps 5e-4 of a number."""


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> tuple[TeacherReader, Path]:
    """The demo's teacher in a small cache, and the clips that it saw."""
    folder = tmp_path_factory.mktemp("parity")
    render(folder / "demo", split_sizes={"train": 80, "val": 8, "test": 60}, seed=1, workers=2)
    path = folder / "demo.zarr"
    words = ["dump", "--data", str(folder / "demo"), "--cache", str(path)]
    assert run_cli(build_parser(), words) == 0
    return open_cache(path).teacher("demo"), folder / "demo"


class DecodedFrames:
    """Frames of the clips themselves, decoded once; nothing of the cache but their names."""

    def __init__(self, teacher: TeacherReader, clips: Path) -> None:
        self._ids = teacher.cache.video_ids
        self._view = teacher.view
        self._clips = clips
        self._decoded: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def _video(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        if row not in self._decoded:
            video = decode_view(self._clips / self._ids[row], self._view)
            self._decoded[row] = torch.from_numpy(video.frames[0]), torch.from_numpy(video.frame_valid[0])
        return self._decoded[row]

    def __call__(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        frames, valid = zip(*(self._video(row) for row in rows.tolist()), strict=True)
        return torch.stack(frames), torch.stack(valid)


def trained(teacher: TeacherReader, clips: Path | None) -> tuple[Lines, dict[str, dict[str, float]]]:
    """The log and the metrics of a training, live where there are clips."""
    recipe = dataclasses.replace(afa.RECIPES["demo"], batch_size=16, epochs=STEPS // 5, keep=KEEP_LAST)
    torch.manual_seed(0)
    teachers = Teachers(teacher)
    student = afa.build(recipe.model, teachers.sizes())
    task = Task(student, afa.LOSSES, recipe.weights(TAUGHT))
    rows = training_rows(teacher.cache, teachers)
    order = order_of(rows, teachers, task.needs, recipe.batch_size, seed=0)
    stream = TrainingStream(rows, teachers, task.needs, order)
    if clips is not None:
        live = LiveTeacher(demo.load(TeacherOptions()), demo.TEMPERATURE)
        stream = LiveStream(stream, [live], DecodedFrames(teacher, clips))
    log = Lines()
    train(task, stream, recipe, RATE, Watch("parity", logs=[log]))
    test = split_rows(teacher.cache, teachers, TEST_SPLIT)
    return log, retrieve(student, teachers, test).metrics[PLAIN]


def test_losses_and_recall_are_those_of_live_teaching(cached: tuple[TeacherReader, Path]) -> None:
    teacher, clips = cached
    (ours, found), (theirs, expected) = trained(teacher, None), trained(teacher, clips)
    assert len(ours) == len(theirs) == STEPS
    apart = [abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in zip(ours, theirs, strict=True)]
    recall = [side["text_to_video"]["R@1"] for side in (found, expected)]
    print(
        f"\n{STEPS} steps: losses apart by at most {max(apart):.1e} (first {apart[0]:.1e}, last "
        f"{apart[-1]:.1e}); R@1 from the cache {recall[0]:.1f}, live {recall[1]:.1f}"
    )
    assert max(apart) <= TOLERANCE
    assert any(a["loss"] != b["loss"] for a, b in zip(ours, theirs, strict=True))
    assert recall[0] == recall[1]
