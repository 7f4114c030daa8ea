"""What any process needs to run the tasks of a dump, as plain data, and the running of one task."""

from __future__ import annotations

import errno
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from store.errors import InputError
from store.inputs.decode_pool import DecodePool, Limits
from store.inputs.samples import Samples, Segment
from store.layout import DATASET_IDENTITY, TeacherPlan, check_path_name, dataset_attributes
from store.ledger import Commit
from store.lock import require_writer
from store.lookup import load_plugin, plugin_names
from teacher_dump import teachers
from teacher_dump.dump_shard import ShardDumper
from teacher_dump.models.frozen import FrozenTeacher
from teacher_dump.plan import ShardTask
from teacher_dump.teachers.base import Teacher, TeacherOptions

LIBRARIES = ("torch", "open_clip_torch", "decord", "av", "pillow", "numpy", "zarr")
PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EREMOTEIO}
"""What a network file system says once and not again; a full disk or a missing file says so every time."""

Report = Callable[[str, int], None]
"""Told of a task's name and how many of its rows are done."""


@dataclass(frozen=True)
class Sources:
    """How a process of its own gets what a dump runs over: functions importable by name, e.g. a
    `functools.partial` of one over plain arguments and absolute paths.
    """

    samples: Callable[[], Samples]
    teacher: Callable[[], Teacher]


@dataclass(frozen=True)
class DumpJob:
    """What all tasks of one run of a dump share; plain data, so it goes to any process.

    view_is_complete: the view was stored by an earlier teacher, so its frames are compared with this dump's
    instead of written. writer: token of the coordinator's lock; a task whose coordinator is gone stops.
    decoders: processes that decode ahead, within `limits` a video. libraries: versions that the coordinator
    runs; another one in a worker would give other labels. dataset: what identifies the coordinator's rows.
    segments: of these rows, up to the one that `plan` is of; one of all rows if not given.
    """

    root: Path
    plan: TeacherPlan
    view_is_complete: bool
    writer: str
    decoders: int
    limits: Limits
    libraries: Mapping[str, str]
    dataset: Mapping[str, Any]
    segments: tuple[Segment, ...] = ()


def load_teacher(name: str, options: TeacherOptions, stored_as: str | None = None) -> Teacher:
    """The teacher `name`, or under the name `stored_as`; raises what its `load` does, and UnknownNameError.

    Raises InputError for another teacher's name, or one that is none of a folder.
    """
    if stored_as in (None, name):
        teacher: Teacher = load_plugin(teachers, "teacher", name).load(options)
        return teacher
    if stored_as in plugin_names(teachers):
        raise InputError(f"--name {stored_as} is a teacher of its own; store {name!r} under another name")
    own_name = check_path_name("teacher", str(stored_as))
    frozen: FrozenTeacher = load_plugin(teachers, "teacher", name).load(options)
    return frozen.stored_as(own_name)


@contextmanager
def open_dumper(job: DumpJob, samples: Samples, teacher: Teacher) -> Iterator[ShardDumper]:
    """What runs the tasks of `job` in this process; torch gets the threads that the plan fixed."""
    torch.set_num_threads(job.plan.execution["threads"])
    with DecodePool(job.plan.view, job.decoders, job.limits) as pool:
        yield ShardDumper(job.root, job.plan, samples, teacher, pool, job.view_is_complete, job.segments)


def run_task(dumper: ShardDumper, writer: str, task: ShardTask, report: Report) -> Commit:
    """Run one task, once more if the file system failed as it does in passing; the shards it wrote.

    A second try starts over in files of its own: what follows a failed fsync can't be trusted. Raises
    LockedCacheError once the lock of the coordinator, `writer`, is another's.
    """
    try:
        return _run_once(dumper, writer, task, report)
    except OSError as error:
        if error.errno not in PASSING:
            raise
        logging.getLogger(__name__).warning("%s: %s; it is tried once more", task.name, error)
        return _run_once(dumper, writer, task, report)


def _run_once(dumper: ShardDumper, writer: str, task: ShardTask, report: Report) -> Commit:
    began, done = time.monotonic(), 0
    require_writer(dumper.root, writer)

    def progress(rows: int) -> None:
        nonlocal done
        done += rows
        report(task.name, done)

    commit = dumper.run(task, progress)
    return replace(commit, seconds=round(time.monotonic() - began, 3))


def dataset_identity(samples: Samples) -> dict[str, Any]:
    """By what processes tell that they run over the same rows, however many segments a cache has of them."""
    told = dataset_attributes(samples)
    return {name: told[name] for name in DATASET_IDENTITY}


def library_versions() -> dict[str, str]:
    """Versions of what turned files into signals: provenance, not identity."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
