"""How far a phase of a dump is: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from types import TracebackType

from tqdm import tqdm

SILENCE_S = 60.0


class Progress:
    """Of the phase `name`, which has `total` rows called `unit`; a context manager."""

    def __init__(self, name: str, total: int, unit: str) -> None:
        self._bar = tqdm(total=total, desc=name, unit=unit, disable=None)
        self._name, self._total, self._unit = name, total, unit
        self._done: dict[str, int] = {}
        self._began = self._told = time.monotonic()

    def __call__(self, task: str, rows: int) -> None:
        """`rows` of a task are done; one that is tried again counts from its beginning again."""
        self._bar.update(rows - self._done.get(task, 0))
        self._done[task] = rows
        now = time.monotonic()
        if self._bar.disable and now - self._told >= SILENCE_S:
            self._told = now
            print(self._line(now - self._began), flush=True)

    def _line(self, seconds: float) -> str:
        done = sum(self._done.values())
        left = f", about {seconds / done * (self._total - done) / 60:.0f} min left" if done else ""
        return f"{self._name}: {done:,} of {self._total:,} {self._unit}s after {seconds / 60:.0f} min{left}"

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
