"""The state of a training: what a checkpoint holds, so that what remains is what would have been.

parameters and buffers of the student, moments of the optimiser, generators of every process, the kept
epoch's parameters so far; and as JSON the step (the stream's position and the schedule follow from it),
the scores, the seconds. There is no loss scaler: half precision is bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from student_train.checkpoint import Checkpoints
from student_train.distributed import all_of, rank, world_size
from student_train.students.base import Student

STUDENT, OPTIMIZER, KEPT, GENERATOR = "student/", "optimizer/", "kept/", "generator/"
DEVICE_GENERATOR = "device_generator/"


@dataclass
class Trained:
    """A training so far, and in the end what it leaves.

    step: steps done. state: parameters of the kept epoch; kept_epoch: from 0, -1 before the first.
    val: the score after every epoch. seconds: of the whole training, validation included. asked_to_end:
    SIGTERM came when no step was left to end after.
    """

    step: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)
    kept_epoch: int = -1
    val: list[float] = field(default_factory=list)
    seconds: float = 0.0
    asked_to_end: bool = False


def save_state(
    checkpoints: Checkpoints, result: Trained, student: Student, optimizer: torch.optim.Optimizer
) -> None:
    """Write a checkpoint, in process 0; all processes call it, since each has generators of its own."""
    tensors = {STUDENT + name: value for name, value in student.state_dict().items()}
    tensors |= {KEPT + name: value for name, value in result.state.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{OPTIMIZER}{number}/{name}": value for name, value in moments.items()}
    device = next(student.parameters()).device
    for process, state in enumerate(all_of(torch.get_rng_state().to(device))):
        tensors[f"{GENERATOR}{process}"] = state
    if device.type == "cuda":
        for process, state in enumerate(all_of(torch.cuda.get_rng_state(device).to(device))):
            tensors[f"{DEVICE_GENERATOR}{process}"] = state
    facts = {
        "step": result.step,
        "kept_epoch": result.kept_epoch,
        "val": result.val,
        "seconds": result.seconds,
        "world_size": world_size(),
    }
    if rank() == 0:
        checkpoints.save(result.step, tensors, facts)


def load_state(
    checkpoints: Checkpoints | None, student: Student, optimizer: torch.optim.Optimizer
) -> Trained:
    """Go on from the newest sound checkpoint; from the beginning if there is none.

    With another number of processes than wrote it the generators start anew: the batches are the same, what
    is drawn by chance (dropout) is not.
    """
    found = checkpoints.newest() if checkpoints else None
    if found is None:
        return Trained()
    tensors, facts = found
    student.load_state_dict(under(tensors, STUDENT))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in under(tensors, OPTIMIZER).items():
        number, _, moment = name.partition("/")
        moments.setdefault(int(number), {})[moment] = value
    groups: Any = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    if facts["world_size"] == world_size():
        torch.set_rng_state(tensors[f"{GENERATOR}{rank()}"])
        if f"{DEVICE_GENERATOR}{rank()}" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors[f"{DEVICE_GENERATOR}{rank()}"])
    kept = under(tensors, KEPT)
    return Trained(facts["step"], kept, facts["kept_epoch"], list(facts["val"]), facts["seconds"])


def under(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
