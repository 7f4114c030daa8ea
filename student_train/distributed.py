"""Several processes that train one student: who they are, and what they gather of each other's rows.

The loss of a step is a mean over the global batch. Process r computes the part L_r that its own rows give;
all parts add up to the loss. Whoever gathers a row gives its gradient back to the process that owns it, so
every process holds the whole gradient of its own rows; the trainer then *sums* gradients of parameters over
processes. One process on the whole batch computes the same numbers.

The official codes do it otherwise: every process computes the whole loss, keeps the gradient of its own rows
only, and DDP *averages* over processes. Towers then get 1 / world_size of the gradient, while what enters the
loss by itself (the logit scale) gets all of it (ruc-aimc-lab/TeachCLIP `modules/until_module.py`: AllGather).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from store.errors import InputError


def world_size() -> int:
    """How many processes train together, 1 where nobody started several."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def join_processes() -> None:
    """Join the processes that torchrun or `accelerate launch` started together with this one, if any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        # Without being told, accelerate finds no processes to join on a machine without a GPU.
        PartialState(cpu=not torch.cuda.is_available())


def require_one_process() -> None:
    """Raise InputError where several were started together for what each would do again."""
    if (several := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise InputError(f"{several} processes were started; only training is shared by several, start one")


def gather_rows(own_bN: Tensor) -> Tensor:
    """Rows [B, ...] of all processes in the order of their ranks, of `own_bN` [b, ...], b alike everywhere.

    Differentiable: a row's gradient is the sum of what all processes did with it. `own_bN` itself in one
    process.
    """
    if world_size() == 1:
        return own_bN
    gathered: Tensor = _GatherRows.apply(own_bN)
    return gathered


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of everybody's `value`, without a gradient."""
    if world_size() == 1:
        return value.detach()
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        own = own.contiguous()
        parts = [torch.empty_like(own) for _ in range(world_size())]
        torch.distributed.all_gather(parts, own)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous()
        torch.distributed.all_reduce(total)
        return total.chunk(world_size())[rank()]


def from_first(value: Any) -> Any:
    """What process 0 has for `value`, plain data, in every process."""
    if world_size() == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def all_of(value: Tensor) -> list[Tensor]:
    """Everybody's `value`, of the same shape everywhere, in the order of the ranks."""
    if world_size() == 1:
        return [value]
    parts = [torch.empty_like(value) for _ in range(world_size())]
    torch.distributed.all_gather(parts, value.contiguous())
    return parts


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Let every BatchNorm take its statistics over the global batch; the module as it is in one process.

    On a GPU by SyncBatchNorm. torch has none for CPUs: there each process gathers the layer's whole input and
    keeps its strip of the output, which is the same and costs world_size times the layer.
    """
    if world_size() == 1:
        return module
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # knows layers that fuse an activation

        converted: nn.Module = convert_sync_batchnorm(module)
        return converted
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.forward = partial(_over_all_processes, layer, layer.forward)  # type: ignore[method-assign]
    return module


def _over_all_processes(layer: nn.Module, forward: Callable[[Tensor], Tensor], own_bN: Tensor) -> Tensor:
    """The layer's output for the own rows; how many they are may differ, where empty frames are left out."""
    if not layer.training:
        return forward(own_bN)
    counts = [int(count) for count in all_of(torch.tensor([len(own_bN)]))]
    padding = own_bN.new_zeros((max(counts) - len(own_bN), *own_bN.shape[1:]))
    parts = gather_rows(torch.cat([own_bN, padding])).chunk(world_size())
    whole = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
    start = sum(counts[: rank()])
    return forward(whole)[start : start + len(own_bN)]
