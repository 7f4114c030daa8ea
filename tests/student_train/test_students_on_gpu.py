"""Every student's training step on a GPU: the same loss and gradients as on a CPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from store.lookup import load_plugin, plugin_names
from student_train import students
from student_train.config import TAUGHT
from student_train.rows import PairBlock
from student_train.students.base import Task, losses_of
from tests.contracts.student_contract import random_batch, trainings

PAIRS = 6
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 2e-3


def on(device: str, value: Any) -> Any:
    """A value of a batch there; captions stay as they are."""
    if isinstance(value, PairBlock):
        return value.map(lambda strip: strip.to(device))
    return value.to(device) if isinstance(value, torch.Tensor) else value


def stepped(task: Task, batch: dict[str, Any], device: str) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one step there, on the CPU; what is drawn is drawn alike."""
    task = copy.deepcopy(task).to(device).train()
    for module in task.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    torch.manual_seed(0)
    loss = task({need: on(device, value) for need, value in batch.items()})["loss"]
    loss.backward()
    gradients = {name: p.grad.cpu() for name, p in task.named_parameters() if p.grad is not None}
    return loss.item(), gradients


@pytest.mark.gpu
@pytest.mark.parametrize("name", plugin_names(students))
def test_a_training_step_on_a_gpu_equals_one_on_a_cpu(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    module = load_plugin(students, "student", name)
    sizes = module.tiny()[1]
    for config, weights in trainings(module, TAUGHT):
        torch.manual_seed(0)
        task = Task(module.build(config, sizes), losses_of(module, config), weights)
        batch = random_batch(task.needs, sizes, PAIRS)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            (expected, of_cpu), (loss, of_gpu) = (stepped(task, batch, where) for where in ("cpu", "cuda"))
        assert loss == pytest.approx(expected, rel=LOSS_TOLERANCE), config
        assert of_gpu.keys() == of_cpu.keys()
        whole = torch.stack([gradient.norm() for gradient in of_cpu.values()]).norm()
        for parameter, gradient in of_cpu.items():
            apart = (of_gpu[parameter] - gradient).norm()
            assert apart <= GRADIENT_TOLERANCE * (gradient.norm() + 0.01 * whole), (parameter, config)
