"""Decoding in worker processes, ahead of the reader and in order; a broken video costs itself, never the run.

Each worker is one spawned process on a pipe of its own, driven by one thread here: a worker that hangs or
dies leaves no lock behind and is replaced. Workers never import torch, and end when their parent does.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

from store.errors import CacheError, InputError, UndecodableVideoError
from store.inputs.frames import DecodedVideo, decode_view
from store.inputs.view import View

Decoder = Callable[[Path, View], DecodedVideo]

READY = "ready"
START_LIMIT_S = 120.0
AHEAD_PER_WORKER = 3


@dataclass(frozen=True)
class DecodeFailure:
    """Why a video has no frames: one line without any path, as the cache stores it."""

    reason: str


Outcome = DecodedVideo | DecodeFailure


class DecodePool:
    """A context manager of `workers` processes that decode `view`; each video may take `time_limit_s`.

    decoder: what a worker calls, importable by its name.
    """

    def __init__(
        self,
        view: View,
        workers: int = 2,
        time_limit_s: float = 60.0,
        decoder: Decoder = decode_view,
    ) -> None:
        if workers < 1 or not time_limit_s > 0:
            raise InputError(
                f"a decode pool needs a worker and some time, got {workers} and {time_limit_s:g} s"
            )
        self._workers = [Worker(view, time_limit_s, decoder) for _ in range(workers)]
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.kill()
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.bury()

    def decode(self, paths: Iterable[Path]) -> Iterator[Outcome]:
        """What became of each path, in order; at most 3 videos a worker are held decoded.

        A video that can't be decoded, takes too long or takes its decoder with it is a DecodeFailure.
        Raises CacheError for what is wrong with every video: the view, or a worker that can't start.
        """
        pending: deque[Future[Outcome]] = deque()
        ahead = AHEAD_PER_WORKER * len(self._workers)
        try:
            for path in paths:
                pending.append(self._threads.submit(self._decode_one, path))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def _decode_one(self, path: Path) -> Outcome:
        worker = self._idle.get()
        try:
            return worker.decode(path)
        finally:
            self._idle.put(worker)


class Worker:
    """One process at a time, started at the first video and again after it was lost.

    `decode` and `bury` belong to one thread at a time; `kill` may come from any.
    """

    def __init__(self, view: View, time_limit_s: float, decoder: Decoder) -> None:
        self._arguments = (view, decoder)
        self._time_limit_s = time_limit_s
        self._lock = threading.Lock()
        self._killed = False
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    def decode(self, path: Path) -> Outcome:
        connection = self._connection or self._start()
        try:
            connection.send(path)
            if not connection.poll(self._time_limit_s):
                self.bury()
                return DecodeFailure(f"took longer than {self._time_limit_s:g} s")
            answer = connection.recv()
        except (EOFError, OSError):
            return DecodeFailure(f"decoder died ({self.bury(grace_s=1)})")
        if isinstance(answer, CacheError):
            raise answer
        return answer

    def kill(self) -> None:
        """End the process, so that whoever waits for it goes on, and start no other."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                self._process.kill()

    def bury(self, grace_s: float = 0) -> str:
        """End the process, after `grace_s` in which it may end by itself; returns how it ended."""
        with self._lock:
            process, connection = self._process, self._connection
            self._process = self._connection = None
        if process is None or connection is None:
            return "never started"
        process.join(grace_s)
        process.kill()
        process.join()
        connection.close()
        code = process.exitcode or 0
        process.close()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        with self._lock:
            if self._killed:
                raise CacheError("the decode pool is closed; decode within its `with` block")
            self._process = context.Process(target=serve, args=(theirs, *self._arguments), daemon=True)
            self._process.start()
            self._connection = ours
        theirs.close()
        if not self._ready(ours):
            raise CacheError(f"a decode worker did not start ({self.bury(grace_s=1)}); see its message above")
        return ours

    def _ready(self, connection: Connection) -> bool:
        try:
            return connection.poll(START_LIMIT_S) and connection.recv() == READY
        except (EOFError, OSError):
            return False


def serve(connection: Connection, view: View, decoder: Decoder) -> None:
    """A worker's life: decode the paths that come through the pipe until it closes."""
    # Ctrl-C reaches the whole group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    # The first video's time limit is not for imports.
    for module in ("av", "decord", "PIL.Image"):
        importlib.import_module(module)
    connection.send(READY)
    while True:
        try:
            path = connection.recv()
        except EOFError:
            return
        connection.send(outcome_of(path, view, decoder))


def end_with_parent() -> None:
    """End this process, whatever it is doing, once the parent is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def outcome_of(path: Path, view: View, decoder: Decoder) -> Outcome | CacheError:
    """The decoded video, why this one failed, or the error that all of them would meet."""
    try:
        return decoder(path, view)
    except UndecodableVideoError as error:
        return DecodeFailure(str(error))
    except CacheError as error:
        return error
    except MemoryError:
        return DecodeFailure("not enough memory to decode it")
    except Exception as error:
        # Unforeseen, so its trace is shown; its text may hold a path, so only its kind is kept.
        traceback.print_exc()
        return DecodeFailure(f"the decoder raised {type(error).__name__}")
