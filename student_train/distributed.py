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

from typing import Any

import torch
import torch.distributed
from torch import Tensor


def world_size() -> int:
    """How many processes train together, 1 where nobody started several."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


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
