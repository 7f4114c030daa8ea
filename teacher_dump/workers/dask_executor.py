"""Tasks on the workers of a dask cluster: one started here, or any whose scheduler has an address."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any

import dask
import torch
from dask.system import CPU_COUNT
from distributed import Client, Future, Nanny, Scheduler, SpecCluster, as_completed
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker
from distributed.system import MEMORY_LIMIT

from store.errors import CacheError, InputError
from store.inputs.samples import Samples
from store.ledger import Commit
from teacher_dump.plan import ShardTask
from teacher_dump.teachers.base import Teacher
from teacher_dump.workers.dask_worker import packed, run_on_worker
from teacher_dump.workers.executors import Run, Share
from teacher_dump.workers.jobs import DumpJob, Report, Sources

CONNECT_S = 60
LOOPBACK = "127.0.0.1"
DASHBOARD = f"{LOOPBACK}:8787"
CONFIG = {
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.daemon": False,
    # A worker is never told to keep results elsewhere or to wait: commits are small, and what counts is the
    # teacher's memory, for which only the limit itself helps.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    # A task takes seconds at least: watching a process 50 times a second costs more than its scheduling.
    "distributed.worker.memory.monitor-interval": "250ms",
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.comm.timeouts.connect": f"{CONNECT_S}s",
}


@dataclass(frozen=True)
class Machine:
    """What a cluster on this machine is made of. Every worker gets its share of `cores` and may hold
    `worker_bytes`; worker i owns the GPU `devices[i]`, as CUDA_VISIBLE_DEVICES names it, where they compute
    on some.
    """

    workers: int
    cores: int
    worker_bytes: int
    devices: tuple[str, ...] = ()

    @property
    def share(self) -> Share:
        cores = max(self.cores // self.workers, 1)
        return Share(cores, cores)

    def start(self) -> SpecCluster:
        """A scheduler on the loopback interface and the workers, each under a nanny that replaces it."""
        scheduler = {"host": LOOPBACK, "dashboard_address": DASHBOARD, "dashboard": True}
        workers = {
            number: {"cls": Nanny, "options": {**self._options(number), "memory_limit": self.worker_bytes}}
            for number in range(self.workers)
        }
        with threads_deaf_to_interrupts():
            return SpecCluster(
                workers, {"cls": Scheduler, "options": scheduler}, silence_logs=logging.WARNING
            )

    def _options(self, number: int) -> dict[str, Any]:
        env = {"CUDA_VISIBLE_DEVICES": self.devices[number]} if self.devices else {}
        quiet = {"dashboard": False, "silence_logs": logging.CRITICAL}
        return {"nthreads": 1, "host": LOOPBACK, "env": env, **quiet}


class DaskExecutor:
    """A context manager; the cluster is started, or connected to, when it is first needed.

    where: a Machine, or the address of a scheduler. Whoever dumps needs the same folders as the workers.
    """

    def __init__(self, where: Machine | str, sources: Sources) -> None:
        self._where = where
        self._sources = sources
        self._stack = ExitStack()

    def __enter__(self) -> DaskExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @cached_property
    def client(self) -> Client:
        """Connected to the cluster; prints the dashboard's address. Raises InputError without a scheduler."""
        self._stack.enter_context(dask.config.set(CONFIG))
        if isinstance(self._where, Machine):
            address: Any = self._stack.enter_context(self._where.start())
        else:
            address = self._where
        try:
            client = self._stack.enter_context(Client(address, timeout=CONNECT_S, set_as_default=False))
        except (OSError, ValueError) as error:
            raise InputError(
                f"no scheduler answers at {address} ({error}); start it: dask scheduler"
            ) from None
        print(dashboard(client.dashboard_link), file=sys.stderr)
        return client

    def share(self) -> Share:
        """Cores of a machine over the workers on it; of an address, of the worker that has the fewest.

        Raises InputError where no worker comes.
        """
        if isinstance(self._where, Machine):
            return self._where.share
        try:
            self.client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError:
            raise InputError(
                f"the scheduler at {self._where} has no worker, and none came in {CONNECT_S} s; start some: "
                f"dask worker {self._where} --nthreads 1"
            ) from None
        cores = self.client.run(visible_cores)
        hosts = [address.rpartition(":")[0] for address in cores]
        least = min(cores[address] // hosts.count(host) for address, host in zip(cores, hosts, strict=True))
        return Share(max(least, 1), max(least, 1))

    @contextmanager
    def running(self, job: DumpJob, samples: Samples, teacher: Teacher) -> Iterator[Run]:
        client, payload = self.client, packed(job, self._sources)

        def run(tasks: Sequence[ShardTask], report: Report) -> Iterator[Commit]:
            topic = f"progress-{job.writer}"
            client.subscribe_topic(topic, lambda event: report(*event[1]))
            futures = {
                client.submit(
                    run_on_worker, payload, task, topic, key=f"{task.name}-{job.writer}", pure=False
                ): task
                for task in tasks
            }
            try:
                for future in as_completed(futures, loop=client.loop):
                    yield outcome(future, futures[future])
            finally:
                for future in futures:
                    future.release()

        yield run


def outcome(future: Future, task: ShardTask) -> Commit:
    """What a task gave; a task or a cluster that is lost becomes a CacheError of one line."""
    try:
        commit: Commit = future.result()
    except KilledWorker as error:
        raise CacheError(
            f"task {task.name} took {error.allowed_failures + 1} workers down, out of memory perhaps; "
            "give a worker more of it, or a smaller --batch-videos, and resume: finished shards are kept"
        ) from None
    except (FutureCancelledError, CommClosedError, TimeoutError) as error:
        raise CacheError(
            f"the scheduler was lost while {task.name} ran ({type(error).__name__}); finished shards are "
            "kept, start a scheduler and the same command again"
        ) from None
    return commit


def this_machine(workers: int, device: str, memory_gb: int | None) -> Machine:
    """A cluster of `workers` here, for teachers on `device`; raises InputError for too few GPUs."""
    devices = visible_devices(device) if device.startswith("cuda") else ()
    if device.startswith("cuda") and len(devices) < workers:
        raise InputError(
            f"local:{workers} gives each worker a GPU of its own, {device} names {len(devices)}; use "
            f"local:{max(len(devices), 1)}, or --device cuda for all of them"
        )
    limit = MEMORY_LIMIT // workers if memory_gb is None else memory_gb << 30
    return Machine(workers, CPU_COUNT, limit, devices)


def visible_devices(device: str) -> tuple[str, ...]:
    """The GPUs that "cuda" (all) or "cuda:1" (one) means, as CUDA_VISIBLE_DEVICES names them."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = told.split(",") if told else [str(number) for number in range(torch.cuda.device_count())]
    _, colon, number = device.partition(":")
    return tuple(names[int(number) : int(number) + 1] if colon else names)


@contextmanager
def threads_deaf_to_interrupts() -> Iterator[None]:
    """Threads that start meanwhile, and all processes that these start at any time, see no Ctrl-C.

    It reaches every process of a terminal; what it means for a dump, the coordinator's main thread decides.
    """
    # Who first spawns a process starts multiprocessing's tracker, which unblocks the signal in its thread.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def dashboard(link: str) -> str:
    """One line with the address where the cluster can be watched; dask draws its dashboard with bokeh."""
    if find_spec("bokeh") is None:
        link = f"{link.removesuffix('status')}info/main/workers.html (pip install bokeh for more)"
    return f"dashboard: {link}"


def visible_cores() -> int:
    return len(os.sched_getaffinity(0))
