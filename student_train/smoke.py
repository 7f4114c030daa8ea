"""One batch through student, losses and gradients before a long job: it works, how long, how large."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass

import torch

from student_train.config import BF16, Recipe
from student_train.stream import TrainingStream
from student_train.students.base import Task
from student_train.trainer import make_accelerator

STEPS = 2
MOMENTS = 2


@dataclass(frozen=True)
class Estimate:
    """seconds of a step, after a first one; peak_bytes of the device (of the process, on a CPU) with the
    optimiser's moments."""

    step_s: float
    peak_bytes: int

    def told(self, steps: int, trainings: int) -> str:
        minutes = self.step_s * steps * trainings / 60
        return (
            f"a step takes about {1000 * self.step_s:.0f} ms: {steps:,} steps x {trainings} trainings, about "
            f"{minutes:.0f} min and the scoring of every epoch; memory about {self.peak_bytes / 1e9:.1f} GB"
        )


def smoke_step(task: Task, stream: TrainingStream, recipe: Recipe) -> Estimate:
    """Forward and backward of the first batches; `task` is not to be trained afterwards.

    Raises what the training would raise.
    """
    device = make_accelerator().device
    task.to(device).train()
    with stream.steps(0, min(STEPS, stream.steps_per_epoch), recipe.siblings_are_negatives, device) as feed:
        for rows in feed:
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == BF16):
                loss = task(rows.batch)["loss"]
            loss.backward()
            loss.item()
            step_s = time.perf_counter() - began
    learned = sum(p.numel() * p.element_size() for p in task.parameters() if p.requires_grad)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Estimate(step_s, peak + MOMENTS * learned)
