"""What two processes compute together, written down for a test: gradients of every loss, and a training.

Started by `test_distributed.py`, once a process: python -m tests.student_train.two_processes CACHE FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from store.batch_plan import rank_strip
from store.lookup import load_plugin, plugin_names
from store.reader import open_cache
from student_train import students
from student_train.distributed import (
    join_processes,
    rank,
    sum_over_processes,
    synchronise_batch_norm,
    world_size,
)
from student_train.needs import IGNORED_PAIR, OF_CLASSES, PAIR_KNOWN
from student_train.rows import PairBlock
from student_train.students.base import Student, Task, losses_of
from tests.contracts.student_contract import random_batch
from tests.student_train.small_training import run, task_and_stream

PAIRS = 6


def strip(batch: Mapping[str, Any], own: slice) -> dict[str, Any]:
    """What the process that holds the places `own` of a global batch reads of it."""
    found: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, PairBlock):
            found[name] = PairBlock(value.rows[own], value.columns[:, own], own.start)
        elif name.startswith(OF_CLASSES) or (isinstance(value, Tensor) and not value.ndim):
            found[name] = value
        else:
            found[name] = value[own]
    return found


def whole_batch(task: Task, sizes: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Six pairs, some of whose scores are unknown, and one of whose rows has none; two are siblings."""
    batch = random_batch(task.needs, sizes, PAIRS)
    known = torch.rand(PAIRS, PAIRS, generator=torch.Generator().manual_seed(1)) > 0.3
    known[4] = False
    ignored = torch.zeros(PAIRS, PAIRS, dtype=torch.bool)
    ignored[0, 5] = ignored[5, 0] = True
    return {**batch, PAIR_KNOWN: PairBlock.whole(known), IGNORED_PAIR: PairBlock.whole(ignored)}


def losses_and_gradients(module: ModuleType) -> dict[str, Tensor]:
    """Of every loss that a small student can compute: its value, and the gradient of all parameters.

    Parts of several processes are added up.
    """
    config, sizes = module.tiny()
    found = {}
    for name in losses_of(module, config):
        student = student_for(module, name)
        if student is None:
            continue
        task = Task(student, losses_of(module, student.config), {name: 1.0}).train()
        for layer in task.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        synchronise_batch_norm(task, torch.device("cpu"))
        batch = strip(whole_batch(task, sizes), rank_strip(PAIRS, rank(), world_size()))
        parts = task(batch)
        parts["loss"].backward()
        found[f"{name}/loss"] = sum_over_processes(parts["loss"])
        for key, parameter in task.named_parameters():
            if parameter.requires_grad:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                found[f"{name}/{key}"] = told_of(sum_over_processes(gradient))
    return found


def student_for(module: ModuleType, loss: str) -> Student | None:
    """The tiny student, or a recipe's in small, that gives what `loss` reads; None without one."""
    config, sizes = module.tiny()
    small = getattr(module, "small", lambda config: config)
    using = [small(recipe.model) for recipe in module.RECIPES.values() if loss in recipe.losses]
    for made_of in (config, *using):
        terms = losses_of(module, made_of)
        torch.manual_seed(0)
        student: Student = module.build(made_of, sizes)
        if loss in terms and set(terms[loss].reads) <= set(student.gives):
            return student
    return None


def told_of(gradient: Tensor) -> Tensor:
    """Its length, and some of its numbers: all of them would be hundreds of megabytes."""
    flat = gradient.flatten()
    return torch.cat([gradient.norm()[None], flat[:: max(len(flat) // 256, 1)]])


def everything(cache: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What does not depend on the number of processes, and this process's texts of every step."""
    found = {
        f"{name}/{key}": value.contiguous()
        for name in plugin_names(students)
        for key, value in losses_and_gradients(load_plugin(students, "student", name)).items()
    }
    teacher = open_cache(cache).teacher("oracle")
    _, stream = task_and_stream(teacher)
    with stream.steps(2, 8, False, torch.device("cpu")) as feed:
        texts = {f"texts/{number}": step.batch["text_embedding"].clone() for number, step in enumerate(feed)}
    losses: list[float] = []
    trained = run(teacher, logs=[lambda step, line: losses.append(line["loss"]) if "loss" in line else None])
    found |= {f"trained/{name}": value.contiguous() for name, value in trained.state.items()}
    if rank() == 0:
        found["trained/losses"] = torch.tensor(losses)
    return found, texts


if __name__ == "__main__":
    torch.set_num_threads(1)
    join_processes()
    for part, tensors in zip(("numbers", "texts"), everything(Path(sys.argv[1])), strict=True):
        save_file(tensors, Path(sys.argv[2]) / f"{part}-{rank()}.safetensors")
