"""A small training of `afa` from the learnable cache, in this process or in one that a test may kill.

python -m tests.student_train.small_training CACHE FOLDER [--kill-at STEP] [--every STEPS]

Several of them train together where torchrun starts them.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from store.reader import TeacherReader, open_cache
from student_train.checkpoint import Checkpoints, StepLog
from student_train.config import TAUGHT, Recipe
from student_train.distributed import join_processes, rank
from student_train.stream import TrainingStream, order_of
from student_train.students import afa
from student_train.students.base import Task
from student_train.teachers import Teachers
from student_train.trainer import Trained, TrainingLog, Watch, train
from student_train.training_rows import training_rows
from tests.student_train.learnable_cache import SIGNALS

SIZES = {spec.name: spec.sizes for spec in SIGNALS}
RECIPE = dataclasses.replace(
    afa.RECIPES["demo"],
    keep="best",
    model=afa.Config(temporal_layers=1, logit_scale=20.0),
    epochs=4,
    batch_size=16,
)
TIMES = ("data_wait_s", "samples_per_s")
RATE = 3e-3


def task_and_stream(
    teacher: TeacherReader, recipe: Recipe = RECIPE, seed: int = 0
) -> tuple[Task, TrainingStream]:
    torch.manual_seed(seed)
    task = Task(afa.build(recipe.model, SIZES), afa.LOSSES, recipe.weights(TAUGHT))
    teachers = Teachers(teacher)
    rows = training_rows(teacher.cache, teachers)
    order = order_of(rows, teachers, task.needs, recipe.batch_size, seed)
    return task, TrainingStream(rows, teachers, task.needs, order)


def run(
    teacher: TeacherReader,
    recipe: Recipe = RECIPE,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    logs: Sequence[TrainingLog] = (),
) -> Trained:
    """A training whose score is the logit scale, so that the best epoch is some epoch."""
    task, stream = task_and_stream(teacher, recipe, seed)

    def score(student: afa.AfaStudent) -> float:
        return float(-student.log_logit_scale.item())

    return train(task, stream, recipe, RATE, Watch("a test", score, logs, checkpoints=checkpoints))


class Lines(list[dict[str, Any]]):
    """A log that keeps the line of every step, and no scores."""

    def __call__(self, step: int, line: Mapping[str, Any]) -> None:
        if "step" in line:
            assert line["step"] == step
            self.append(dict(line))


def timeless(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the log without what a clock said."""
    return {name: value for name, value in line.items() if name not in TIMES}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cache", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    join_processes()
    lines = StepLog(options.folder) if rank() == 0 else None

    def die(step: int, line: Mapping[str, Any]) -> None:
        if step == options.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    flush = lines.flush if lines else lambda: None
    checkpoints = Checkpoints(options.folder / "checkpoints", every_steps=options.every, before_saving=flush)
    run(
        open_cache(options.cache).teacher("oracle"),
        checkpoints=checkpoints,
        logs=[lines, die] if lines else [],
    )
    if lines:
        lines.close()


if __name__ == "__main__":
    main()
