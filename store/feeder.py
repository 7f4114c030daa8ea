"""Batches read ahead of their consumer by background threads, into a ring of reused buffers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from store.errors import InputError

Buffers = TypeVar("Buffers")
Read = TypeVar("Read", covariant=True)

HANDED_OUT = 2
RING = 3


class BatchSource(Protocol[Buffers, Read]):
    """What a feeder reads from: a `store.reader.TeacherReader`, or what is built upon several."""

    def buffers(self, signals: Sequence[str], rows: int) -> Buffers: ...

    def batch(
        self,
        signals: Sequence[str],
        video_rows: np.ndarray,
        text_rows: np.ndarray,
        *,
        out: Buffers | None = None,
    ) -> Read: ...


class BatchFeeder(Generic[Read]):
    """Iterates over the batches of `steps`, (video_rows [B], text_rows [B], ...), in their order.

        ring of 3:   | handed out before | handed out last | being filled |

    **A batch holds until the next-but-one `next()`**: of what was handed out the last two batches are left
    alone, the one before is overwritten. Keep what is needed longer by copying it. While the consumer works
    one buffer is filled ahead; while it waits two are, by two threads. Memory: `ring` batches and no more,
    however slow the consumer.

    An error of a thread is raised by the `next()` whose batch it was, as it came (it names signal and row);
    after that, or after `close`, the iteration is over and no thread is left. Raises InputError for a ring
    below 3 or batches larger than `batch_size`.
    """

    def __init__(
        self,
        source: BatchSource[Any, Read],
        signals: Sequence[str],
        steps: Iterable[tuple[np.ndarray, ...]],
        batch_size: int,
        ring: int = RING,
        threads: int = 2,
    ) -> None:
        if ring <= HANDED_OUT or threads < 1:
            raise InputError(f"a feeder needs a ring of 3 and 1 thread at least, got {ring} and {threads}")
        self._source = source
        self._signals = tuple(signals)
        self._steps = iter(steps)
        self._free = [source.buffers(self._signals, batch_size) for _ in range(ring)]
        self._coming: deque[tuple[Future[Read], Any]] = deque()
        self._handed_out: deque[Any] = deque()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="batch-feeder")
        self._fill_ahead()

    def _fill_ahead(self) -> None:
        while self._free and (step := next(self._steps, None)) is not None:
            buffers = self._free.pop()
            task = self._threads.submit(self._source.batch, self._signals, *step, out=buffers)
            self._coming.append((task, buffers))

    def __iter__(self) -> Iterator[Read]:
        return self

    def __next__(self) -> Read:
        try:
            if len(self._handed_out) == HANDED_OUT:
                self._free.append(self._handed_out.popleft())
                self._fill_ahead()
            if not self._coming:
                raise StopIteration
            task, buffers = self._coming.popleft()
            batch = task.result()
        except BaseException:
            self.close()
            raise
        self._handed_out.append(buffers)
        return batch

    def close(self) -> None:
        """Stop reading ahead and wait for the threads; batches handed out stay as they are."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()
        self._free.clear()
        self._handed_out.clear()
        self._steps = iter(())

    def __enter__(self) -> BatchFeeder[Read]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_threads"):
            self._threads.shutdown(wait=False, cancel_futures=True)
