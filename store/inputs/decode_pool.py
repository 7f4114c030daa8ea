"""Decoding in worker processes, ahead of the reader and in order; a broken video costs itself, never the run.

Each worker is one spawned process on a pipe of its own, driven by one thread here: a worker that hangs or
dies leaves no lock behind and is replaced. Workers never import torch, and end when their parent does. Pixels
come through memory that both sides map: pickled through the pipe they cost as much as decoding them.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import multiprocessing
import os
import resource
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import numpy as np

from store.errors import CacheError, InputError, UndecodableVideoError
from store.inputs.frames import DecodedVideo, decode_view
from store.inputs.view import View

Decoder = Callable[[Path, View, str], DecodedVideo]

READY = "ready"
START_LIMIT_S = 120.0
AHEAD_PER_WORKER = 3
TRIES = 2
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one video may cost its worker.

    time_s: seconds. memory_mb: megabytes of address space beyond what the worker maps when it is ready. An
    allocation beyond them is refused to FFmpeg and Pillow before a page of it is touched, which they report
    as an ordinary error; watching the resident size would come after the machine had begun to swap.
    """

    time_s: float = 60.0
    memory_mb: int = 2048

    def __post_init__(self) -> None:
        if not self.time_s > 0 or self.memory_mb < 1:
            raise InputError(
                f"a decode pool needs some time and memory, got {self.time_s:g} s and {self.memory_mb} MB"
            )


@dataclass(frozen=True)
class DecodeFailure:
    """Why a video has no frames: one line without any path, as the cache stores it."""

    reason: str


Outcome = DecodedVideo | DecodeFailure


class DecodePool:
    """A context manager of `workers` processes that decode `view`, each video within `limits`.

    decoder: what a worker calls, importable by its name.
    """

    def __init__(
        self,
        view: View,
        workers: int = 2,
        limits: Limits = Limits(),
        decoder: Decoder = decode_view,
    ) -> None:
        if workers < 1:
            raise InputError(f"a decode pool needs a worker, got {workers}")
        self._workers = [Worker(view, limits, decoder) for _ in range(workers)]
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

    def decode(
        self, paths: Iterable[Path], video_ids: Iterable[str] = (), beyond: int = 0
    ) -> Iterator[Outcome]:
        """What became of each path, in order; at most 3 videos a worker, and `beyond`, are held decoded.

        video_ids: of the same videos, for views that draw at random. A video that can't be decoded, takes
        too much or twice takes its decoder with it is a DecodeFailure.
        Raises CacheError for what is wrong with every video: the view, or a worker that can't start.
        """
        pending: deque[Future[Outcome]] = deque()
        ahead = AHEAD_PER_WORKER * len(self._workers) + beyond
        try:
            for path, video_id in zip(paths, itertools.chain(video_ids, itertools.repeat("")), strict=False):
                pending.append(self._threads.submit(self._decode_one, path, video_id))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def _decode_one(self, path: Path, video_id: str) -> Outcome:
        worker = self._idle.get()
        try:
            return worker.decode(path, video_id)
        finally:
            self._idle.put(worker)


class Worker:
    """One process at a time, started at the first video and again after it was lost.

    `decode` and `bury` belong to one thread at a time; `kill` may come from any.
    """

    def __init__(self, view: View, limits: Limits, decoder: Decoder) -> None:
        self._view = view
        self._limits = limits
        self._decoder = decoder
        self._pixels: Any = multiprocessing.get_context("spawn").RawArray(ctypes.c_uint8, view.pixel_bytes)
        self._lock = threading.Lock()
        self._killed = False
        self._death = ""
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    def decode(self, path: Path, video_id: str) -> Outcome:
        """Decode one video; once more if the process died, since the video need not have been to blame."""
        for _ in range(TRIES):
            outcome = self._try(path, video_id)
            if outcome is not None:
                return outcome
        return DecodeFailure(f"decoder died ({self._death})")

    def _try(self, path: Path, video_id: str) -> Outcome | None:
        """What became of the video, or None if the process died over it."""
        connection = self._connection or self._start()
        try:
            connection.send((path, video_id))
            if not connection.poll(self._limits.time_s):
                self.bury()
                return DecodeFailure(f"took longer than {self._limits.time_s:g} s")
            answer = connection.recv()
        except (EOFError, OSError):
            self._death = self.bury(grace_s=1)
            return None
        if isinstance(answer, CacheError):
            raise answer
        if isinstance(answer, DecodedVideo):
            return replace(answer, frames=pixels_of(self._pixels, self._view).copy())
        failure: DecodeFailure = answer
        return failure

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
            duty = (self._view, self._decoder, self._limits.memory_mb)
            self._process = context.Process(target=serve, args=(theirs, self._pixels, *duty), daemon=True)
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


def pixels_of(shared: Any, view: View) -> np.ndarray:
    """The frames [R, M, Y, X, 3] that lie in the shared memory of a worker; a view of it."""
    return np.frombuffer(shared, dtype=np.uint8).reshape(view.pixel_shape)


def serve(connection: Connection, shared: Any, view: View, decoder: Decoder, memory_mb: int) -> None:
    """A worker's life: decode the videos that come through the pipe until it closes."""
    # Ctrl-C reaches the whole group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    # The first video's limits are not for imports.
    for module in ("av", "av.logging", "decord", "PIL.Image", "PIL.ImageEnhance"):
        importlib.import_module(module)
    pixels = pixels_of(shared, view)
    limit_memory(memory_mb)
    connection.send(READY)
    while True:
        try:
            path, video_id = connection.recv()
        except EOFError:
            return
        outcome = outcome_of(path, video_id, view, decoder)
        if isinstance(outcome, DecodedVideo):
            pixels[:] = outcome.frames
            outcome = replace(outcome, frames=pixels[:0])
        connection.send(outcome)


def limit_memory(memory_mb: int) -> None:
    """Let this process map at most `memory_mb` more than now; raises CacheError where that can't be set."""
    try:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit, most = mapped + memory_mb * MEGABYTE, resource.getrlimit(resource.RLIMIT_AS)[1]
        if most != resource.RLIM_INFINITY:
            limit = min(limit, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    except (OSError, ValueError) as error:
        raise CacheError(f"this system can't limit a worker's memory ({error})") from error


def end_with_parent() -> None:
    """End this process, whatever it is doing, once the parent is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def outcome_of(path: Path, video_id: str, view: View, decoder: Decoder) -> Outcome | CacheError:
    """The decoded video, why this one failed, or the error that all of them would meet."""
    try:
        return decoder(path, view, video_id)
    except UndecodableVideoError as error:
        return DecodeFailure(str(error))
    except CacheError as error:
        return error
    except MemoryError:
        return DecodeFailure("needs more memory than a decoder may take")
    except Exception as error:
        # Unforeseen, so its trace is shown; its text may hold a path, so only its kind is kept.
        traceback.print_exc()
        return DecodeFailure(f"the decoder raised {type(error).__name__}")
