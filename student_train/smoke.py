"""A batch through student, losses, gradients and update before a long job: it works, how long, how large."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from student_train.config import BF16, Recipe
from student_train.optimizer import make_optimizer
from student_train.stream import TrainingStream
from student_train.students.base import Task
from student_train.trainer import make_accelerator

STEPS = 2
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Estimate:
    """seconds of a step, after a first one; peak_bytes of the device (of the process, on a CPU)."""

    step_s: float
    peak_bytes: int

    def told(self, steps: int, trainings: int) -> str:
        minutes = self.step_s * steps * trainings / 60
        return (
            f"a step takes about {1000 * self.step_s:.0f} ms: {steps:,} steps x {trainings} trainings, about "
            f"{minutes:.0f} min and the scoring of every epoch; memory about {self.peak_bytes / 1e9:.1f} GB"
        )


def smoke_step(task: Task, stream: TrainingStream, recipe: Recipe) -> Estimate:
    """Train `task` on the first batches; it is not to be trained afterwards.

    Raises what the training would raise.
    """
    device = make_accelerator().device
    task.to(device).train()
    task.freeze_unread()
    optimizer = make_optimizer(task.student, recipe.optimizer, recipe.optimizer.lr[0])
    with stream.steps(0, min(STEPS, stream.steps_per_epoch), recipe.siblings_are_negatives, device) as feed:
        for rows in feed:
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == BF16):
                loss = task(rows.batch)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            step_s = time.perf_counter() - began
    return Estimate(step_s, peak_memory(device))


def peak_memory(device: torch.device) -> int:
    """Bytes that were taken at most so far: of the device, of this process on a CPU.

    `ru_maxrss` of a process begins at what the one had that started it, so Linux' own count goes before.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
