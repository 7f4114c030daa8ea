"""The numbers of a step on their way from the device: read a step later on a GPU, so that it never waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from student_train.distributed import sum_over_processes
from student_train.step_source import Step

STEPS_LATE = {"cuda": 1}


class StepNumbers:
    """`parts`: scalars of which every process has a part; they add up to the numbers of the step.

    told: what is known on the host, by name. rows: of the step, for errors.
    """

    def __init__(self, parts: Mapping[str, Tensor], told: Mapping[str, Any], rows: Step) -> None:
        self.told = dict(told)
        self.rows = rows
        self._names = tuple(parts)
        stacked = torch.stack([part.detach().float() for part in parts.values()])
        total = sum_over_processes(stacked)
        self._copied = None
        if total.device.type == "cuda":
            total = total.to("cpu", non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        self._total = total

    def read(self) -> dict[str, float]:
        """The numbers; waits until the step is computed."""
        if self._copied is not None:
            self._copied.synchronize()
        return dict(zip(self._names, self._total.tolist(), strict=True))
