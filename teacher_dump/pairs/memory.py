"""How many pairs fit into memory at once: found without computing one, fixed when a plan is made."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from store.encodings import BOOL
from store.errors import InputError
from store.signals import SignalSpec
from teacher_dump.plan import inputs_of_pairs
from teacher_dump.teachers.base import Teacher

SHARE_OF_MEMORY = 8
MOST_BYTES = 1 << 30
MARGIN = 2
"""Kernels keep scratch space that no tensor shows."""
VIDEOS_MEASURED = 4


class PeakBytes(TorchDispatchMode):
    """While it is entered, counts the bytes of the tensors that are made and still alive: `most` at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._alive = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        # A view has the storage of its base; its number is free for another one once it is gone.
        number, size = storage._cdata, storage.nbytes()
        if size == 0 or number in self._known:
            return
        self._known.add(number)
        self._alive += size
        self.most = max(self.most, self._alive)
        weakref.finalize(storage, self._free, number, size)

    def _free(self, number: int, size: int) -> None:
        self._known.discard(number)
        self._alive -= size


def peak_bytes(teacher: Teacher, videos: int, texts: int) -> int:
    """The most bytes of tensors alive at once while `videos` x `texts` are scored, the features included.

    Only shapes are computed (torch's fake tensors), so it costs neither the memory nor the work.
    """
    with torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True), PeakBytes() as peak:
        teacher.score_pairs(blank_features(teacher, "V", videos), blank_features(teacher, "T", texts))
    return peak.most


def blank_features(teacher: Teacher, row_axis: str, rows: int) -> dict[str, Tensor]:
    """What `score_pairs` gets of `rows` videos (row_axis "V") or texts ("T"), all zeros; frames are valid."""
    found = {spec.name: _blank(spec, rows) for spec in inputs_of_pairs(teacher) if spec.row_axis == row_axis}
    if row_axis == "V":
        found["frame_valid"] = torch.ones(rows, teacher.view.frames, dtype=torch.bool)
    return found


def _blank(spec: SignalSpec, rows: int) -> Tensor:
    shape = (rows, *(spec.sizes[axis] for axis in spec.kind.axes[1:].replace("R", "")))
    return torch.ones(shape, dtype=torch.bool) if spec.encoding == BOOL else torch.zeros(shape)


def reckoned_bytes(teacher: Teacher, videos: int, texts: int) -> float:
    """No less than what scoring `videos` x `texts` takes.

    Of a few videos it is looked up, of more it is taken to grow with their number: what does not grow is
    counted too often, so it is never too little.
    """
    measured = min(videos, VIDEOS_MEASURED)
    return MARGIN * peak_bytes(teacher, measured, texts) * videos / measured


def pair_block(teacher: Teacher, videos: int, texts: int, memory_bytes: int) -> tuple[int, int]:
    """The largest block of at most `videos` x `texts` that scores in `memory_bytes`, by halving.

    Raises InputError where not even one pair does.
    """
    while (needed := reckoned_bytes(teacher, videos, texts)) > memory_bytes and (videos, texts) != (1, 1):
        videos, texts = (videos, (texts + 1) // 2) if texts >= videos else ((videos + 1) // 2, texts)
    if needed > memory_bytes:
        raise InputError(
            f"scoring one pair takes {needed / 2**20:,.0f} MB, {memory_bytes / 2**20:,.0f} MB may be taken; "
            "give more by --pair-memory-mb"
        )
    return videos, texts


def memory_for_pairs(device: torch.device) -> int:
    """Bytes that a block of pairs may take: an eighth of what is free on `device` now, at most 1 GiB.

    A power of two, so that a little more or less in use elsewhere makes the same plan.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    share = min(free // SHARE_OF_MEMORY, MOST_BYTES)
    return 1 << max(share.bit_length() - 1, 20)


def free_memory() -> int:
    """Bytes of RAM that this process may still take: of the machine, and of its control group."""
    found = [8 << 30]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        found = [int(lines["MemAvailable"].split()[0]) << 10]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        found.append(max(int(limit.read_text()) - int(used.read_text()), 0))
    return min(found)
