"""In a worker of dask: samples and teacher are loaded once and checked, and tasks run one at a time."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import time
from contextlib import ExitStack

from distributed import get_worker

from store.errors import MissingFileError
from store.identity import require_same
from store.inputs.samples import Samples
from store.ledger import Commit
from store.lock import require_writer
from teacher_dump.dump_shard import ShardDumper
from teacher_dump.plan import ShardTask
from teacher_dump.teachers.base import Teacher
from teacher_dump.workers.jobs import (
    DumpJob,
    Report,
    Sources,
    dataset_identity,
    library_versions,
    open_dumper,
    run_task,
)

REPORT_EVERY_S = 1.0
REPLACE = "give every worker the same files, options and versions as the coordinator, and resume"


def run_on_worker(payload: bytes, task: ShardTask, topic: str) -> Commit:
    """Run one task of the dump that `payload` describes (see `packed`); progress goes to `topic`.

    Raises IdentityError, naming the field, if what this worker loads is not what the plan says, and what
    the task raises.
    """
    with _here.one_task_at_a_time:
        dumper, writer = _here.dumper_of(payload)
        return run_task(dumper, writer, task, throttled(dumper, writer, topic))


def packed(job: DumpJob, sources: Sources) -> bytes:
    """`job` and `sources`, for our own workers."""
    return pickle.dumps((job, sources))


class WorkerProcess:
    """What this process holds between tasks: samples and teacher of one dump, and its decoders."""

    def __init__(self) -> None:
        self.one_task_at_a_time = threading.Lock()
        self._payload = b""
        self._stack = ExitStack()
        self._dumper: ShardDumper | None = None
        self._writer = ""

    def dumper_of(self, payload: bytes) -> tuple[ShardDumper, str]:
        """What runs the tasks of `payload`, and the token of its coordinator; the last dump's is closed."""
        if self._dumper is None or payload != self._payload:
            self._stack.close()
            self._dumper = None
            job, sources = pickle.loads(payload)
            self._dumper = self._stack.enter_context(open_dumper(job, *load_checked(job, sources)))
            self._payload, self._writer = payload, job.writer
        return self._dumper, self._writer


_here = WorkerProcess()


def load_checked(job: DumpJob, sources: Sources) -> tuple[Samples, Teacher]:
    """Samples and teacher of this process, the same as the coordinator's; raises IdentityError if not."""
    may_have_children()
    if not job.root.is_dir():
        raise MissingFileError(
            f"a worker sees no cache at {job.root}; workers need the same folder at that path"
        )
    require_same(dict(job.libraries), library_versions(), "the libraries of a worker", REPLACE)
    samples = sources.samples()
    require_same(dict(job.dataset), dataset_identity(samples), "the dataset in a worker", REPLACE)
    teacher, plan = sources.teacher(), job.plan
    require_same(
        {"identity": plan.identity, "view": plan.view.to_dict(), "device": plan.execution["device"]},
        {"identity": teacher.identity(), "view": teacher.view.to_dict(), "device": teacher.device.type},
        f"teacher {plan.name!r} in a worker",
        REPLACE,
    )
    return samples, teacher


def may_have_children() -> None:
    """Let this process start decoders: dask starts its workers as daemons, which Python keeps from that.

    The decoders end by themselves when this process does, so nothing is left behind.
    """
    multiprocessing.process.current_process()._config["daemon"] = False  # type: ignore[attr-defined]


def throttled(dumper: ShardDumper, writer: str, topic: str) -> Report:
    """Tells the coordinator of progress, once a second; raises LockedCacheError when it is gone."""
    worker, told = get_worker(), time.monotonic()

    def report(task: str, rows: int) -> None:
        nonlocal told
        if time.monotonic() - told >= REPORT_EVERY_S:
            told = time.monotonic()
            require_writer(dumper.root, writer)
            worker.log_event(topic, [task, rows])

    return report
