"""Stage 1, the coordinator: plan or resume, run the tasks that are not finished, publish."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from store.durable import canonical_json, read_json, write_file
from store.errors import InputError
from store.inputs.decode_pool import DecodePool, Limits
from store.inputs.samples import Samples
from store.layout import TeacherPlan
from store.ledger import Commit
from store.reader import Cache, open_cache
from store.writer import CacheWriter
from teacher_dump.dump_shard import ShardDumper
from teacher_dump.executors import SerialExecutor
from teacher_dump.plan import PHASE_AXIS, ShardTask, StorageOptions, execution, shard_tasks
from teacher_dump.teachers.base import Teacher

LARGEST_SETTING = 1_000_000
LIBRARIES = ("torch", "open_clip_torch", "decord", "av", "pillow", "numpy", "zarr")


@dataclass(frozen=True)
class DumpSettings:
    """How to run a dump. The first four are fixed in the plan and repeated by every resume.

    batch_videos, batch_texts: rows of one forward. threads: of torch. shard_rows: None = up to 512 MB.
    decoders: processes that decode ahead. time_limit_s, memory_limit_mb: of decoding one video. storage:
    which part of the signals is stored, and how.
    """

    batch_videos: int = 32
    batch_texts: int = 256
    threads: int | None = None
    shard_rows: int | None = None
    decoders: int = 2
    time_limit_s: float = 60.0
    memory_limit_mb: int = 2048
    storage: StorageOptions = field(default_factory=StorageOptions)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not 0 < value <= LARGEST_SETTING:
                raise InputError(f"{name} is a number from 1 to {LARGEST_SETTING:,}, not {value}")


def dump(
    root: Path, samples: Samples, teacher: Teacher, settings: DumpSettings, earlier_seconds: dict[str, float]
) -> Cache:
    """Write every signal of `teacher` over `samples` into the cache at `root`; returns it complete.

    Resumes where a killed dump stopped; adds a teacher to a finished cache; does nothing where all is
    done. earlier_seconds: spent on preparing the data, for the report. Raises LockedCacheError,
    IdentityError, NonFiniteError and what the teacher or the disk raise; finished shards are kept.
    """
    with CacheWriter(root, samples) as writer:
        plan = make_plan(writer, teacher, settings)
        writer.plan(plan)
        if not writer.is_complete(plan.name):
            torch.set_num_threads(plan.execution["threads"])
            counts = {"V": len(samples.videos), "T": len(samples.texts)}
            tasks = list(shard_tasks(plan, counts))
            limits = Limits(settings.time_limit_s, settings.memory_limit_mb)
            with DecodePool(plan.view, settings.decoders, limits) as pool:
                dumper = ShardDumper(
                    root, plan, samples, teacher, pool, writer.view_is_complete(plan.view.name)
                )
                _run(writer, dumper, tasks)
            seconds = dict(earlier_seconds)
            for task in tasks:
                seconds[task.phase] = seconds.get(task.phase, 0.0) + writer.ledger[task.name].seconds
            writer.complete(plan, [task.name for task in tasks])
            _report_seconds(root, plan.name, seconds)
    return open_cache(root)


def make_plan(writer: CacheWriter, teacher: Teacher, settings: DumpSettings) -> TeacherPlan:
    """The plan of this dump; what an earlier, unfinished run of it fixed stays fixed."""
    stored = writer.stored_plan(teacher.name)
    counts = {"V": len(writer.samples.videos), "T": len(writer.samples.texts)}
    pixels = settings.storage.pixels
    fixed = {
        "batch_videos": settings.batch_videos,
        "batch_texts": settings.batch_texts,
        "threads": settings.threads or torch.get_num_threads(),
        "device": teacher.device.type,
        "pixels": pixels.to_dict() if pixels else None,
    }
    if stored is not None and settings.threads is None:
        fixed["threads"] = stored.execution["threads"]
    signals = settings.storage.applied(teacher.signals, teacher.pair_inputs)
    return TeacherPlan(
        teacher.name,
        teacher.identity(),
        teacher.view,
        signals,
        execution(signals, counts, fixed, settings.shard_rows, teacher.view.pixel_bytes if pixels else 0),
        library_versions(),
    )


def library_versions() -> dict[str, str]:
    """Versions of what turned files into signals: provenance, not identity."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _run(writer: CacheWriter, dumper: ShardDumper, tasks: Iterable[ShardTask]) -> None:
    """Run the unfinished tasks phase by phase."""
    executor = SerialExecutor()
    for phase, of_phase in groupby(tasks, key=lambda task: task.phase):
        todo = [task for task in of_phase if task.name not in writer.ledger]
        unit = "text" if PHASE_AXIS.get(phase) == "T" else "video"
        total = sum(_units(task, dumper) for task in todo)
        with tqdm(total=total, desc=f"{dumper.plan.name}: {phase}", unit=unit, disable=None) as bar:

            def run(task: ShardTask, bar: Any = bar) -> Commit:
                began = time.monotonic()
                return replace(dumper.run(task, bar.update), seconds=round(time.monotonic() - began, 3))

            for commit in executor.map(run, todo):
                writer.commit(commit)


def _units(task: ShardTask, dumper: ShardDumper) -> int:
    """How many steps of progress a task reports: `pairs` counts texts, the others their rows."""
    return len(dumper.samples.texts) if task.phase == "pairs" else task.stop - task.start


def _report_seconds(root: Path, teacher: str, seconds: dict[str, float]) -> None:
    """Write reports/dump.json, outside the digest: seconds by phase of each teacher's dump."""
    path = root / "reports" / "dump.json"
    report = read_json(path) if path.exists() else {"teachers": {}}
    report["teachers"][teacher] = {"seconds": {phase: round(value, 3) for phase, value in seconds.items()}}
    write_file(path, canonical_json(report))
