"""Stages of a task that work at the same time, each in a thread of its own, a bounded number of items apart.

decoders (processes) -> a batch is put together -> forward (the caller) -> encoded and written
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")
END: Any = object()


def made_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """`items`; the next one is made in a thread while the caller is busy with the last."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        coming = thread.submit(next, items, END)
        while (item := coming.result()) is not END:
            coming = thread.submit(next, items, END)
            yield item
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


class Behind:
    """A context manager: `consume` runs in a thread, in order, on what is `put`.

    At most `most` items are unfinished at a time, then `put` waits. What `consume` raises comes out of the
    next `put` or of `finish`, which returns when all was consumed; without it the rest is dropped.
    """

    def __init__(self, consume: Callable[..., None], most: int = 2) -> None:
        self._consume = consume
        self._most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._unfinished: deque[Future[None]] = deque()

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def put(self, *item: Any) -> None:
        while len(self._unfinished) >= self._most:
            self._unfinished.popleft().result()
        self._unfinished.append(self._thread.submit(self._consume, *item))

    def finish(self) -> None:
        while self._unfinished:
            self._unfinished.popleft().result()
