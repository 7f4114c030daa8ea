"""What stops a training in time: broken numbers, a doubtful or silent teacher, a changed cache, SIGTERM."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from store.errors import CacheError, InputError, NonFiniteError
from store.identity import require_same
from store.manifest import MANIFEST
from store.reader import Cache, open_cache
from store.teacher_report import stored_complaint
from student_train.step_numbers import BrokenRows

NAMED_ROWS = 4
STEPS_BETWEEN_CHECKS = 100


class TerminatedError(CacheError, RuntimeError):
    """The training was asked to end (SIGTERM), and has saved its state."""


def require_finite(
    numbers: Mapping[str, float], where: str, broken: Callable[[], BrokenRows], cache: Cache
) -> None:
    """Raise NonFiniteError, naming the rows that are `broken`, if one of `numbers` is NaN or infinite."""
    wrong = [name for name, number in numbers.items() if not math.isfinite(number)]
    if not wrong:
        return
    rows = broken()
    pairs = zip(rows.video.tolist(), rows.text.tolist(), strict=True)
    named = [f"{cache.video_ids[video]} ({cache.texts[text]!r})" for video, text in pairs]
    more = f" and {len(named) - NAMED_ROWS} more" if len(named) > NAMED_ROWS else ""
    told = f"{', '.join(named[:NAMED_ROWS])}{more}" if named else "none of this process's"
    raise NonFiniteError(
        f"{where}: {wrong[0]} is {numbers[wrong[0]]}, nothing can be learned from it; {len(named)} of "
        f"{rows.of} rows came out so: {told}; choose smaller --learning-rates, or verify the cache"
    )


def require_trusted(cache: Cache, teachers: Iterable[str]) -> None:
    """Raise InputError if the stored report of one of `teachers` misses what was published of it."""
    for name in teachers:
        reason = stored_complaint(cache, name)
        if reason is not None:
            raise InputError(
                f"teacher {name!r} of {cache.path.name}: {reason}; to train on it all the same, say "
                "--despite-report"
            )


class TaughtShare:
    """Holds the share of the taught loss that was taught to `least`, every 100 steps and every epoch."""

    def __init__(self, least: float, label: str) -> None:
        self._least = least
        self._label = label
        self._shares: list[float] = []

    def add(self, numbers: Mapping[str, float], epoch_ends: bool) -> None:
        """Take in a step; raises InputError if the teacher said too little since the last check."""
        if "taught_share" not in numbers:
            return
        self._shares.append(numbers["taught_share"])
        if not epoch_ends and len(self._shares) < STEPS_BETWEEN_CHECKS:
            return
        share = math.fsum(self._shares) / len(self._shares)
        self._shares.clear()
        if share < self._least:
            raise InputError(
                f"{self._label}: the teacher said something about {100 * share:.1f}% of the rows that it was "
                f"to teach, less than {100 * self._least:g}%; train from its own batch plan, dump more "
                "of its scores, or lower --set least_taught_share"
            )


class UnchangedCache:
    """Refuses to go on once a part that is read, `pinned` by digest, is another one on the disk."""

    def __init__(self, cache: Cache, pinned: Callable[[Cache], Mapping[str, str]]) -> None:
        self._path = cache.path
        self._pinned = pinned
        self._before = dict(pinned(cache))
        self._seen = manifest_stat(cache.path)

    def __call__(self) -> None:
        """Raises IdentityError naming the part; what others add to the cache is no change."""
        found = manifest_stat(self._path)
        if found == self._seen:
            return
        now = dict(self._pinned(open_cache(self._path)))
        way_out = "train in a new run folder, or restore the cache"
        require_same(self._before, now, f"{self._path.name} since this training began", way_out)
        self._seen = found


def manifest_stat(path: Path) -> tuple[int, int, int]:
    found = os.stat(path / MANIFEST)
    return found.st_mtime_ns, found.st_size, found.st_ino


class Termination:
    """While in use, SIGTERM only sets `asked`: the loop saves and ends after its step."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
