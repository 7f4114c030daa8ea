"""The numbers of a step on their way from the device: read a step later on a GPU, so that it never waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from store.batch_plan import rank_strip
from student_train.distributed import rank, sum_over_processes, world_size
from student_train.step_source import Step

STEPS_LATE = {"cuda": 1}


@dataclass(frozen=True)
class BrokenRows:
    """video, text: row numbers [N] of the cache. of: how many rows the step has over all processes."""

    video: np.ndarray
    text: np.ndarray
    of: int


class StepNumbers:
    """`parts`: scalars of which every process has a part; they add up to the numbers of the step.

    told: what is known on the host, by name. For errors, rows: of the step; finite: [b] bool of this
    process's.
    """

    def __init__(
        self, parts: Mapping[str, Tensor], told: Mapping[str, Any], rows: Step, finite: Tensor
    ) -> None:
        self.told = dict(told)
        self._rows = rows
        self._finite = finite
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

    def broken_rows(self) -> BrokenRows:
        """Those of this process that are not finite."""
        own = rank_strip(len(self._rows.video), rank(), world_size())
        broken = ~self._finite.cpu().numpy()
        return BrokenRows(self._rows.video[own][broken], self._rows.text[own][broken], len(self._rows.video))
