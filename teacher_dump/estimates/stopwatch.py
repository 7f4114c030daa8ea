"""Seconds on the clock and seconds of computing, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

Result = TypeVar("Result")
ENOUGH_S = 1.0
MOST_RUNS = 10


@dataclass(frozen=True)
class Spent:
    """clock_s: as it passed. cores_s: what all threads of this process computed meanwhile."""

    clock_s: float = 0.0
    cores_s: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.clock_s + other.clock_s, self.cores_s + other.cores_s)

    def times(self, factor: float) -> Spent:
        return Spent(self.clock_s * factor, self.cores_s * factor)


class Stopwatch:
    """A context manager; `spent` is known when it ends."""

    spent = Spent()

    def __enter__(self) -> Stopwatch:
        self._clock, self._cores = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.spent = Spent(time.perf_counter() - self._clock, time.process_time() - self._cores)


def timed(work: Callable[[], Result]) -> tuple[Spent, Result]:
    """What `work` takes once it is warm, and what it gave.

    Short work is run again, up to a second in all, and counts with the median of the runs after the first,
    which may take twice as long as the hundreds that follow it in a dump.
    """
    runs: list[Spent] = []
    while True:
        with Stopwatch() as watch:
            result = work()
        runs.append(watch.spent)
        if len(runs) == MOST_RUNS or sum(run.clock_s for run in runs) >= ENOUGH_S:
            break
    warm = sorted(runs[1:] or runs, key=lambda run: run.clock_s)
    return warm[len(warm) // 2], result
