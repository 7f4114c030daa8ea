"""Named optimisers and schedules, and which parameters learn how fast: what a recipe says of learning.

    adamw       AdamW of torch
    bert_adam   the Adam of CLIP4Clip and TeachCLIP, `BertAdam`

A schedule is a pure function of the step, so a resumed training needs no state of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from student_train.config import ADAMW, BERT_ADAM, CONSTANT, COSINE, OFFICIAL_COSINE, Optimizer


def make_optimizer(student: nn.Module, settings: Optimizer, learning_rate: float) -> torch.optim.Optimizer:
    """The optimiser over the parameters that learn; each group keeps its rate in `base_lr`.

    A parameter's rate is `learning_rate` times every factor of `lr_scale` whose key begins its
    name. It decays unless its name holds one of `undecayed`; without that, matrices decay and what has
    fewer axes (biases, norms, scalars) does not.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in student.named_parameters():
        if not parameter.requires_grad:
            continue
        scales = [factor for start, factor in settings.lr_scale.items() if name.startswith(start)]
        if settings.undecayed is None:
            decays = parameter.ndim >= 2
        else:
            decays = not any(part in name for part in settings.undecayed)
        rate, decay = learning_rate * math.prod(scales), settings.weight_decay if decays else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return OPTIMIZERS[settings.name](
        [
            {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        settings,
    )


def adamw(groups: Iterable[dict[str, Any]], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.epsilon, fused=True)


def bert_adam(groups: Iterable[dict[str, Any]], settings: Optimizer) -> torch.optim.Optimizer:
    return BertAdam(groups, settings.betas, settings.epsilon, settings.clip_norm)


OPTIMIZERS: dict[str, Callable[[Iterable[dict[str, Any]], Optimizer], torch.optim.Optimizer]] = {
    ADAMW: adamw,
    BERT_ADAM: bert_adam,
}


class BertAdam(torch.optim.Optimizer):
    """Adam as CLIP4Clip and TeachCLIP train with it (`modules/optimization.py`, class BertAdam).

        g <- g * min(1, clip_norm / (|g| + 1e-6))     every tensor by itself
        m <- b1 m + (1 - b1) g,    v <- b2 v + (1 - b2) g^2
        p <- p - lr (m / (sqrt(v) + epsilon) + weight_decay p)

    No bias is corrected, so the first steps are small. All is computed in the parameter's own type, as
    there: half-precision weights at a rate of 1e-7 mostly stay where they are.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        betas: tuple[float, float] = (0.9, 0.98),
        epsilon: float = 1e-6,
        clip_norm: float = 1.0,
    ) -> None:
        defaults = {"lr": 0.0, "weight_decay": 0.0, "betas": betas, "eps": epsilon, "clip_norm": clip_norm}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; `closure` recomputes the loss first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                nn.utils.clip_grad_norm_(parameter, group["clip_norm"])
                gradient = parameter.grad
                state["exp_avg"].mul_(first).add_(gradient, alpha=1 - first)
                state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
                update = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + group["eps"])
                if group["weight_decay"]:
                    update += group["weight_decay"] * parameter
                parameter.add_(update * -group["lr"])
        return loss


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group `factor` times its rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def learning_rate_factor(settings: Optimizer, update: int, updates: int) -> float:
    """The factor on every rate at update `update` (from 0) of `updates`, as `settings.schedule` says."""
    return SCHEDULES[settings.schedule](update, updates, settings.warmup)


def cosine(update: int, updates: int, warmup: float) -> float:
    """Linear from 0 to 1 over the first `warmup` share of the updates, then half a cosine down to 0."""
    rising = warmup * updates
    if update + 1 < rising:
        return (update + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (update - rising) / (updates - rising)))


def official_cosine(update: int, updates: int, warmup: float) -> float:
    """CLIP4Clip's and TeachCLIP's (`modules/optimization.py: warmup_cosine`): the first update has rate 0,
    and the cosine is that of the whole training, so it steps down a little where the warm-up ends."""
    progress = update / updates
    return progress / warmup if progress < warmup else 0.5 * (1 + math.cos(math.pi * progress))


def constant(update: int, updates: int, warmup: float) -> float:
    """Linear from 0 to 1 over the first `warmup` share of the updates, then 1."""
    return min(1.0, (update + 1) / (warmup * updates)) if warmup else 1.0


SCHEDULES: dict[str, Callable[[int, int, float], float]] = {
    COSINE: cosine,
    OFFICIAL_COSINE: official_cosine,
    CONSTANT: constant,
}
