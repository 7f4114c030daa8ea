"""Shards of a sample, in a scratch folder on the cache's disk: what storing and reading cost."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from store.calibration import (
    CHANNEL_MEAN,
    CHANNEL_SCALE,
    PROJECTION_BASIS,
    PROJECTION_MEAN,
    SignalCodec,
    fitted_names,
)
from store.layout import TableCounts, TeacherPlan, signal_arrays
from store.shards import ShardFile
from store.signals import SignalSpec
from teacher_dump.estimates.stopwatch import Spent, Stopwatch


@dataclass(frozen=True)
class WrittenSample:
    """What storing a sample cost, and the shard files that hold it until the scratch folder goes."""

    encode: Spent
    write: Spent
    finish_s: float
    files: Sequence[Path]

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    def read_s(self, cold: bool) -> float:
        """Seconds of reading it once; cold: after the page cache gave it up, as far as the system lets it."""
        for file in self.files:
            descriptor = os.open(file, os.O_RDONLY)
            try:
                if cold:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                else:
                    while os.read(descriptor, 1 << 24):
                        pass
            finally:
                os.close(descriptor)
        room = bytearray(max((file.stat().st_size for file in self.files), default=0))
        with Stopwatch() as watch:
            for file in self.files:
                with open(file, "rb", buffering=0) as opened:
                    opened.readinto(room)
        return watch.spent.clock_s


def written(plan: TeacherPlan, phase: str, values: Mapping[str, np.ndarray], scratch: Path) -> WrittenSample:
    """Encode the phase's signals as the plan stores them, and write them into shards of their own."""
    encode, write, finish, files = Spent(), Spent(), Spent(), []
    for spec in plan.signals:
        if plan.execution["phase_of"][spec.name] != phase:
            continue
        rows = np.arange(len(values[spec.name]))
        with Stopwatch() as encoding:
            parts, _ = stand_in_codec(spec, values[spec.name].shape[-1]).encode(values[spec.name], rows)
        encode += encoding.spent
        arrays = signal_arrays(spec, TableCounts(len(rows), len(rows)), len(rows))
        for part, array in arrays.items():
            with ExitStack() as stack:
                file = stack.enter_context(ShardFile(scratch, f"{spec.name}/{part or 'one'}", array, 0))
                with Stopwatch() as appending:
                    for row, value in zip(rows.tolist(), parts[part], strict=True):
                        file.append(row, value)
                with Stopwatch() as finishing:
                    record = file.finish()
            write, finish = write + appending.spent, finish + finishing.spent
            files.append(scratch / record.path)
    return WrittenSample(encode, write + replace(finish, clock_s=0.0), finish.clock_s, files)


def stand_in_codec(spec: SignalSpec, width: int) -> SignalCodec:
    """A codec whose fitted numbers have the right shapes: other numbers take as long."""
    kept = spec.sizes.get("D", 1)
    numbers = {
        PROJECTION_MEAN: np.zeros(width, np.float32),
        PROJECTION_BASIS: np.eye(width, kept, dtype=np.float32),
        CHANNEL_MEAN: np.zeros(kept, np.float32),
        CHANNEL_SCALE: np.ones(kept, np.float32),
    }
    return SignalCodec(spec, {name: numbers[name] for name in fitted_names(spec)})


def scratch_folder(beside: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=".estimate-", dir=nearest_folder(beside))


def nearest_folder(path: Path) -> Path:
    """The first folder at or above `path` that exists."""
    path = path.absolute()
    return next(folder for folder in (path.parent, *path.parent.parents) if folder.is_dir())
