"""The arms of the bench of the trainer: a student taught from memory, from a cache, by a live teacher.

(a)   untaught            the student's inputs are in memory, no loss has a teacher
(a')  taught, resident    so are the teacher's tensors
(b)   taught, cached      everything is read from the cache by the training stream
(c)   taught, live        as (a'), but the teacher runs in every step, as in TeachCLIP's official loop
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import torch

from store.reader import TeacherReader
from student_train.config import Optimizer
from student_train.needs import LOGIT_SCALE
from student_train.optimizer import make_optimizer
from student_train.rows import PairBlock
from student_train.step_source import Step
from student_train.stream import TrainingStream, order_of
from student_train.students.base import StudentConfig, Task, losses_of
from student_train.teachers import Teachers
from student_train.training_rows import training_rows
from tests.bench.measure import Timings, interleaved
from tests.live_teaching import LiveStream, LiveTeacher

CPU = torch.device("cpu")
MANY = 1 << 20
RESIDENT_BATCHES = 4
UNTAUGHT, RESIDENT, CACHED = "(a) untaught, resident", "(a') taught, resident", "(b) taught, cached"


@dataclass
class Arm:
    """One way to train: a step is forward, backward and update of its own student on the next batch.

    steps: timed ones of a round; warm: those before them that are not, so that nothing that was read ahead
    while another arm ran counts. half: whether it computes in bfloat16 where autocast allows it.
    """

    task: Task
    batches: Iterator[Step]
    steps: int
    warm: int
    half: bool = False
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.task.train()
        self.optimizer = make_optimizer(self.task.student, Optimizer(lr=(1e-5,)), 1e-5)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                parts = self.task(next(self.batches).batch)
            parts["loss"].backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        if next(self.task.parameters()).is_cuda:
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Way:
    """What an arm trains: the model, and the weight of each loss."""

    model: StudentConfig
    losses: Mapping[str, float]


@dataclass(frozen=True)
class Ground:
    """What the arms of a part share: the teacher's cache, the student's module, the batch, the device; steps
    and warm of every arm; rounds: in how many all are timed."""

    teacher: TeacherReader
    module: ModuleType
    batch: int
    steps: int = 1
    warm: int = 1
    rounds: int = 5
    device: torch.device = CPU

    def task(self, way: Way) -> Task:
        torch.manual_seed(0)
        sizes = Teachers(self.teacher).sizes((*way.model.needs, *way.model.shaped_by))
        student = self.module.build(way.model, sizes)
        return Task(student, losses_of(self.module, way.model), way.losses).to(self.device)

    def stream(self, task: Task, needs: Sequence[str]) -> TrainingStream:
        teachers = Teachers(self.teacher)
        rows = training_rows(self.teacher.cache, teachers, task.student.config.recognises)
        return TrainingStream(rows, teachers, needs, order_of(rows, teachers, needs, self.batch, seed=0))

    def arm(self, task: Task, batches: Iterator[Step]) -> Arm:
        return Arm(task, batches, self.steps, self.warm)

    def cached(self, way: Way) -> Arm:
        task = self.task(way)
        return self.arm(task, iter(self.stream(task, task.needs).steps(0, MANY, True, self.device)))

    def resident(self, way: Way) -> Arm:
        """The same rows again and again: all that is read lies in memory."""
        task = self.task(way)
        with self.stream(task, task.needs).steps(0, RESIDENT_BATCHES, True, self.device) as feed:
            kept = [Step(step.video, step.text, copied(step.batch)) for step in feed]
        return self.arm(task, (kept[number % len(kept)] for number in range(MANY)))

    def live(self, way: Way, teachers: Sequence[LiveTeacher]) -> Arm:
        """From the cache comes what the student itself reads: frames and captions. Nothing else is read
        ahead, so no step goes by untimed."""
        task = self.task(way)
        own = [need for need in task.needs if need in (*task.student.config.needs, LOGIT_SCALE)]

        def frames(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            valid = torch.from_numpy(self.teacher.frame_valid[rows, 0])
            return torch.from_numpy(self.teacher.pixels.read(rows)[:, 0]), valid

        stream = LiveStream(self.stream(task, own), teachers, frames)

        def batches() -> Iterator[Step]:
            with stream.steps(0, MANY, True, self.device) as feed:
                yield from feed

        return replace(self, warm=0).arm(task, batches())


def copied(batch: Mapping[str, Any]) -> dict[str, Any]:
    def copy(value: Any) -> Any:
        if isinstance(value, PairBlock):
            return value.map(torch.clone)
        return value.clone() if isinstance(value, torch.Tensor) else value

    return {name: copy(value) for name, value in batch.items()}


@dataclass(frozen=True)
class Measured:
    """Times of the arms of a part."""

    arms: Mapping[str, Arm]
    times: Timings
    batch: int

    @classmethod
    def of(cls, arms: Mapping[str, Arm], rounds: int, batch: int) -> Measured:
        def steps(arm: Arm, count: int) -> Callable[..., None]:
            return lambda *_: arm.run(count)

        timed = {name: steps(arm, arm.steps) for name, arm in arms.items()}
        times = interleaved(timed, rounds, {name: steps(arm, arm.warm) for name, arm in arms.items()})
        return cls(arms, times, batch)

    def ratio(self, slow: str, fast: str) -> float:
        """Seconds of a step of `slow` over those of `fast`, the median of the rounds' own."""
        return self.arms[fast].steps / self.arms[slow].steps * self.times.speed(fast, slow)

    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for name, arm in self.arms.items():
            step_s = self.times.median(name) / arm.steps
            found.append({"arm": name, "step ms": 1000 * step_s, "samples/s": self.batch / step_s})
        return [*found, {"arm": "(a') / (a)", "ratio": self.ratio(RESIDENT, UNTAUGHT)}]
