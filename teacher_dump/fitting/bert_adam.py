"""The optimiser of CLIP4Clip and its heirs: Adam as BERT's authors wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

LARGEST_TENSOR_NORM = 1.0


class BertAdam(torch.optim.Optimizer):
    """Adam without bias correction, each tensor's gradient clipped by itself, decay beside the step.

    The numbers are those of ArrowLuo/CLIP4Clip `modules/optimization.py`: m and v are running means of the
    gradient and its square, a step is lr * (m / (sqrt(v) + eps) + weight_decay * w). The caller sets "lr" of
    each group before each step; there is no schedule in here.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            first, second = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                torch.nn.utils.clip_grad_norm_(weight, LARGEST_TENSOR_NORM)
                state = self.state[weight]
                if not state:
                    state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
                state["mean"].lerp_(weight.grad, 1 - first)
                state["square"].mul_(second).addcmul_(weight.grad, weight.grad, value=1 - second)
                update = state["mean"] / (state["square"].sqrt() + group["eps"])
                weight.sub_(group["lr"] * (update + group["weight_decay"] * weight))
