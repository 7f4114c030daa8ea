"""Who runs the tasks of a dump. Serial is the reference: another executor gives the same commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch

from store.inputs.samples import Samples
from store.ledger import Commit
from teacher_dump.plan import ShardTask
from teacher_dump.settings import LOCAL, SERIAL
from teacher_dump.teachers.base import Teacher
from teacher_dump.workers.jobs import DumpJob, Report, Sources, open_dumper, run_task

Run = Callable[[Sequence[ShardTask], Report], Iterator[Commit]]
"""Runs tasks of one phase, which don't depend on each other, and gives each one's commit as it is done."""


@dataclass(frozen=True)
class Share:
    """What one worker has of its machine: threads of torch, and processes that decode ahead."""

    threads: int
    decoders: int


class Executor(Protocol):
    """Runs tasks; `share` and `running` may be asked any number of times."""

    def share(self) -> Share:
        """What a worker gets where the user does not say."""

    def running(self, job: DumpJob, samples: Samples, teacher: Teacher) -> AbstractContextManager[Run]:
        """Ready to run the tasks of `job`; samples, teacher: the coordinator's own, already loaded."""


class SerialExecutor:
    """One task after another in this process."""

    def share(self) -> Share:
        return Share(torch.get_num_threads(), 2)

    @contextmanager
    def running(self, job: DumpJob, samples: Samples, teacher: Teacher) -> Iterator[Run]:
        with open_dumper(job, samples, teacher) as dumper:

            def run(tasks: Sequence[ShardTask], report: Report) -> Iterator[Commit]:
                return (run_task(dumper, job.writer, task, report) for task in tasks)

            yield run


def open_executor(
    name: str, sources: Sources, device: str, memory_gb: int | None
) -> AbstractContextManager[Executor]:
    """The executor `name`, see `settings.checked_executor`; what it started ends with the context.

    device: where the teachers of its workers compute, torch's name. memory_gb: of a worker of local:N, its
    share of the machine's if not given. Raises InputError for more workers than there are GPUs.
    """
    if name == SERIAL:
        return nullcontext(SerialExecutor())
    from teacher_dump.workers.dask_executor import DaskExecutor, this_machine

    kind, _, count = name.partition(":")
    where = this_machine(int(count), device, memory_gb) if kind == LOCAL else name
    return DaskExecutor(where, sources)
