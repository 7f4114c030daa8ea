"""The training loop: one for every student, on one device or many, short enough to read in one go.

`torchrun --nproc-per-node N -m student_train train ...` and one process run the same code. The global batch
is the recipe's whatever the number of processes; each holds its strip of it. DDP averages gradients over
processes; losses are parts that add up (`student_train.distributed`), so each is taken world_size times.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from store.errors import InputError
from student_train.checkpoint import Checkpoints
from student_train.config import BF16, KEEP_LAST, Optimizer, Recipe
from student_train.distributed import from_first, rank, sum_over_processes, synchronise_batch_norm, world_size
from student_train.guard import TaughtShare, TerminatedError, Termination, require_finite
from student_train.optimizer import learning_rate_factor, make_optimizer, set_learning_rate
from student_train.step_numbers import STEPS_LATE, StepNumbers
from student_train.stream import TrainingStream
from student_train.students.base import FINITE_ROWS, Student, Task
from student_train.training_state import Trained, load_state, save_state

if TYPE_CHECKING:
    from accelerate import Accelerator

STOP, SAVE = "stop", "save"


TrainingLog = Callable[[int, Mapping[str, Any]], None]
"""Told every step's number and its line of numbers, in order, and after the last step of an epoch its
`val_score`. After a resume it begins again at a step that it may have heard of."""


@dataclass(frozen=True)
class Watch:
    """Who looks on while a training runs.

    label: names it in the progress bar and in errors. validate: a score of the student, called in process 0
    after every epoch. logs: who gets the numbers, in process 0. unchanged: called after every epoch, raises
    if what is trained from is not what it was. checkpoints: where the state goes, None: nowhere.
    """

    label: str
    validate: Callable[[Student], float] | None = None
    logs: Sequence[TrainingLog] = ()
    unchanged: Callable[[], None] = lambda: None
    checkpoints: Checkpoints | None = None


def make_accelerator() -> Accelerator:
    """The device of this process, and the others, if torchrun or `accelerate launch` started several.

    accelerate is imported here, since it takes longer than to evaluate a run or print its table.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="no", cpu=not torch.cuda.is_available())
    if accelerator.num_processes != world_size():
        raise InputError(
            f"{world_size()} processes were started, accelerate sees {accelerator.num_processes}; start them "
            "with torchrun"
        )
    return accelerator


def train(task: Task, stream: TrainingStream, recipe: Recipe, learning_rate: float, watch: Watch) -> Trained:
    """Train `task.student` in place for `recipe.epochs`, or what is left of them, and keep the epoch that the
    recipe says; without `watch.validate` the last.

    Raises NonFiniteError as soon as a loss is NaN or infinite, InputError if the teacher says too little,
    IdentityError if the cache changes meanwhile, TerminatedError after a SIGTERM, once the state is saved.
    """
    accelerator = make_accelerator()
    device, student, settings = accelerator.device, task.student, recipe.optimizer
    parallel, optimizer = prepared(accelerator, task, recipe, learning_rate)
    result = load_state(watch.checkpoints, student, optimizer)
    began = time.perf_counter() - result.seconds
    total, steps_per_epoch = recipe.epochs * stream.steps_per_epoch, stream.steps_per_epoch
    updates = math.ceil(total / settings.accumulation)
    taught = TaughtShare(recipe.least_taught_share, watch.label)
    unread: deque[StepNumbers] = deque()
    wishes: set[str] = set()
    quiet = True if rank() else None
    bar = tqdm(total=total, initial=result.step, desc=watch.label, unit="step", disable=quiet, leave=False)
    feed = stream.steps(result.step, total, recipe.siblings_are_negatives, device)
    student.train()
    with bar, feed as steps, Termination() as termination:
        while result.step < total:
            started = time.perf_counter()
            rows = next(steps)
            waited_s = time.perf_counter() - started
            update = result.step // settings.accumulation
            behind = min((update + 1) * settings.accumulation, total)
            batches, is_update = behind - update * settings.accumulation, result.step + 1 == behind
            factor = learning_rate_factor(settings, update, updates)
            set_learning_rate(optimizer, factor)
            with nullcontext() if is_update else accelerator.no_sync(parallel):
                with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == BF16):
                    parts = parallel(rows.batch)
                finite = parts.pop(FINITE_ROWS)
                accelerator.backward(parts["loss"] * (world_size() / batches))
            if is_update:
                norm = accelerator.clip_grad_norm_(student.parameters(), settings.clip_norm)
                parts["gradient_norm"] = norm / world_size()
                optimizer.step()
                optimizer.zero_grad()
                student.after_step()
            epoch, place = divmod(result.step, steps_per_epoch)
            epoch_ends = place == steps_per_epoch - 1
            result.step += 1
            parts |= wished(termination, watch.checkpoints, result.step, device)
            step_s = time.perf_counter() - started
            told = {"epoch": epoch, "step": result.step - 1, **rates_now(settings, learning_rate * factor)}
            told |= {"data_wait_s": waited_s, "samples_per_s": stream.batch_size / step_s}
            unread.append(StepNumbers(parts, told, rows, finite))
            wishes |= read(unread, 0 if epoch_ends else STEPS_LATE.get(device.type, 0), watch, taught, stream)
            bar.update()
            if epoch_ends:
                end_epoch(result, epoch, student, watch, recipe.keep)
            if is_update and wishes:
                wishes |= read(unread, 0, watch, taught, stream)
                result.seconds = time.perf_counter() - began
                save(watch, result, student, optimizer, end=STOP in wishes)
                wishes.clear()
        asked = sum_over_processes(torch.tensor(float(termination.asked), device=device))
    result.seconds, result.asked_to_end = time.perf_counter() - began, bool(asked > 0)
    return result


def rates_now(settings: Optimizer, rate: float) -> dict[str, float]:
    """The learning rate, and those of parameters that learn faster or slower, by how their names begin."""
    scaled = {f"learning_rate_{start}": rate * scale for start, scale in settings.lr_scale.items()}
    return {"learning_rate": rate, **scaled}


def prepared(
    accelerator: Accelerator, task: Task, recipe: Recipe, learning_rate: float
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The task on its device, in DDP where there are several processes, and its optimiser."""
    student, device = task.student, accelerator.device
    if rank():
        # Everybody begins with the same parameters, but not with the same dropout.
        torch.manual_seed(torch.initial_seed() + rank())
    task.freeze_unread()
    if recipe.channels_last:
        for parameter in student.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
    synchronise_batch_norm(task, device)
    optimizer = make_optimizer(student, recipe.optimizer, learning_rate)
    if recipe.compile:
        for name in student.compiled:
            setattr(student, name, torch.compile(getattr(student, name)))
    parallel, optimizer = accelerator.prepare(task, optimizer)
    return parallel, optimizer


def wished(
    termination: Termination, checkpoints: Checkpoints | None, step: int, device: torch.device
) -> dict[str, Tensor]:
    """Whether this process was asked to end, and whether process 0 finds that it is time to save.

    They travel with the numbers of the step, so that all processes do the same after the same step.
    """
    save = checkpoints is not None and rank() == 0 and checkpoints.due(step)
    wishes = torch.tensor([float(termination.asked), float(save)]).to(device, non_blocking=True)
    return {STOP: wishes[0], SAVE: wishes[1]}


def read(
    unread: deque[StepNumbers], late: int, watch: Watch, taught: TaughtShare, stream: TrainingStream
) -> set[str]:
    """Check and log the numbers of all but the last `late` steps; which of STOP and SAVE were wished."""
    wishes: set[str] = set()
    while len(unread) > late:
        step = unread.popleft()
        numbers = step.read()
        wishes |= {name for name in (STOP, SAVE) if numbers.pop(name) > 0}
        where = f"{watch.label}, step {step.told['step']}"
        require_finite(numbers, where, step.broken_rows, stream.teachers.cache)
        taught.add(numbers, (step.told["step"] + 1) % stream.steps_per_epoch == 0)
        if rank() == 0:
            for log in watch.logs:
                log(step.told["step"], {**step.told, **numbers})
    return wishes


def end_epoch(result: Trained, epoch: int, student: Student, watch: Watch, keep: str) -> None:
    """Score the student and copy its parameters, unless the best epoch is to be kept and an earlier one was
    as good."""
    watch.unchanged()
    if watch.validate is not None:
        result.val.append(from_first(watch.validate(student) if rank() == 0 else None))
        for log in watch.logs:
            log(result.step - 1, {"val_score": result.val[-1]})
        if keep != KEEP_LAST and result.val[-1] <= max(result.val[:-1], default=-math.inf):
            return
    result.kept_epoch = epoch
    result.state = {name: value.detach().clone() for name, value in student.state_dict().items()}


def save(
    watch: Watch, result: Trained, student: Student, optimizer: torch.optim.Optimizer, end: bool
) -> None:
    """Save the state, if it has a place to go; raises TerminatedError if the training was asked to `end`."""
    if watch.checkpoints is not None:
        save_state(watch.checkpoints, result, student, optimizer)
    if end:
        kept = "its state is saved, the same command goes on" if watch.checkpoints else "nothing was saved"
        raise TerminatedError(f"{watch.label}: ended by SIGTERM after step {result.step}; {kept}")
