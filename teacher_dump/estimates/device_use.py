"""What a forward takes of the machine: waiting for the device, and memory at its peak."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from pathlib import Path
from typing import TypeVar

import torch

from teacher_dump.teachers.base import Teacher

Result = TypeVar("Result")


def after(teacher: Teacher, result: Result) -> Result:
    """`result`, once the device has done what it was told."""
    if teacher.device.type == "cuda":
        torch.cuda.synchronize(teacher.device)
    return result


class PeakMemory:
    """How much this process grows from its construction on, at its peak; and the device, if it counts."""

    def __init__(self, teacher: Teacher) -> None:
        self._device = teacher.device
        self.before = peak_resident()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def grown(self) -> int:
        return max(peak_resident() - self.before, 0)

    def device_peak(self) -> int:
        return int(torch.cuda.max_memory_allocated(self._device)) if self._device.type == "cuda" else 0


def peak_resident() -> int:
    """The most bytes of memory that this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_of_children() -> int:
    """Bytes of the largest process that this one started through multiprocessing and that still runs."""
    found = [0]
    for child in multiprocessing.active_children():
        pages = Path(f"/proc/{child.pid}/statm").read_text().split()[1]
        found.append(int(pages) * resource.getpagesize())
    return max(found)


def machine_bytes() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
