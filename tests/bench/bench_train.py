"""What teaching costs a training step: untaught, from the cache, from memory, and by live teachers.

    python -m tests.bench.bench_train [--rounds 7] [--only PART ...] [--batch 8]

    (a)   untaught            the student's inputs are in memory, no loss has a teacher
    (a')  taught, resident    so are the teacher's tensors
    (b)   taught, cached      everything is read from the cache by the training stream
    (c)   taught, live        as (a'), but the teacher runs in every step, as in TeachCLIP's official loop

A round runs each arm for a few steps, in a new order; the first of them are not timed, so that nothing that
was read ahead while another arm ran counts. Bars: DESIGN section 10.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from store.reader import TeacherReader
from student_train.config import Optimizer
from student_train.optimizer import make_optimizer
from student_train.rows import PairBlock
from student_train.step_source import Step
from student_train.stream import TrainingStream, order_of
from student_train.students import afa
from student_train.students.base import Task
from student_train.teachers import Teachers
from student_train.training_rows import training_rows
from teacher_dump.teachers import ts2net, xclip
from tests.bench import report
from tests.bench.measure import Timings, interleaved
from tests.bench.report import Bar
from tests.bench.train_data import feature_cache, frame_cache, x_clip
from tests.live_teaching import LiveStream, LiveTeacher

CPU = torch.device("cpu")
UNTAUGHT = {"info_nce": 1.0}
TAUGHT = {"info_nce": 0.2, "coarse_pearson": 1.0, "fine_cross_entropy_mean": 2.0}
OFFICIAL_TWO = {**TAUGHT, "coarse_pearson@second": 1.0, "fine_cross_entropy_mean@second": 2.0}
MANY = 1 << 20
FEED_BATCH, FEED_STEPS = 240, 100
FEATURE_BATCH = 64
Result = tuple[list[dict[str, Any]], list[Bar]]


@dataclass
class Arm:
    """One way to train: a step is forward, backward and update of its own student on the next batch."""

    task: Task
    batches: Iterator[Step]
    steps: int
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.task.train()
        self.optimizer = make_optimizer(self.task.student, Optimizer(lr=(1e-5,)), 1e-5)

    def run(self, number: int = 0) -> None:
        for _ in range(self.steps):
            self.task(next(self.batches).batch)["loss"].backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


@dataclass(frozen=True)
class Ground:
    """What the arms of a part share: the teacher's cache, what the student is, the batch."""

    teacher: TeacherReader
    model: afa.Config
    batch: int

    def task(self, weights: Mapping[str, float]) -> Task:
        torch.manual_seed(0)
        student = afa.build(self.model, Teachers(self.teacher).sizes())
        return Task(student, afa.LOSSES, weights)

    def stream(self, task: Task) -> TrainingStream:
        teachers = Teachers(self.teacher)
        rows = training_rows(self.teacher.cache, teachers)
        order = order_of(rows, teachers, task.needs, self.batch, seed=0)
        return TrainingStream(rows, teachers, task.needs, order)

    def cached(self, weights: Mapping[str, float], steps: int) -> Arm:
        task = self.task(weights)
        return Arm(task, iter(self.stream(task).steps(0, MANY, True, CPU)), steps)

    def resident(self, weights: Mapping[str, float], steps: int) -> Arm:
        """The same rows again and again: all that is read lies in memory."""
        task = self.task(weights)
        with self.stream(task).steps(0, 4, True, CPU) as feed:
            kept = [Step(step.video, step.text, copied(step.batch)) for step in feed]
        return Arm(task, (kept[number % len(kept)] for number in range(MANY)), steps)

    def live(self, weights: Mapping[str, float], teachers: Sequence[LiveTeacher], steps: int) -> Arm:
        task = self.task(weights)

        def frames(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            valid = torch.from_numpy(self.teacher.frame_valid[rows, 0])
            return torch.from_numpy(self.teacher.pixels.read(rows)[:, 0]), valid

        stream = LiveStream(self.stream(task), teachers, frames)

        def batches() -> Iterator[Step]:
            with stream.steps(0, MANY, True, CPU) as feed:
                yield from feed

        return Arm(task, batches(), steps)


def copied(batch: Mapping[str, Any]) -> dict[str, Any]:
    def copy(value: Any) -> Any:
        if isinstance(value, PairBlock):
            return value.map(torch.clone)
        return value.clone() if isinstance(value, torch.Tensor) else value

    return {name: copy(value) for name, value in batch.items()}


def timed(arms: Mapping[str, Arm], rounds: int, warm: int) -> Timings:
    def warmed(arm: Arm) -> Callable[[], None]:
        def run() -> None:
            steps, arm.steps = arm.steps, warm
            arm.run()
            arm.steps = steps

        return run

    return interleaved(
        {name: arm.run for name, arm in arms.items()},
        rounds,
        {name: warmed(arm) for name, arm in arms.items()},
    )


def table(times: Timings, arms: Mapping[str, Arm], batch: int) -> list[dict[str, Any]]:
    rows = []
    for name, arm in arms.items():
        step_s = times.median(name) / arm.steps
        rows.append({"arm": name, "step ms": 1000 * step_s, "samples/s": batch / step_s})
    return rows


def ratio(times: Timings, arms: Mapping[str, Arm], slow: str, fast: str) -> float:
    """Seconds of a step of `slow` over those of `fast`, round by round."""
    return arms[fast].steps / arms[slow].steps * times.speed(fast, slow)


def features(folder: Path, rounds: int, batch: int) -> Result:
    """`afa` from cached features, in batches of 64: what reading costs a step that is short."""
    ground = Ground(
        feature_cache(folder / "features.zarr", 960), afa.Config(temporal_layers=4), FEATURE_BATCH
    )
    arms = {
        "(a) untaught, resident": ground.resident(UNTAUGHT, 3),
        "(a') taught, resident": ground.resident(TAUGHT, 3),
        "(b) taught, cached": ground.cached(TAUGHT, 3),
    }
    times = timed(arms, rounds, warm=3)
    a, resident, cached = arms
    rows = table(times, arms, FEATURE_BATCH)
    rows.append({"arm": "(a') / (a)", "ratio": ratio(times, arms, resident, a)})
    cost = ratio(times, arms, cached, resident)
    memory = peaks(folder)
    return rows + memory, [
        Bar("afa from features: (b) / (a')", cost, 1.05, "x", at_least=False),
        Bar(
            "afa from features: peak memory of (b) / (a')",
            memory[1]["peak MB"] / memory[0]["peak MB"],
            1.02,
            "x",
            at_least=False,
        ),
    ]


def peaks(folder: Path) -> list[dict[str, Any]]:
    """Peak memory of a process that trains 20 steps either way."""
    found = []
    for way in ("resident", "cached"):
        words = [sys.executable, "-m", "tests.bench.bench_train", "--peak", way, "--folder", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found.append({"arm": f"peak of {way}", "peak MB": float(done.stdout.split()[-1])})
    return found


def peak(folder: Path, way: str) -> None:
    from store.reader import open_cache

    teacher = open_cache(folder / "features.zarr").teacher("oracle")
    ground = Ground(teacher, afa.Config(temporal_layers=4), FEATURE_BATCH)
    arm = ground.resident(TAUGHT, 20) if way == "resident" else ground.cached(TAUGHT, 20)
    arm.run()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def feed(folder: Path, rounds: int, batch: int) -> Result:
    """Features into the model's input, and nothing is computed with them."""
    teacher = feature_cache(folder / "feed.zarr", 4000)
    teachers = Teachers(teacher)
    rows = training_rows(teacher.cache, teachers)
    needs = ("frame_embedding", "text_embedding")
    stream = TrainingStream(rows, teachers, needs, order_of(rows, teachers, needs, FEED_BATCH, 0))
    speeds = []
    for _ in range(rounds):
        with stream.steps(0, MANY, True, CPU) as steps:
            for _ in range(5):
                next(steps)
            began = time.perf_counter()
            for _ in range(FEED_STEPS):
                next(steps)
            speeds.append(FEED_STEPS * FEED_BATCH / (time.perf_counter() - began))
    speed = float(np.median(speeds))
    told = {"arm": "feed of features", "samples/s": speed}
    return [told], [Bar("features into the model's input", speed, 50_000, "samples/s")]


def frames(folder: Path, rounds: int, batch: int) -> Result:
    """`afa` from frames, ViT-B/32: against live teachers."""
    model = afa.Config(way_in="frames", temporal_layers=4)
    ground = Ground(frame_cache(folder / "frames", 3 * batch), model, batch)
    one = LiveTeacher(xclip.teacher_of(x_clip(32)), 1.0)
    second = LiveTeacher(ts2net.official(), 1.0, role="second")
    larger = LiveTeacher(xclip.teacher_of(x_clip(16)), 1.0)
    arms = {
        "(a) untaught, resident": ground.resident(UNTAUGHT, 1),
        "(a') taught, resident": ground.resident(TAUGHT, 1),
        "(b) taught, cached": ground.cached(TAUGHT, 1),
        "(c) live X-CLIP of ViT-B/32": ground.live(TAUGHT, [one], 1),
        "(c) live X-CLIP and TS2-Net": ground.live(OFFICIAL_TWO, [one, second], 1),
        "(c) live X-CLIP of ViT-B/16": ground.live(TAUGHT, [larger], 1),
    }
    times = timed(arms, rounds, warm=3)
    a, resident, cached, *live = arms
    rows = table(times, arms, batch)
    rows.append({"arm": "(a') / (a)", "ratio": ratio(times, arms, resident, a)})
    cost = ratio(times, arms, cached, resident)
    bars = [Bar("afa from frames: (b) / (a')", cost, 1.05, "x", at_least=False)]
    for name, least in zip(live, (1.2, 1.5, 2.0), strict=True):
        bars.append(Bar(f"afa from frames: {name} / (b)", ratio(times, arms, name, cached), least, "x"))
    return rows, bars


PARTS = {"feed": feed, "features": features, "frames": frames}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="times everything is measured (%(default)s)")
    parser.add_argument(
        "--only", nargs="+", metavar="PART", choices=PARTS, help="parts to run (default: all)"
    )
    parser.add_argument("--batch", type=int, default=8, help="pairs of a batch of frames (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch; the feed has its own (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where its files go meanwhile (default: the system's)")
    parser.add_argument("--peak", choices=("resident", "cached"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        peak(options.folder, options.peak)
        return
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-train-") as temporary:
        for name in options.only or PARTS:
            print(f"measuring {name} ...", flush=True)
            found, held = PARTS[name](Path(temporary), options.rounds, options.batch)
            rows += [{"part": name, **row} for row in found]
            bars += held
    report.write("train", rows, bars)


if __name__ == "__main__":
    main()
