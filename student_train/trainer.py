"""The training loop: one for every student, short enough to read in one go."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from store.errors import InputError, NonFiniteError
from student_train.config import KEEP_LAST, Recipe
from student_train.optimizer import learning_rate_factor, make_optimizer, set_learning_rate
from student_train.stream import TrainingStream
from student_train.students.base import Student, Task

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass
class Trained:
    """What a training leaves: parameters of the kept epoch, and its story.

    kept_epoch: from 0. val: the score after every epoch.
    log: a line a step. seconds: of the whole training, validation included.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    kept_epoch: int = -1
    val: list[float] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def make_accelerator() -> Accelerator:
    """The device to train on; raises InputError for more than one process.

    accelerate is imported here, since it takes longer than to evaluate a run or print its table.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="no")
    if accelerator.num_processes > 1:
        raise InputError(f"training runs in one process, not {accelerator.num_processes}; start it alone")
    return accelerator


def train(
    task: Task,
    stream: TrainingStream,
    recipe: Recipe,
    learning_rate: float,
    validate: Callable[[Student], float] | None,
    label: str,
    log: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Trained:
    """Train `task.student` in place for `recipe.epochs`; keep the epoch that the recipe says.

    Without `validate` it is the last. label: names the training in the progress bar and in
    errors. log: told every step's number and its line of the log. Raises NonFiniteError as soon as a loss
    is NaN or infinite.
    """
    began = time.perf_counter()
    accelerator = make_accelerator()
    total_steps = recipe.epochs * stream.steps_per_epoch
    student = task.student
    optimizer = make_optimizer(student, recipe.optimizer, learning_rate)
    task.student, optimizer = accelerator.prepare(student, optimizer)
    result, step = Trained(), 0
    student.train()
    with tqdm(total=total_steps, desc=label, unit="step", disable=None, leave=False) as progress:
        for epoch in range(recipe.epochs):
            for batch in on_device(stream.epoch(epoch, recipe.siblings_are_negatives), accelerator.device):
                factor = learning_rate_factor(recipe.optimizer, step, total_steps)
                set_learning_rate(optimizer, factor)
                losses = task(batch)
                accelerator.backward(losses["loss"])
                norm = accelerator.clip_grad_norm_(student.parameters(), recipe.optimizer.clip_norm)
                numbers = finite_numbers({**losses, "gradient_norm": norm}, label, step)
                place = {"epoch": epoch, "step": step, "learning_rate": learning_rate * factor}
                result.log.append({**place, **numbers})
                if log is not None:
                    log(step, result.log[-1])
                optimizer.step()
                optimizer.zero_grad()
                student.after_step()
                step += 1
                progress.update()
            keep_epoch(result, epoch, student, validate, recipe.keep)
            if log is not None and result.val:
                log(step - 1, {"val_score": result.val[-1]})
    task.student = student
    result.seconds = time.perf_counter() - began
    return result


def on_device(batches: Iterator[dict[str, Any]], device: torch.device) -> Iterator[dict[str, Any]]:
    for batch in batches:
        yield {
            name: value if isinstance(value, list) else value.to(device, non_blocking=True)
            for name, value in batch.items()
        }


def finite_numbers(values: dict[str, Tensor], label: str, step: int) -> dict[str, float]:
    """The step's numbers, read from the device at once; raises NonFiniteError if one is NaN or infinite."""
    numbers = dict(zip(values, torch.stack([v.detach() for v in values.values()]).tolist(), strict=True))
    broken = [name for name, number in numbers.items() if not math.isfinite(number)]
    if broken:
        raise NonFiniteError(
            f"{label}, step {step}: {broken[0]} is {numbers[broken[0]]}, nothing can be learned from it; "
            "choose smaller --learning-rates, or verify the cache"
        )
    return numbers


def keep_epoch(
    result: Trained, epoch: int, student: Student, validate: Callable[[Student], float] | None, keep: str
) -> None:
    """Copy the student's parameters, unless the best epoch is to be kept and an earlier one was as good."""
    if validate is not None:
        result.val.append(validate(student))
        if keep != KEEP_LAST and result.val[-1] <= max(result.val[:-1], default=-math.inf):
            return
    result.kept_epoch = epoch
    result.state = {name: value.detach().clone() for name, value in student.state_dict().items()}
